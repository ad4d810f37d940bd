"""Roles are sets of scopes. Routes demand scopes; which rows a role may touch is decided in the services."""

SCOPES = {
    "cases:create": "open a case and add photographs",
    "cases:read": "read cases you are concerned with",
    "cases:submit": "submit or cancel your cases",
    "cases:triage": "triage and queue cases",
    "cases:answer": "claim, annotate and answer cases",
    "ai:use": "ask the AI Service",
    "ai:review": "see how often physicians agree with the AI Service",
    "reports:read": "read reports",
    "physicians:manage": "register physicians",
    "users:read": "list people",
    "sessions:manage": "see and end people's sign-in sessions",
    "users:manage": "invite people, give them roles, deactivate them",
    "usage:read": "see the plan's use",
    "audit:read": "read the audit log",
}

ROLES: dict[str, frozenset[str]] = {
    "tenant_admin": frozenset(
        {
            "cases:read",
            "cases:submit",
            "ai:review",
            "physicians:manage",
            "users:read",
            "sessions:manage",
            "users:manage",
            "usage:read",
            "reports:read",
            "audit:read",
        }
    ),
    "coordinator": frozenset({"cases:read", "cases:triage", "ai:use", "users:read", "reports:read"}),
    "physician": frozenset({"cases:read", "cases:answer", "ai:use", "reports:read"}),
    "referrer": frozenset({"cases:create", "cases:read", "cases:submit", "ai:use", "reports:read"}),
    "patient": frozenset({"cases:create", "cases:read", "cases:submit", "ai:use", "reports:read"}),
    "auditor": frozenset({"ai:review", "audit:read", "usage:read", "users:read"}),
}

SERVICE = "service"
"""The role of machine clients. No person has it, and a registered client has some of its scopes."""

SERVICE_SCOPES = frozenset(
    {
        "cases:create",
        "cases:read",
        "cases:submit",
        "ai:use",
        "ai:review",
        "reports:read",
        "users:read",
        "usage:read",
        "audit:read",
    }
)


def scopes_of(roles: list[str]) -> frozenset[str]:
    """All scopes that come with any of `roles`; unknown roles bring none."""
    return frozenset().union(*(ROLES.get(role, frozenset()) for role in roles))

"""Domains of e-mail addresses, in the one form in which they are compared."""

import idna


def canonical_domain(name: str) -> str:
    """Lower case, international names in their ASCII form. Raises `ValueError`."""
    try:
        return idna.encode(name.strip().lower(), uts46=True).decode()
    except idna.IDNAError as error:
        raise ValueError(str(error)) from None


def domain_of(email: str) -> str:
    """What follows the last `@`; empty where there is no such domain."""
    try:
        return canonical_domain(email.rpartition("@")[2]) if "@" in email else ""
    except ValueError:
        return ""

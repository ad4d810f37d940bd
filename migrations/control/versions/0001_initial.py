"""The control schema: directory, keys, plans, usage, work, audit; three plans; the doorbell."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

PLANS = {
    name: {
        "requests": requests,
        "ai_calls": ai_calls,
        "storage_bytes": storage_gb * 1_000_000_000,
        "seats": seats,
        "requests_per_minute_user": per_user,
        "requests_per_minute_tenant": per_tenant,
    }
    for name, requests, ai_calls, storage_gb, seats, per_user, per_tenant in (
        ("trial", 20_000, 2_000, 5, 10, 120, 600),
        ("standard", 1_000_000, 100_000, 500, 200, 300, 6_000),
        ("enterprise", 20_000_000, 2_000_000, 20_000, 5_000, 600, 60_000),
    )
}

# The tenant is the role that the transaction switched to, never an argument: a tenant can only ring its own bell.
# (`current_user` is the function's owner in here; the setting `role` is still the caller's.)
DOORBELL = """
CREATE SCHEMA doorbell;
CREATE FUNCTION doorbell.ring(kind text, due_at timestamptz) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF current_setting('role') !~ '^t_[a-z]' THEN
        RAISE insufficient_privilege USING MESSAGE = 'only a tenant can ring a doorbell';
    END IF;
    INSERT INTO control.doorbells (id, tenant_key, kind, due_at)
    VALUES (gen_random_uuid(), substr(current_setting('role'), 3), ring.kind, ring.due_at);
END $$;
GRANT USAGE ON SCHEMA doorbell TO PUBLIC;
"""

# Seals what is unsealed in the log of the role that the transaction switched to, or else in the platform's: at most
# 10,000 rows in the order of their ids. Returns their number. The lock comes first and the snapshot after it, so that
# each row gets one seal and each seal one successor. A row is hashed with all its columns, nulls left out: a column
# that a later revision adds does not change the rows that were there before.
# The platform's log is sealed at the commit of every act: they are few, and wait for one another anyway.
AUDIT = """
CREATE SCHEMA audit;
CREATE FUNCTION audit.seal() RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET TimeZone = 'UTC' AS $$
DECLARE
    log text := current_setting('role');
    sealed integer;
BEGIN
    IF log !~ '^t_[a-z]' THEN
        log := 'control';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('dermadetect audit'), hashtext(log));
    PERFORM set_config('search_path', quote_ident(log) || ', pg_temp', true);  -- until the function ends
    WITH last AS (
        SELECT coalesce(max(seq), 0) AS seq FROM audit_seals
    ), marked AS (
        UPDATE audit_events AS e SET seal = last.seq + 1 FROM last
        WHERE e.id IN (SELECT id FROM audit_events WHERE seal IS NULL ORDER BY id LIMIT 10000)
        RETURNING e.id, sha256(convert_to(jsonb_strip_nulls(to_jsonb(e) - 'seal')::text, 'UTF8')) AS hash
    ), link AS (
        SELECT
            last.seq + 1 AS seq, clock_timestamp() AS sealed_at, count(*)::integer AS events,
            sha256(string_agg(marked.hash, '' ORDER BY marked.id)) AS digest,
            coalesce(before.hash, decode(repeat('00', 32), 'hex')) AS previous
        FROM marked, last LEFT JOIN audit_seals AS before ON before.seq = last.seq
        GROUP BY last.seq, before.hash
    )
    INSERT INTO audit_seals (seq, sealed_at, events, digest, previous, hash)
    SELECT seq, sealed_at, events, digest, previous, sha256(convert_to(concat_ws('|',
        seq, extract(epoch FROM sealed_at), events, encode(digest, 'hex'), encode(previous, 'hex')
    ), 'UTF8')) FROM link
    RETURNING events INTO sealed;
    RETURN coalesce(sealed, 0);
END $$;
CREATE FUNCTION audit.seal_platform() RETURNS trigger
LANGUAGE plpgsql AS $$ BEGIN PERFORM audit.seal(); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER seal AFTER INSERT ON control.audit_events DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION audit.seal_platform();
GRANT USAGE ON SCHEMA audit TO PUBLIC;
"""

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "doorbells",
        sa.Column("tenant_key", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_doorbells")),
        schema="control",
    )
    op.create_index("ix_doorbells_due_at", "doorbells", ["due_at"], unique=False, schema="control")
    op.create_table(
        "epoch",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("value", sa.Integer(), nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("ck_epoch_single_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_epoch")),
        schema="control",
    )
    op.create_table(
        "migration_pause",
        sa.Column("one", sa.Boolean(), server_default="true", nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("one", name=op.f("ck_migration_pause_one")),
        sa.PrimaryKeyConstraint("one", name=op.f("pk_migration_pause")),
        schema="control",
    )
    op.create_table(
        "plans",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("limits", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_plans")),
        schema="control",
    )
    op.create_table(
        "revocations",
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("tenant_key", sa.Text(), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("epoch", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_revocations")),
        schema="control",
    )
    op.create_index(
        op.f("ix_revocations_expires_at"), "revocations", ["expires_at"], unique=False, schema="control"
    )
    op.create_index("ix_revocations_epoch", "revocations", ["epoch"], unique=False, schema="control")
    op.create_table(
        "schedule_slots",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("slot", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("kind", "slot", name=op.f("pk_schedule_slots")),
        schema="control",
    )
    op.create_table(
        "tenants",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("purge_after", sa.DateTime(timezone=True), nullable=True),
        sa.Column("home_host", sa.Text(), nullable=False),
        sa.Column("plan", sa.Text(), nullable=False),
        sa.Column("cell", sa.Text(), server_default="default", nullable=False),
        sa.Column("login_group", sa.Integer(), server_default="0", nullable=False),
        sa.Column("schema_revision", sa.Text(), nullable=True),
        sa.Column("ai_model", sa.Text(), nullable=True),
        sa.Column("image_links", sa.Text(), server_default="streamed", nullable=False),
        sa.Column("succeeded_by", sa.Uuid(), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("key ~ '^[a-z][a-z0-9]{0,39}$'", name=op.f("ck_tenants_key")),
        sa.CheckConstraint(
            "state IN ('preparing', 'warm', 'provisioning', 'active', 'moving', 'suspended', 'closing', 'closed', "
            "'rolling-back', 'rolled-back')",
            name=op.f("ck_tenants_state"),
        ),
        sa.CheckConstraint(
            "image_links IN ('streamed', 'signed')",
            name=op.f("ck_tenants_image_links"),
        ),
        sa.ForeignKeyConstraint(
            ["succeeded_by"], ["control.tenants.id"], name=op.f("fk_tenants_succeeded_by")
        ),
        sa.ForeignKeyConstraint(["plan"], ["control.plans.name"], name=op.f("fk_tenants_plan")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tenants")),
        sa.UniqueConstraint("home_host", name=op.f("uq_tenants_home_host")),
        sa.UniqueConstraint("key", name=op.f("uq_tenants_key")),
        sa.UniqueConstraint("slug", name=op.f("uq_tenants_slug")),
        schema="control",
    )
    op.create_index("ix_tenants_epoch", "tenants", ["epoch"], unique=False, schema="control")
    op.create_table(
        "audit_events",
        sa.Column("tenant_id", sa.Uuid(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("seal", sa.BigInteger(), nullable=True),
        sa.Column("detail", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.id"], name=op.f("fk_audit_events_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_events")),
        schema="control",
    )
    op.create_index(
        op.f("ix_audit_events_tenant_id"), "audit_events", ["tenant_id"], unique=False, schema="control"
    )
    op.create_index("ix_audit_events_seal", "audit_events", ["seal", "id"], unique=False, schema="control")
    op.create_table(
        "audit_seals",
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sealed_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("previous", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_audit_seals")),
        schema="control",
    )
    op.create_table(
        "hosts",
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_hosts_tenant_id")),
        sa.PrimaryKeyConstraint("host", name=op.f("pk_hosts")),
        schema="control",
    )
    op.create_index(op.f("ix_hosts_tenant_id"), "hosts", ["tenant_id"], unique=False, schema="control")
    op.create_table(
        "deletions",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("ordered_by", sa.Text(), nullable=False),
        sa.Column("rows", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("audit_sha256", sa.Text(), nullable=True),
        sa.Column("blobs", sa.BigInteger(), nullable=True),
        sa.Column("blob_bytes", sa.BigInteger(), nullable=True),
        sa.Column("certificate", sa.Text(), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_deletions_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deletions")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_deletions_tenant_id")),
        schema="control",
    )
    op.create_table(
        "moves",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("target_group", sa.Integer(), nullable=False),
        sa.Column("state_before", sa.Text(), nullable=True),
        sa.Column("reason_before", sa.Text(), nullable=True),
        sa.Column("switched_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_moves_tenant_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_moves")),
        sa.UniqueConstraint("tenant_id", name=op.f("uq_moves_tenant_id")),
        schema="control",
    )
    op.create_table(
        "operations",
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("arguments", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("leased_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("steps", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("result", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("problem", postgresql.JSONB(astext_type=sa.Text()), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'done', 'failed')", name=op.f("ck_operations_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        schema="control",
    )
    op.create_index(
        "uq_operations_subject",
        "operations",
        ["subject"],
        unique=True,
        schema="control",
        postgresql_where=sa.text("state IN ('waiting', 'running')"),
    )
    op.create_table(
        "platform_keys",
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("private_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("public", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_keys")),
        schema="control",
    )
    op.create_table(
        "platform_tokens",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.Text(), nullable=False),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_platform_tokens")),
        sa.UniqueConstraint("name", name=op.f("uq_platform_tokens_name")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_platform_tokens_token_hash")),
        schema="control",
    )
    op.create_table(
        "domain_claims",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("domain", sa.Text(), nullable=False),
        sa.Column("challenge", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.id"], name=op.f("fk_domain_claims_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_domain_claims")),
        sa.UniqueConstraint("tenant_id", "domain", name=op.f("uq_domain_claims_tenant_id_domain")),
        schema="control",
    )
    op.create_table(
        "provisioning_steps",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.id"], name=op.f("fk_provisioning_steps_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_provisioning_steps")),
        sa.UniqueConstraint(
            "tenant_id", "step", "act", name=op.f("uq_provisioning_steps_tenant_id_step_act")
        ),
        sa.CheckConstraint("act IN ('done', 'undone')", name=op.f("ck_provisioning_steps_act")),
        schema="control",
    )
    op.create_table(
        "quota_overrides",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("limit", sa.BigInteger(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint(
            "metric IN ('requests', 'ai_calls', 'storage_bytes', 'seats', 'requests_per_minute_user', 'requests_per_minute_tenant')",
            name=op.f("ck_quota_overrides_metric"),
        ),
        sa.CheckConstraint('"limit" >= 0', name=op.f("ck_quota_overrides_limit")),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.id"], name=op.f("fk_quota_overrides_tenant_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_quota_overrides")),
        sa.UniqueConstraint("tenant_id", "metric", name=op.f("uq_quota_overrides_tenant_id_metric")),
        schema="control",
    )
    op.create_table(
        "connections",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("audience", sa.Text(), nullable=False),
        sa.Column("email_domains", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("role_mapping", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("default_roles", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("groups_attribute", sa.Text(), nullable=False),
        sa.Column("email_attribute", sa.Text(), nullable=False),
        sa.Column("name_attribute", sa.Text(), nullable=False),
        sa.Column("provision", sa.Text(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("keep_sign_ins", sa.Boolean(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("kind IN ('saml', 'oidc')", name=op.f("ck_connections_kind")),
        sa.CheckConstraint("audience IN ('staff', 'patients')", name=op.f("ck_connections_audience")),
        sa.CheckConstraint("provision IN ('create', 'invited')", name=op.f("ck_connections_provision")),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_connections_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_connections")),
        sa.UniqueConstraint("tenant_id", "name", name=op.f("uq_connections_tenant_id_name")),
        schema="control",
    )
    op.create_table(
        "saml_connections",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("idp_entity_id", sa.Text(), nullable=False),
        sa.Column("sso_url", sa.Text(), nullable=False),
        sa.Column("certificates", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("logout_url", sa.Text(), nullable=True),
        sa.Column("logout_response_url", sa.Text(), nullable=True),
        sa.Column("metadata_url", sa.Text(), nullable=True),
        sa.Column("metadata_signers", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("metadata_read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata_due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("metadata_failure", sa.Text(), nullable=True),
        sa.Column("require_encryption", sa.Boolean(), nullable=False),
        sa.Column("allow_cbc", sa.Boolean(), nullable=False),
        sa.Column("refuse_expired_certificates", sa.Boolean(), nullable=False),
        sa.Column("allow_idp_initiated", sa.Boolean(), nullable=False),
        sa.Column("start_url", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["tenant_id", "id"],
            ["control.connections.tenant_id", "control.connections.id"],
            name=op.f("fk_saml_connections_tenant_id_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_saml_connections")),
        schema="control",
    )
    op.create_table(
        "oidc_connections",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("client_id", sa.Text(), nullable=False),
        sa.Column("client_auth", sa.Text(), nullable=False),
        sa.Column("secret_key_id", sa.Uuid(), nullable=True),
        sa.Column("secret_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("scopes", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.CheckConstraint(
            "client_auth IN ('client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none')",
            name=op.f("ck_oidc_connections_client_auth"),
        ),
        sa.CheckConstraint(
            "client_auth NOT IN ('client_secret_basic', 'client_secret_post') "
            "OR (secret_sealed IS NOT NULL AND secret_key_id IS NOT NULL)",
            name=op.f("ck_oidc_connections_secret"),
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id", "id"],
            ["control.connections.tenant_id", "control.connections.id"],
            name=op.f("fk_oidc_connections_tenant_id_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_oidc_connections")),
        schema="control",
    )
    op.create_table(
        "tenant_keys",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("active_from", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("retires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("private_wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("public", postgresql.JSONB(astext_type=sa.Text()), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("version", sa.Integer(), server_default="1", nullable=False),
        sa.CheckConstraint("purpose IN ('token', 'saml', 'data')", name=op.f("ck_tenant_keys_purpose")),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_tenant_keys_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "id", name=op.f("pk_tenant_keys")),
        schema="control",
    )
    op.create_index(
        "uq_tenant_keys_last",
        "tenant_keys",
        ["tenant_id", "purpose"],
        unique=True,
        schema="control",
        postgresql_where="retires_at IS NULL",
    )
    op.create_table(
        "tenant_migrations",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), server_default="pending", nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "state IN ('pending', 'done', 'quarantined')", name=op.f("ck_tenant_migrations_state")
        ),
        sa.ForeignKeyConstraint(
            ["tenant_id"], ["control.tenants.id"], name=op.f("fk_tenant_migrations_tenant_id")
        ),
        sa.PrimaryKeyConstraint("tenant_id", name=op.f("pk_tenant_migrations")),
        schema="control",
    )
    op.create_index(
        "ix_tenant_migrations_pending",
        "tenant_migrations",
        ["attempts"],
        unique=False,
        schema="control",
        postgresql_where="state = 'pending'",
    )
    op.create_table(
        "usage",
        sa.Column("tenant_id", sa.Uuid(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("month", sa.Date(), nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["tenant_id"], ["control.tenants.id"], name=op.f("fk_usage_tenant_id")),
        sa.PrimaryKeyConstraint("tenant_id", "metric", "month", name=op.f("pk_usage")),
        schema="control",
    )
    op.create_table(
        "vaulted_master_keys",
        sa.Column("vault_key", sa.Text(), nullable=False),
        sa.Column("kek_id", sa.Text(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("vault_key", name=op.f("pk_vaulted_master_keys")),
        sa.UniqueConstraint("kek_id", name=op.f("uq_vaulted_master_keys_kek_id")),
        schema="control",
    )
    op.execute("INSERT INTO control.epoch (id, value) VALUES (1, 0)")
    for name, limits in PLANS.items():
        op.execute(f"INSERT INTO control.plans (name, limits) VALUES ('{name}', '{json.dumps(limits)}')")
    op.execute(DOORBELL)
    op.execute(AUDIT)

CREATE TABLE alembic_version (
    version_num VARCHAR(32) NOT NULL, 
    CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

-- Running upgrade  -> 0001

CREATE TABLE audit_events (
    actor UUID, 
    action TEXT NOT NULL, 
    subject UUID, 
    request_id TEXT, 
    seal BIGINT, 
    detail JSONB NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    CONSTRAINT pk_audit_events PRIMARY KEY (id)
);

CREATE INDEX ix_audit_events_action ON audit_events (action);

CREATE INDEX ix_audit_events_seal ON audit_events (seal, id);

CREATE INDEX ix_audit_events_subject ON audit_events (subject);

CREATE TABLE audit_seals (
    seq BIGINT NOT NULL, 
    sealed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    events INTEGER NOT NULL, 
    digest BYTEA NOT NULL, 
    previous BYTEA NOT NULL, 
    hash BYTEA NOT NULL, 
    CONSTRAINT pk_audit_seals PRIMARY KEY (seq)
);

CREATE TABLE idempotency_keys (
    principal UUID NOT NULL, 
    key_hash TEXT NOT NULL, 
    request_hash TEXT NOT NULL, 
    result_id UUID NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_idempotency_keys PRIMARY KEY (id), 
    CONSTRAINT uq_idempotency_keys_principal_key_hash UNIQUE (principal, key_hash)
);

CREATE TABLE oauth_clients (
    client_id TEXT NOT NULL, 
    name TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    redirect_uris TEXT[] NOT NULL, 
    refresh BOOLEAN NOT NULL, 
    scopes TEXT[] NOT NULL, 
    for_patients BOOLEAN NOT NULL, 
    disabled_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_oauth_clients PRIMARY KEY (id), 
    CONSTRAINT ck_oauth_clients_kind CHECK (kind IN ('app', 'machine')), 
    CONSTRAINT uq_oauth_clients_client_id UNIQUE (client_id)
);

CREATE TABLE client_secrets (
    client_id UUID NOT NULL, 
    secret_hash TEXT NOT NULL, 
    last_used_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_client_secrets PRIMARY KEY (id), 
    CONSTRAINT fk_client_secrets_client_id FOREIGN KEY(client_id) REFERENCES oauth_clients (id), 
    CONSTRAINT uq_client_secrets_secret_hash UNIQUE (secret_hash)
);

CREATE INDEX ix_client_secrets_client_id ON client_secrets (client_id);

CREATE TABLE pools (
    code TEXT NOT NULL, 
    name TEXT NOT NULL, 
    kind TEXT NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_pools PRIMARY KEY (id), 
    CONSTRAINT ck_pools_kind CHECK (kind IN ('shared', 'private')), 
    CONSTRAINT uq_pools_code UNIQUE (code)
);

CREATE TABLE specialties (
    code TEXT NOT NULL, 
    label TEXT NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_specialties PRIMARY KEY (id), 
    CONSTRAINT uq_specialties_code UNIQUE (code)
);

CREATE TABLE used_assertions (
    assertion_id TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_used_assertions PRIMARY KEY (id), 
    CONSTRAINT uq_used_assertions_assertion_id UNIQUE (assertion_id)
);

CREATE INDEX ix_used_assertions_expires_at ON used_assertions (expires_at);

CREATE TABLE saml_names (
    connection_id UUID NOT NULL, 
    name_id TEXT NOT NULL, 
    format TEXT, 
    qualifier TEXT, 
    sp_qualifier TEXT, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_saml_names PRIMARY KEY (id), 
    CONSTRAINT uq_saml_names_connection_id_name_id UNIQUE (connection_id, name_id)
);

CREATE TABLE saml_logouts (
    request_id TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_saml_logouts PRIMARY KEY (id), 
    CONSTRAINT uq_saml_logouts_request_id UNIQUE (request_id)
);

CREATE INDEX ix_saml_logouts_expires_at ON saml_logouts (expires_at);

CREATE TABLE users (
    connection_id UUID, 
    external_id TEXT, 
    user_name TEXT, 
    email TEXT, 
    display_name TEXT NOT NULL, 
    mapped_roles TEXT[] DEFAULT '{}' NOT NULL, 
    granted_roles TEXT[] DEFAULT '{}' NOT NULL, 
    active BOOLEAN DEFAULT 'true' NOT NULL, 
    invited_at TIMESTAMP WITH TIME ZONE, 
    provisioned_at TIMESTAMP WITH TIME ZONE, 
    scim_external_id TEXT, 
    profile JSONB DEFAULT '{}' NOT NULL, 
    last_sign_in_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_users PRIMARY KEY (id), 
    CONSTRAINT ck_users_known_by_a_connection CHECK ((connection_id IS NULL) = (external_id IS NULL)), 
    CONSTRAINT uq_users_connection_id_external_id UNIQUE (connection_id, external_id)
);

CREATE INDEX ix_users_email ON users (lower(email));

CREATE INDEX ix_users_external_id ON users (external_id);

CREATE INDEX ix_users_scim_external_id ON users (scim_external_id);

CREATE UNIQUE INDEX uq_users_user_name ON users (lower(user_name));

CREATE TABLE kept_sign_ins (
    user_id UUID NOT NULL, 
    connection_id UUID NOT NULL, 
    signed_in_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    key_id UUID NOT NULL, 
    sealed BYTEA NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_kept_sign_ins PRIMARY KEY (id), 
    CONSTRAINT fk_kept_sign_ins_user_id FOREIGN KEY(user_id) REFERENCES users (id) ON DELETE CASCADE, 
    CONSTRAINT uq_kept_sign_ins_user_id_connection_id UNIQUE (user_id, connection_id)
);

CREATE TABLE groups (
    display_name TEXT NOT NULL, 
    external_id TEXT, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_groups PRIMARY KEY (id)
);

CREATE UNIQUE INDEX uq_groups_display_name ON groups (lower(display_name));

CREATE INDEX ix_groups_external_id ON groups (external_id);

CREATE TABLE group_members (
    group_id UUID NOT NULL, 
    user_id UUID NOT NULL, 
    CONSTRAINT pk_group_members PRIMARY KEY (group_id, user_id), 
    CONSTRAINT fk_group_members_group_id FOREIGN KEY(group_id) REFERENCES groups (id) ON DELETE CASCADE, 
    CONSTRAINT fk_group_members_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_group_members_user_id ON group_members (user_id);

CREATE TABLE scim_tokens (
    name TEXT NOT NULL, 
    token_hash TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    last_used_at TIMESTAMP WITH TIME ZONE, 
    revoked_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_scim_tokens PRIMARY KEY (id), 
    CONSTRAINT uq_scim_tokens_name UNIQUE (name), 
    CONSTRAINT uq_scim_tokens_token_hash UNIQUE (token_hash)
);

CREATE TABLE login_requests (
    connection_id UUID, 
    client_id UUID, 
    invitation_id UUID, 
    redirect_uri TEXT NOT NULL, 
    code_challenge TEXT NOT NULL, 
    state TEXT, 
    scope TEXT NOT NULL, 
    relay_hash TEXT NOT NULL, 
    browser_hash TEXT NOT NULL, 
    request_id TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    used_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_login_requests PRIMARY KEY (id), 
    CONSTRAINT ck_login_requests_purpose CHECK ((client_id IS NULL) <> (invitation_id IS NULL)), 
    CONSTRAINT fk_login_requests_client_id FOREIGN KEY(client_id) REFERENCES oauth_clients (id), 
    CONSTRAINT uq_login_requests_relay_hash UNIQUE (relay_hash)
);

CREATE INDEX ix_login_requests_expires_at ON login_requests (expires_at);

CREATE TABLE patients (
    user_id UUID, 
    created_by UUID NOT NULL, 
    sex TEXT NOT NULL, 
    birth_year INTEGER NOT NULL, 
    key_id UUID NOT NULL, 
    wrapped_key BYTEA NOT NULL, 
    sealed BYTEA NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_patients PRIMARY KEY (id), 
    CONSTRAINT ck_patients_sex CHECK (sex IN ('female', 'male', 'other', 'unknown')), 
    CONSTRAINT fk_patients_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
    CONSTRAINT uq_patients_user_id UNIQUE (user_id)
);

CREATE TABLE physicians (
    user_id UUID NOT NULL, 
    display_name TEXT NOT NULL, 
    capacity INTEGER NOT NULL, 
    available BOOLEAN NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_physicians PRIMARY KEY (id), 
    CONSTRAINT ck_physicians_capacity CHECK (capacity BETWEEN 0 AND 1000), 
    CONSTRAINT fk_physicians_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
    CONSTRAINT uq_physicians_user_id UNIQUE (user_id)
);

CREATE TABLE sessions (
    user_id UUID NOT NULL, 
    client_id UUID NOT NULL, 
    connection_id UUID, 
    provider_session TEXT, 
    roles TEXT[] NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    revoked_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_sessions PRIMARY KEY (id), 
    CONSTRAINT fk_sessions_client_id FOREIGN KEY(client_id) REFERENCES oauth_clients (id), 
    CONSTRAINT fk_sessions_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_sessions_user_id ON sessions (user_id);

CREATE TABLE authorization_codes (
    code_hash TEXT NOT NULL, 
    session_id UUID NOT NULL, 
    client_id UUID NOT NULL, 
    redirect_uri TEXT NOT NULL, 
    code_challenge TEXT NOT NULL, 
    scope TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    used_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_authorization_codes PRIMARY KEY (id), 
    CONSTRAINT fk_authorization_codes_client_id FOREIGN KEY(client_id) REFERENCES oauth_clients (id), 
    CONSTRAINT fk_authorization_codes_session_id FOREIGN KEY(session_id) REFERENCES sessions (id), 
    CONSTRAINT uq_authorization_codes_code_hash UNIQUE (code_hash)
);

CREATE INDEX ix_authorization_codes_expires_at ON authorization_codes (expires_at);

CREATE TABLE refresh_tokens (
    session_id UUID NOT NULL, 
    line_hash TEXT NOT NULL, 
    newest_hash TEXT NOT NULL, 
    scope TEXT NOT NULL, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_refresh_tokens PRIMARY KEY (id), 
    CONSTRAINT fk_refresh_tokens_session_id FOREIGN KEY(session_id) REFERENCES sessions (id), 
    CONSTRAINT uq_refresh_tokens_line_hash UNIQUE (line_hash), 
    CONSTRAINT uq_refresh_tokens_session_id UNIQUE (session_id)
);

CREATE TABLE cases (
    reference TEXT NOT NULL, 
    patient_id UUID NOT NULL, 
    created_by UUID NOT NULL, 
    status TEXT NOT NULL, 
    locale TEXT NOT NULL, 
    region TEXT NOT NULL, 
    complaint TEXT NOT NULL, 
    history TEXT NOT NULL, 
    body_site TEXT, 
    symptoms TEXT[] NOT NULL, 
    duration_days INTEGER, 
    fitzpatrick INTEGER, 
    submitted_at TIMESTAMP WITH TIME ZONE, 
    emergency BOOLEAN DEFAULT 'false' NOT NULL, 
    triage_level TEXT, 
    triage_source TEXT, 
    urgency INTEGER DEFAULT '3' NOT NULL, 
    due_at TIMESTAMP WITH TIME ZONE, 
    specialty TEXT, 
    pool_id UUID, 
    physician_id UUID, 
    outcome TEXT, 
    findings TEXT, 
    answer TEXT, 
    answered_by UUID, 
    answered_at TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_cases PRIMARY KEY (id), 
    CONSTRAINT ck_cases_status CHECK (status IN ('draft', 'submitted', 'triaged', 'queued', 'assigned', 'in_review', 'needs_info', 'pending_approval', 'answered', 'closed', 'cancelled')), 
    CONSTRAINT ck_cases_triage_level CHECK (triage_level IN ('emergency', 'urgent', 'soon', 'routine')), 
    CONSTRAINT ck_cases_fitzpatrick CHECK (fitzpatrick BETWEEN 1 AND 6), 
    CONSTRAINT fk_cases_answered_by FOREIGN KEY(answered_by) REFERENCES physicians (id), 
    CONSTRAINT fk_cases_patient_id FOREIGN KEY(patient_id) REFERENCES patients (id), 
    CONSTRAINT fk_cases_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id), 
    CONSTRAINT fk_cases_pool_id FOREIGN KEY(pool_id) REFERENCES pools (id), 
    CONSTRAINT fk_cases_specialty FOREIGN KEY(specialty) REFERENCES specialties (code), 
    CONSTRAINT uq_cases_reference UNIQUE (reference)
);

CREATE INDEX ix_cases_created_by ON cases (created_by, id);

CREATE INDEX ix_cases_patient_id ON cases (patient_id);

CREATE INDEX ix_cases_physician_id ON cases (physician_id);

CREATE INDEX ix_cases_queue ON cases (specialty, urgency, id) WHERE status = 'queued';

CREATE INDEX ix_cases_status ON cases (status, id);

CREATE TABLE physician_licences (
    physician_id UUID NOT NULL, 
    region TEXT NOT NULL, 
    number TEXT NOT NULL, 
    valid_from DATE NOT NULL, 
    valid_to DATE NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_physician_licences PRIMARY KEY (id), 
    CONSTRAINT ck_physician_licences_valid CHECK (valid_from <= valid_to), 
    CONSTRAINT fk_physician_licences_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id), 
    CONSTRAINT uq_physician_licences_physician_id_region_number UNIQUE (physician_id, region, number)
);

CREATE TABLE physician_specialties (
    physician_id UUID NOT NULL, 
    specialty TEXT NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_physician_specialties PRIMARY KEY (id), 
    CONSTRAINT fk_physician_specialties_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id), 
    CONSTRAINT fk_physician_specialties_specialty FOREIGN KEY(specialty) REFERENCES specialties (code), 
    CONSTRAINT uq_physician_specialties_physician_id_specialty UNIQUE (physician_id, specialty)
);

CREATE TABLE pool_members (
    pool_id UUID NOT NULL, 
    physician_id UUID NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_pool_members PRIMARY KEY (id), 
    CONSTRAINT fk_pool_members_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id), 
    CONSTRAINT fk_pool_members_pool_id FOREIGN KEY(pool_id) REFERENCES pools (id), 
    CONSTRAINT uq_pool_members_pool_id_physician_id UNIQUE (pool_id, physician_id)
);

CREATE TABLE ai_results (
    case_id UUID, 
    endpoint TEXT NOT NULL, 
    requested_by UUID, 
    input_hash TEXT NOT NULL, 
    image_hashes TEXT[] NOT NULL, 
    model_name TEXT NOT NULL, 
    model_version TEXT NOT NULL, 
    latency_ms INTEGER NOT NULL, 
    response JSONB NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_ai_results PRIMARY KEY (id), 
    CONSTRAINT fk_ai_results_case_id FOREIGN KEY(case_id) REFERENCES cases (id)
);

CREATE INDEX ix_ai_results_case_id ON ai_results (case_id);

CREATE INDEX ix_ai_results_input_hash ON ai_results (input_hash);

CREATE UNIQUE INDEX uq_ai_results_pipeline ON ai_results (case_id, endpoint, input_hash, model_name, model_version) WHERE requested_by IS NULL;

CREATE TABLE ai_pipelines (
    case_id UUID NOT NULL, 
    due_at TIMESTAMP WITH TIME ZONE DEFAULT now(), 
    attempts INTEGER DEFAULT '0' NOT NULL, 
    remaining TEXT[] NOT NULL, 
    outcomes JSONB NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_ai_pipelines PRIMARY KEY (id), 
    CONSTRAINT fk_ai_pipelines_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT uq_ai_pipelines_case_id UNIQUE (case_id)
);

CREATE INDEX ix_ai_pipelines_due_at ON ai_pipelines (due_at) WHERE due_at IS NOT NULL;

CREATE TABLE ai_feedback (
    result_id UUID NOT NULL, 
    physician_id UUID NOT NULL, 
    item TEXT NOT NULL, 
    verdict TEXT NOT NULL, 
    reason TEXT, 
    supersedes UUID, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_ai_feedback PRIMARY KEY (id), 
    CONSTRAINT ck_ai_feedback_verdict CHECK (verdict IN ('accepted', 'overridden')), 
    CONSTRAINT fk_ai_feedback_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id), 
    CONSTRAINT fk_ai_feedback_result_id FOREIGN KEY(result_id) REFERENCES ai_results (id), 
    CONSTRAINT fk_ai_feedback_supersedes FOREIGN KEY(supersedes) REFERENCES ai_feedback (id), 
    CONSTRAINT uq_ai_feedback_supersedes UNIQUE (supersedes)
);

CREATE UNIQUE INDEX uq_ai_feedback_first ON ai_feedback (result_id, physician_id, item) WHERE supersedes IS NULL;

CREATE TABLE assignments (
    case_id UUID NOT NULL, 
    physician_id UUID NOT NULL, 
    kind TEXT NOT NULL, 
    started_at TIMESTAMP WITH TIME ZONE, 
    ended_at TIMESTAMP WITH TIME ZONE, 
    end_reason TEXT, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_assignments PRIMARY KEY (id), 
    CONSTRAINT ck_assignments_kind CHECK (kind IN ('primary', 'second_opinion')), 
    CONSTRAINT fk_assignments_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT fk_assignments_physician_id FOREIGN KEY(physician_id) REFERENCES physicians (id)
);

CREATE INDEX ix_assignments_case_id ON assignments (case_id);

CREATE INDEX ix_assignments_open ON assignments (physician_id) WHERE ended_at IS NULL;

CREATE UNIQUE INDEX uq_assignments_active_primary ON assignments (case_id) WHERE kind = 'primary' AND ended_at IS NULL;

CREATE TABLE case_events (
    case_id UUID NOT NULL, 
    action TEXT NOT NULL, 
    from_status TEXT NOT NULL, 
    to_status TEXT NOT NULL, 
    actor UUID, 
    reason TEXT, 
    detail JSONB NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_case_events PRIMARY KEY (id), 
    CONSTRAINT fk_case_events_case_id FOREIGN KEY(case_id) REFERENCES cases (id)
);

CREATE INDEX ix_case_events_case_id ON case_events (case_id);

CREATE TABLE consents (
    case_id UUID NOT NULL, 
    patient_id UUID NOT NULL, 
    wording TEXT NOT NULL, 
    recorded_by UUID NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_consents PRIMARY KEY (id), 
    CONSTRAINT fk_consents_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT fk_consents_patient_id FOREIGN KEY(patient_id) REFERENCES patients (id)
);

CREATE INDEX ix_consents_case_id ON consents (case_id);

CREATE TABLE images (
    case_id UUID NOT NULL, 
    status TEXT NOT NULL, 
    uploaded_by UUID NOT NULL, 
    media_type TEXT NOT NULL, 
    width INTEGER NOT NULL, 
    height INTEGER NOT NULL, 
    size INTEGER NOT NULL, 
    stored_size INTEGER NOT NULL, 
    sha256 TEXT NOT NULL, 
    upload_sha256 TEXT NOT NULL, 
    display_sha256 TEXT NOT NULL, 
    body_site TEXT, 
    view TEXT NOT NULL, 
    captured_at TIMESTAMP WITH TIME ZONE, 
    hints JSONB NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_images PRIMARY KEY (id), 
    CONSTRAINT ck_images_status CHECK (status IN ('reserved', 'stored')), 
    CONSTRAINT fk_images_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT uq_images_case_id_sha256 UNIQUE (case_id, sha256)
);

CREATE TABLE reports (
    case_id UUID NOT NULL, 
    case_version INTEGER NOT NULL, 
    status TEXT NOT NULL, 
    locale TEXT NOT NULL, 
    created_by UUID NOT NULL, 
    verify_hash TEXT NOT NULL, 
    sha256 TEXT, 
    size INTEGER, 
    signature TEXT, 
    supersedes UUID, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_reports PRIMARY KEY (id), 
    CONSTRAINT ck_reports_status CHECK (status IN ('reserved', 'stored')), 
    CONSTRAINT fk_reports_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT fk_reports_supersedes FOREIGN KEY(supersedes) REFERENCES reports (id), 
    CONSTRAINT uq_reports_verify_hash UNIQUE (verify_hash)
);

CREATE INDEX ix_reports_case_id ON reports (case_id, id);

CREATE TABLE annotations (
    case_id UUID NOT NULL, 
    image_id UUID NOT NULL, 
    author UUID NOT NULL, 
    source TEXT NOT NULL, 
    shape TEXT NOT NULL, 
    geometry JSONB NOT NULL, 
    label TEXT NOT NULL, 
    text TEXT NOT NULL, 
    supersedes UUID, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_annotations PRIMARY KEY (id), 
    CONSTRAINT ck_annotations_shape CHECK (shape IN ('point', 'polyline', 'polygon', 'circle', 'ellipse', 'rectangle')), 
    CONSTRAINT ck_annotations_source CHECK (source IN ('human', 'ai')), 
    CONSTRAINT fk_annotations_case_id FOREIGN KEY(case_id) REFERENCES cases (id), 
    CONSTRAINT fk_annotations_image_id FOREIGN KEY(image_id) REFERENCES images (id), 
    CONSTRAINT fk_annotations_supersedes FOREIGN KEY(supersedes) REFERENCES annotations (id), 
    CONSTRAINT uq_annotations_supersedes UNIQUE (supersedes)
);

CREATE INDEX ix_annotations_case_id ON annotations (case_id);

CREATE TABLE storage_use (
    one BOOLEAN NOT NULL, 
    used BIGINT NOT NULL, 
    CONSTRAINT pk_storage_use PRIMARY KEY (one), 
    CONSTRAINT ck_storage_use_one CHECK (one), 
    CONSTRAINT ck_storage_use_used CHECK (used >= 0)
);

CREATE TABLE invitations (
    user_id UUID NOT NULL, 
    token_hash TEXT NOT NULL, 
    anybody BOOLEAN NOT NULL, 
    invited_by UUID, 
    expires_at TIMESTAMP WITH TIME ZONE NOT NULL, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_invitations PRIMARY KEY (id), 
    CONSTRAINT fk_invitations_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
    CONSTRAINT uq_invitations_token_hash UNIQUE (token_hash), 
    CONSTRAINT uq_invitations_user_id UNIQUE (user_id)
);

CREATE TABLE local_administrators (
    user_id UUID NOT NULL, 
    name TEXT NOT NULL, 
    password_hash TEXT NOT NULL, 
    totp_sealed BYTEA NOT NULL, 
    data_key_id UUID NOT NULL, 
    last_step BIGINT, 
    failures INTEGER DEFAULT '0' NOT NULL, 
    locked_until TIMESTAMP WITH TIME ZONE, 
    id UUID NOT NULL, 
    created_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    updated_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL, 
    version INTEGER DEFAULT '1' NOT NULL, 
    CONSTRAINT pk_local_administrators PRIMARY KEY (id), 
    CONSTRAINT fk_local_administrators_user_id FOREIGN KEY(user_id) REFERENCES users (id), 
    CONSTRAINT uq_local_administrators_name UNIQUE (name), 
    CONSTRAINT uq_local_administrators_user_id UNIQUE (user_id)
);

CREATE TABLE seat_use (
    one BOOLEAN NOT NULL, 
    used INTEGER NOT NULL, 
    CONSTRAINT pk_seat_use PRIMARY KEY (one), 
    CONSTRAINT ck_seat_use_one CHECK (one)
);

INSERT INTO specialties (id, code, label) VALUES ('01900000-0000-7000-8000-000000000001', 'dermatology', 'Dermatology'), ('01900000-0000-7000-8000-000000000002', 'paediatric-dermatology', 'Paediatric dermatology'), ('01900000-0000-7000-8000-000000000003', 'dermato-oncology', 'Dermato-oncology');

INSERT INTO pools (id, code, name, kind) VALUES ('01900000-0000-7000-8000-000000000101', 'shared', 'Shared pool', 'shared');

INSERT INTO storage_use (one, used) VALUES (true, 0);

INSERT INTO seat_use (one, used) VALUES (true, 0);

DO $$
DECLARE tenant text := quote_ident(current_schema());
BEGIN
    EXECUTE 'REVOKE UPDATE, DELETE, TRUNCATE ON audit_events, case_events FROM ' || tenant;
    -- A seal is given by `audit.seal` alone: not even a new row may claim one.
    EXECUTE 'REVOKE INSERT ON audit_events FROM ' || tenant;
    EXECUTE 'GRANT INSERT (id, actor, action, subject, request_id, detail) ON audit_events TO ' || tenant;
    EXECUTE 'REVOKE INSERT, UPDATE, DELETE, TRUNCATE ON audit_seals FROM ' || tenant;
    EXECUTE 'REVOKE ALL ON alembic_version FROM ' || tenant;
END $$;

INSERT INTO alembic_version (version_num) VALUES ('0001') RETURNING alembic_version.version_num;


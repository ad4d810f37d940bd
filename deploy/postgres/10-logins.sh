#!/bin/sh
# Run once by the postgres image, on an empty data directory: the logins of docs/configuration.md.
set -eu

psql -v ON_ERROR_STOP=1 -v admin="$ADMIN_PASSWORD" -v gateway="$GATEWAY_PASSWORD" \
    --username "$POSTGRES_USER" --dbname postgres <<'SQL'
CREATE ROLE dermadetect_admin LOGIN INHERIT CREATEROLE
    NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD :'admin';
CREATE ROLE dermadetect_gateway LOGIN NOINHERIT NOCREATEROLE
    NOSUPERUSER NOCREATEDB NOREPLICATION NOBYPASSRLS PASSWORD :'gateway';
CREATE DATABASE dermadetect OWNER dermadetect_admin;
REVOKE TEMPORARY ON DATABASE dermadetect FROM PUBLIC;
SQL

psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname dermadetect <<'SQL'
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
CREATE SCHEMA IF NOT EXISTS extensions AUTHORIZATION dermadetect_admin;
GRANT USAGE ON SCHEMA extensions TO PUBLIC;
CREATE EXTENSION IF NOT EXISTS pg_trgm SCHEMA extensions;
CREATE EXTENSION IF NOT EXISTS btree_gin SCHEMA extensions;
CREATE EXTENSION IF NOT EXISTS unaccent SCHEMA extensions;
SQL

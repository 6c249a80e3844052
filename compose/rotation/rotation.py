"""Sets up what this demo has beside the stack: the steps of ``setup.py``, each with what a database of the program's takes.

``files`` and ``vault`` as there; ``rotate`` has the program's own key (of the other backend, KV) replaced by a new one.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path
from typing import Final

import psycopg
import setup
from psycopg import sql

OWNER: Final = 999  # postgres, in the image
# Who makes users comes over TLS and has a password, as its users; the administrator is who has the socket.
HBA: Final = "local all all trust\nhostssl all all all scram-sha-256\n"
POLICIES: Final = """\
[[policies]]
project = "prism"
environment = "lan"
scopes = ["shop"]
hosts = ["server1-web"]
kinds = ["service"]
purposes = ["service"]
"""
# Two backends in one file: a user of the database, made for each generation of the file, and what is kept in KV.
SCOPE: Final = """\
[scopes.shop]
project = "prism"
environment = "lan"
purposes = ["service"]
callers = [{{ kind = "service", uid = 10311 }}]
[scopes.shop.env]
DB_USER = "vault://database/creds/shop#username"
DB_PASSWORD = "vault://database/creds/shop#password"
DB_CA = "vault://secret/prism/lan/shop#ca"
SEAL_KEY = "vault://secret/prism/lan/shop#seal_key"
[[scopes.shop.files]]
path = "shop.json"
format = "json"
group = "10320"
mode = "0440"
"""
POLICY: Final = """\
path "database/creds/shop"         { capabilities = ["read"] }
path "auth/token/create"           { capabilities = ["update"] }
path "auth/token/lookup-accessor"  { capabilities = ["update"] }
path "auth/token/renew-accessor"   { capabilities = ["update"] }
path "auth/token/revoke-accessor"  { capabilities = ["update"] }
"""
TABLES: Final = """\
CREATE ROLE shop;
CREATE TABLE orders (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, by_user text NOT NULL DEFAULT session_user, seal bytea NOT NULL
);
GRANT SELECT, INSERT ON orders TO shop;
CREATE ROLE openbao LOGIN CREATEROLE;
GRANT shop TO openbao WITH ADMIN OPTION;
"""
CREATE: Final = "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE shop"
DROP: Final = 'DROP ROLE IF EXISTS "{{name}}"'
URL: Final = "postgresql://{{username}}:{{password}}@database/shop?sslmode=verify-full&sslrootcert=/setup/vault/ca.crt"


def files() -> None:
    """Make the stack's files, the database's certificate, and a scope that the agent is allowed."""
    setup.OWNERS["database"] = OWNER
    setup.files({**setup.SERVERS, "database": ["database"]}, setup.CENTRAL + POLICIES, setup.AGENT + SCOPE)
    setup.put("database", "pg_hba.conf", HBA)
    setup.put("vault", "ca.crt", Path("/setup/keys/ca.crt").read_bytes())


def vault() -> None:
    """Set the server up, and have it make users of the database that live as long as ``LIFE`` says."""
    setup.vault(setup.POLICY + POLICY)
    if "database/" not in setup.ask("GET", "sys/mounts")["data"]:
        setup.ask("POST", "sys/mounts/database", {"type": "database"})
        rotate()
    password = secrets.token_urlsafe(24)
    with psycopg.connect("postgresql://postgres@/shop?host=/run/postgresql") as database:
        if database.execute("SELECT to_regclass('orders')").fetchone() == (None,):
            database.execute(TABLES)
        database.execute(sql.SQL("ALTER ROLE openbao PASSWORD {}").format(password))
    connection = {"plugin_name": "postgresql-database-plugin", "allowed_roles": ["shop"], "connection_url": URL}
    setup.ask("POST", "database/config/shop", {**connection, "username": "openbao", "password": password})
    life = os.environ["LIFE"]
    role = {"db_name": "shop", "creation_statements": [CREATE], "revocation_statements": [DROP]}
    setup.ask("POST", "database/roles/shop", {**role, "default_ttl": life, "max_ttl": life})


def rotate() -> None:
    """Make a new key the newest version of what the program has in KV."""
    secret = {"seal_key": secrets.token_urlsafe(32), "ca": Path("/setup/keys/ca.crt").read_text()}
    setup.ask("POST", "secret/data/prism/lan/shop", {"data": secret})


if __name__ == "__main__":
    {"files": files, "vault": vault, "rotate": rotate}[sys.argv[1]]()

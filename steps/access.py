"""Gives the application's database role its password and its rights, and proves that it can log in.

Leaves to others: the owner's role (it comes with the database) and the tables (`steps.migrate`).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import sql

from steps import database
from steps.context import Context
from steps.errors import StepError

LOCK = "schema"
_LOCK_PATIENCE = 120.0
_TABLES = sql.SQL("SELECT, INSERT, UPDATE, DELETE")
_SEQUENCES = sql.SQL("USAGE, SELECT, UPDATE")
# Mentioning SUPERUSER needs a superuser even to take it away, so only what is wrong is mentioned.
_ATTRIBUTES = {
    "rolsuper": "NOSUPERUSER",
    "rolcreatedb": "NOCREATEDB",
    "rolcreaterole": "NOCREATEROLE",
    "rolreplication": "NOREPLICATION",
    "rolbypassrls": "NOBYPASSRLS",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--owner-url-file", required=True)
    parser.add_argument("--app-user", required=True)
    parser.add_argument("--app-password-file", required=True)


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"role", "created", "tables"}: the role's name, whether it is new, how many tables it may use now."""
    where = database.target(context, arguments.owner_url_file)
    user: str = arguments.app_user
    password = context.secret(arguments.app_password_file, "the application's password")
    if user == where.user:
        raise StepError(
            f"the application's role {user!r} is the owner's: it could change the schema; give it a role of its own"
        )
    with (
        database.connect(context, where) as connection,
        database.exclusive(context, connection, LOCK, patience=_LOCK_PATIENCE),
    ):
        try:
            with connection.transaction():
                created = _role(connection, user, password)
                tables = _grants(connection, where, user)
        except psycopg.errors.InsufficientPrivilege as error:
            raise StepError(
                f"{where} may not set up the role {user!r}: {_line(error)}; give the owner CREATEROLE and let it own "
                "the schema public, or run the step with an owner that has both"
            ) from error
        except psycopg.Error as error:
            raise StepError(f"setting up the role {user!r} in {where} failed: {_line(error)}") from error
    context.log(f"role {user} {'created' if created else 'updated'}, it may read and write {tables} tables")
    # Grants prove nothing about pg_hba.conf or the password; a log-in does.
    database.connect(context, replace(where, user=user, password=password), patience=10.0).close()
    context.log(f"role {user} can log in")
    return {"role": user, "created": created, "tables": tables}


def _role(connection: database.Connection, user: str, password: str) -> bool:
    name = sql.Identifier(user)
    # Hashed on this side: a statement with the password itself would stand in the server's log if it failed.
    verifier = connection.pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
    columns = sql.SQL(", ").join(map(sql.Identifier, _ATTRIBUTES))
    row = connection.execute(sql.SQL("SELECT {} FROM pg_roles WHERE rolname = %s").format(columns), (user,)).fetchone()
    if row is None:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(verifier)))
        return True
    wrong = [sql.SQL(option) for held, option in zip(row, _ATTRIBUTES.values(), strict=True) if held]
    options = sql.SQL(" ").join([sql.SQL("LOGIN"), *wrong])
    connection.execute(sql.SQL("ALTER ROLE {} {} PASSWORD {}").format(name, options, sql.Literal(verifier)))
    return False


def _grants(connection: database.Connection, where: database.Target, user: str) -> int:
    names = {
        "role": sql.Identifier(user),
        "owner": sql.Identifier(where.user),
        "database": sql.Identifier(where.database),
        "tables": _TABLES,
        "sequences": _SEQUENCES,
    }
    for statement in (
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA public TO {role}",
        "GRANT {tables} ON ALL TABLES IN SCHEMA public TO {role}",
        "GRANT {sequences} ON ALL SEQUENCES IN SCHEMA public TO {role}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT {tables} ON TABLES TO {role}",
        "ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT {sequences} ON SEQUENCES TO {role}",
    ):
        connection.execute(sql.SQL(statement).format(**names))
    # Up to PostgreSQL 14 everybody may create tables in public.
    creates = connection.execute("SELECT has_schema_privilege(%s, 'public', 'CREATE')", (user,)).fetchone()
    if creates and creates[0]:
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    if database.revision(connection) is not None:
        # Which migrations have run is for the migrations alone to say.
        connection.execute(
            sql.SQL("REVOKE INSERT, UPDATE, DELETE ON public.alembic_version FROM {role}").format(**names)
        )
    row = connection.execute(
        "SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
    ).fetchone()
    return int(row[0]) if row else 0


def _line(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())

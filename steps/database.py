"""PostgreSQL for the steps: connecting with patience, errors that name everything but the password, advisory locks.

What is asked of the database is each step's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from steps.backoff import delays
from steps.context import Context
from steps.errors import StepError
from steps.vocabulary import application_name

Connection = psycopg.Connection[TupleRow]

PATIENCE = 60.0
_OLDEST = 130000
# Answers that waiting does not change; a moment is left all the same, for a password that is being rotated.
_FINAL = ("password authentication failed", "does not exist", "no pg_hba.conf entry", "permission denied for database")
_PATIENCE_FINAL = 5.0


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a database is and as whom; the password is in no text made of it."""

    host: str
    port: str
    database: str
    user: str
    password: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def __str__(self) -> str:
        return f"database {self.database} on {self.host}:{self.port} as {self.user}"


def target(context: Context, path: str) -> Target:
    """The target in a file with a `postgresql://user:password@host:port/database` URL; its password is hidden from now.

    Raises StepError for anything else.
    """
    text = context.secret(path, "the database's URL")
    try:
        parts = conninfo_to_dict(text)
    except psycopg.Error as error:
        raise StepError(
            f"the database's URL in {path} cannot be read; expected postgresql://user:password@host:port/database"
        ) from error
    password = str(parts.pop("password", None) or "")
    if password:
        context.redactor.learn(password)
    missing = [name for name in ("host", "dbname", "user") if not parts.get(name)]
    if missing or "://" not in text:
        what = f"no {' and no '.join(missing)} in it" if missing else "no URL"
        raise StepError(
            f"the database's URL in {path} has {what}; expected postgresql://user:password@host:port/database"
        )
    return Target(
        host=str(parts.pop("host")),
        port=str(parts.pop("port", None) or 5432),
        database=str(parts.pop("dbname")),
        user=str(parts.pop("user")),
        password=password,
        options=parts,
    )


def connect(context: Context, where: Target, *, patience: float = PATIENCE) -> Connection:
    """An autocommit connection; repeated for `patience` seconds, because a pod may be ready before its network is.

    Raises StepError with the last answer when time is up, or when the server is older than 13.
    """
    started = context.monotonic()
    told = False
    for delay in delays(0.2, 3.0):
        try:
            return _checked(_connect(context, where), where)
        except psycopg.OperationalError as error:
            answer = " ".join(str(error).split())
            waited = context.monotonic() - started
            limit = min(patience, _PATIENCE_FINAL) if any(part in answer for part in _FINAL) else patience
            if waited + delay > limit:
                raise StepError(f"no connection to {where} after {waited:.0f} s: {answer}") from error
            if not told:
                context.log(f"no connection to {where} yet, trying for {limit:.0f} s: {answer}")
                told = True
        context.sleep(delay)
    raise AssertionError("delays never end")


def _checked(connection: Connection, where: Target) -> Connection:
    if connection.info.server_version < _OLDEST:
        version = connection.info.parameter_status("server_version")
        connection.close()
        raise StepError(f"{where} is PostgreSQL {version}; the release needs 13 or newer")
    return connection


def _connect(context: Context, where: Target) -> Connection:
    options = {
        # A dead network shows in a minute, not after the two hours of the system's default.
        "keepalives_idle": 20,
        "keepalives_interval": 10,
        "keepalives_count": 4,
        "connect_timeout": 10,
        **where.options,
    }
    connection = psycopg.connect(
        host=where.host,
        port=where.port,
        dbname=where.database,
        user=where.user,
        password=where.password,
        application_name=application_name(context.step, context.deployment),
        autocommit=True,
        **options,
    )
    # A statement outlives a killed client until it ends, unless the server looks whether somebody is still there.
    if connection.info.server_version >= 140000:
        connection.execute("SET client_connection_check_interval = '1s'")
    connection.execute("SET tcp_keepalives_idle = 20")
    connection.execute("SET tcp_keepalives_interval = 10")
    connection.execute("SET tcp_keepalives_count = 4")
    return connection


def lock_key(name: str) -> int:
    """The advisory lock of a name: a signed 64-bit number, the same in every release."""
    digest = hashlib.sha256(f"energy-forecast/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


_HOLDER = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed') AS name,
       coalesce(to_char(a.backend_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), 'a hidden time') AS since
FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND ((l.classid::bigint << 32) | l.objid::bigint) = %s
"""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The session that holds a lock; `since` is when that session connected."""

    pid: int
    name: str
    since: str

    def __str__(self) -> str:
        return f"pid {self.pid} ({self.name}, connected since {self.since})"


def holder(connection: Connection, name: str) -> Holder | None:
    """Who holds the advisory lock of a name, None when nobody does."""
    row = connection.execute(_HOLDER, (lock_key(name),)).fetchone()
    return None if row is None else Holder(pid=row[0], name=row[1], since=row[2])


@contextmanager
def exclusive(context: Context, connection: Connection, name: str, *, patience: float) -> Iterator[None]:
    """Holds the session's advisory lock of a name; waits up to `patience` seconds and says for whom.

    Raises StepError that names the holder when time is up. The lock ends with its connection, however that ends.
    """
    started = context.monotonic()
    told: int | None = None
    while not _try_lock(connection, name):
        # Asked again and again: a session that waits inside pg_advisory_lock holds a snapshot, for which the
        # holder's CREATE INDEX CONCURRENTLY would wait in turn.
        who = holder(connection, name)
        waited = context.monotonic() - started
        if waited >= patience:
            raise StepError(
                f"the lock {name!r} is held by {who or 'a session that just ended'} after waiting {waited:.0f} s; "
                f"let it finish, or end it with: SELECT pg_terminate_backend({who.pid if who else 'pid'})"
            )
        if who is not None and who.pid != told:
            context.log(f"waiting up to {patience - waited:.0f} s for the lock {name!r}, held by {who}")
            told = who.pid
        context.sleep(0.5)
    try:
        yield
    finally:
        if not connection.closed:
            try:
                connection.execute("SELECT pg_advisory_unlock(%s)", (lock_key(name),))
            except psycopg.Error:
                # Broken connections have given the lock back already.
                connection.close()


def _try_lock(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(%s)", (lock_key(name),)).fetchone()
    return bool(row and row[0])


def revision(connection: Connection) -> str | None:
    """The schema's Alembic revision, None where there is none yet; several heads are joined by commas."""
    row = connection.execute("SELECT to_regclass('public.alembic_version') IS NOT NULL").fetchone()
    if not row or not row[0]:
        return None
    rows = connection.execute("SELECT version_num FROM public.alembic_version ORDER BY 1").fetchall()
    return ",".join(name for (name,) in rows) or None

"""Brings the schema up to a revision, never down: one transaction a migration, no queue of the application behind it.

The migrations are the release's; they run as Alembic runs them, without its env.py. What one does in an
`autocommit_block` (batches, CREATE INDEX CONCURRENTLY) is committed at once and has to bear being run again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import sqlalchemy
from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationStep, RevisionStep
from alembic.script import Script, ScriptDirectory
from alembic.util import CommandError
from psycopg import sql
from sqlalchemy.pool import StaticPool

from steps import database
from steps.access import LOCK
from steps.backoff import delays
from steps.context import Context
from steps.errors import StepError

# Held by the session that migrates: it outlives a killed client for as long as its statement does.
SESSION_LOCK = f"{LOCK}/session"
_RECONNECTS = 3
_ORPHAN_PATIENCE = 60.0
_SAMPLE_SECONDS = 0.1
_LONGEST_STATEMENT = 2000
_CONCURRENTLY = re.compile(
    r"^\s*(?:CREATE\s+(?:UNIQUE\s+)?INDEX|DROP\s+INDEX|REINDEX\b.*?)\s+CONCURRENTLY\b", re.IGNORECASE | re.DOTALL
)
_INVALID_INDEXES = """
SELECT n.nspname, c.relname, t.relname
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_class t ON t.oid = i.indrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND c.relkind = 'i' AND pg_has_role(c.relowner, 'USAGE')
  AND n.nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema')
  AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index p WHERE p.index_relid = i.indexrelid)
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
ORDER BY 1, 2
"""
_BLOCKERS = """
SELECT a.pid, coalesce(nullif(a.application_name, ''), 'unnamed'),
       to_char(a.xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), left(a.query, 200)
FROM pg_stat_activity a WHERE a.pid = ANY (pg_blocking_pids(%s))
"""


class _ConnectionLostError(Exception):
    """The server or the network went away under the migration."""


@dataclass(frozen=True, kw_only=True)
class Locks:
    """How long a statement may wait for a lock, and how often a migration is tried again."""

    timeout_ms: int
    attempts: int

    @property
    def budget_ms(self) -> int:
        """All attempts' waiting together."""
        return self.timeout_ms * self.attempts


@dataclass(frozen=True, kw_only=True)
class Applied:
    """One revision applied: seconds of its last attempt, and how many it took."""

    revision: str
    seconds: float
    attempts: int


@dataclass(kw_only=True)
class Progress:
    """What has happened so far; becomes the result's data however the step ends."""

    target: str
    before: str | None = None
    after: str | None = None
    applied: list[Applied] = field(default_factory=list)
    longest_lock_wait: float = 0.0
    note: str | None = None

    def data(self) -> dict[str, Any]:
        """The result's data; seconds are rounded to milliseconds."""
        return {
            "target": self.target,
            "before": self.before,
            "after": self.after,
            "applied": [asdict(applied) for applied in self.applied],
            "longest_lock_wait_seconds": round(self.longest_lock_wait, 3),
            "note": self.note,
        }


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--database-url-file", required=True)
    parser.add_argument("--migrations", required=True, type=Path, help="folder with versions/*.py")
    parser.add_argument("--target", required=True, help="revision to reach")
    parser.add_argument("--lock-timeout-ms", type=int, default=500)
    parser.add_argument("--lock-attempts", type=int, default=60, help="attempts per migration")
    parser.add_argument("--wait", type=float, default=300.0, help="seconds to wait for another migration")


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"target", "before", "after", "applied": [{"revision", "seconds", "attempts"}],
    "longest_lock_wait_seconds", "note"}; `note` says why nothing was to be done.
    """
    if arguments.lock_timeout_ms < 1 or arguments.lock_attempts < 1:
        raise StepError("--lock-timeout-ms and --lock-attempts must be at least 1: 0 would wait for ever, or never try")
    locks = Locks(timeout_ms=arguments.lock_timeout_ms, attempts=arguments.lock_attempts)
    where = database.target(context, arguments.database_url_file)
    scripts = _scripts(arguments.migrations, arguments.target)
    progress = Progress(target=arguments.target)
    try:
        for attempt in range(1, _RECONNECTS + 1):
            try:
                _migrate(context, where, scripts, locks, progress, arguments.wait)
                break
            except _ConnectionLostError as error:
                if attempt == _RECONNECTS:
                    raise StepError(f"the connection to {where} was lost {attempt} times: {error}") from error
                context.log(f"the connection to {where} was lost, connecting again: {error}")
    except StepError as error:
        error.data = progress.data()
        raise
    except KeyboardInterrupt as error:
        error.data = progress.data()  # type: ignore[attr-defined]
        raise
    return progress.data()


def _scripts(folder: Path, target: str) -> ScriptDirectory:
    if not (folder / "versions").is_dir():
        raise StepError(f"{folder} has no folder versions: the release's image must copy its migrations there")
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    try:
        scripts = ScriptDirectory.from_config(config)
        known = [script.revision for script in scripts.walk_revisions()]
        if target not in known:
            raise StepError(
                f"the release needs schema revision {target}, but its migrations in {folder} only have: "
                f"{', '.join(sorted(known)) or 'none'}"
            )
    except StepError:
        raise
    except Exception as error:
        raise StepError(f"the migrations in {folder} cannot be loaded: {type(error).__name__}: {error}") from error
    return scripts


def _migrate(
    context: Context,
    where: database.Target,
    scripts: ScriptDirectory,
    locks: Locks,
    progress: Progress,
    wait: float,
) -> None:
    with (
        _losing_connection(),
        database.connect(context, where) as guard,
        database.exclusive(context, guard, LOCK, patience=wait),
    ):
        progress.after = database.revision(guard)
        if not progress.applied and progress.before is None:
            progress.before = progress.after
        pending = _pending(scripts, progress)
        if not pending:
            context.log(f"nothing to do: {progress.note}")
            return
        names = ", ".join(script.revision for script in pending)
        context.log(f"{where} is at {progress.after or 'no revision'}; to be applied: {names}")
        with database.connect(context, where) as session, database.connect(context, where) as observer:
            _claim_session(context, guard, session)
            worker = _Worker(context, session, observer, scripts, locks, progress)
            for number, script in enumerate(pending, 1):
                # Without the lock another migration may already be at work.
                guard.execute("SELECT 1")
                worker.apply(script, f"{number}/{len(pending)}")
                progress.after = database.revision(guard)
        context.log(f"{where} is at {progress.after}")


@contextmanager
def _losing_connection() -> Iterator[None]:
    """Turns a lost connection outside the migrations themselves into one to be tried again."""
    try:
        yield
    except psycopg.OperationalError as error:
        raise _ConnectionLostError(_message(error)) from error


def _pending(scripts: ScriptDirectory, progress: Progress) -> list[Script]:
    """What is to be applied, in order; nothing when the database is at the target or beyond, with the reason noted.

    Raises StepError when the database is on another branch of revisions.
    """
    target, at = progress.target, progress.after
    heads = at.split(",") if at else []
    unknown = [head for head in heads if not _known(scripts, head)]
    if unknown:
        progress.note = (
            f"the database is at revision {', '.join(unknown)}, which these migrations do not have: a newer release "
            "made it, and this older one is deployed on its expanded schema"
        )
        return []
    behind = {script.revision for script in scripts.iterate_revisions(tuple(heads), "base")} if heads else set()
    if target in behind:
        progress.note = f"the database is at {at}, the target {target} is " + (
            "reached" if target in heads else "behind it"
        )
        return []
    ahead = list(scripts.iterate_revisions(target, "base"))
    strays = [head for head in heads if head not in {script.revision for script in ahead}]
    if strays:
        raise StepError(
            f"the database is at revision {', '.join(strays)}, which is not on the way to {target}: the release was "
            "made from another branch of migrations; merge the branches with a merge revision"
        )
    return [script for script in reversed(ahead) if script.revision not in behind]


def _known(scripts: ScriptDirectory, revision: str) -> bool:
    try:
        return scripts.get_revision(revision) is not None
    except CommandError:
        return False


def _claim_session(context: Context, guard: database.Connection, session: database.Connection) -> None:
    """Takes the session's lock for the connection that migrates.

    Who still holds it, while the step's lock is ours, is the server's side of a killed attempt: its client is gone, so
    it can only be ended. Raises StepError when it does not end.
    """
    orphan = database.holder(guard, SESSION_LOCK)
    if orphan is not None:
        context.log(f"ending {orphan}, left on the server by a migration that was killed")
        try:
            guard.execute("SELECT pg_terminate_backend(%s)", (orphan.pid,))
        except psycopg.errors.InsufficientPrivilege:
            context.log("it belongs to another role and cannot be ended from here; waiting for it")
    lock = database.exclusive(context, session, SESSION_LOCK, patience=_ORPHAN_PATIENCE)
    # Not released here: it is to last as long as the server works for this connection, whatever becomes of the client.
    lock.__enter__()


class _Worker:
    """Applies migrations on one session and watches from another what they wait for."""

    def __init__(
        self,
        context: Context,
        session: database.Connection,
        observer: database.Connection,
        scripts: ScriptDirectory,
        locks: Locks,
        progress: Progress,
    ) -> None:
        self.context = context
        self.session = session
        self.observer = observer
        self.scripts = scripts
        self.locks = locks
        self.progress = progress
        session.autocommit = False
        engine = sqlalchemy.create_engine("postgresql+psycopg://", creator=lambda: session, poolclass=StaticPool)
        sqlalchemy.event.listen(engine, "before_cursor_execute", self._before_statement)
        self.engine = engine
        self._lock_timeout: int | None = None

    def apply(self, script: Script, position: str) -> None:
        """Applies one migration; retried while it cannot get a lock. Raises StepError with the database's message."""
        title = f"{script.revision} ({script.doc})" if script.doc else script.revision
        self.context.log(f"{position} {title}: applying")
        began = self.context.monotonic()
        for attempt, delay in zip(range(1, self.locks.attempts + 1), delays(0.25, 2.0, 1.5), strict=False):
            started = self.context.monotonic()
            with _Blockers(self.observer, self.session.info.backend_pid) as blockers:
                try:
                    self._drop_invalid_indexes()
                    self._run(script)
                    failure: Exception | None = None
                except Exception as error:
                    failure = error
            self._note_wait(blockers.longest)
            if failure is None:
                seconds = round(self.context.monotonic() - started, 3)
                self.progress.applied.append(Applied(revision=script.revision, seconds=seconds, attempts=attempt))
                self.context.log(f"{position} {title}: applied in {seconds:.1f} s")
                return
            cause = _database_error(failure)
            if self.session.closed:
                raise _ConnectionLostError(_message(cause or failure)) from failure
            if not isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.DeadlockDetected):
                raise StepError(_explain(title, failure, cause)) from failure
            self._note_wait(self.locks.timeout_ms / 1000)
            if attempt == self.locks.attempts:
                waited = self.context.monotonic() - began
                raise StepError(
                    f"migration {title} did not get its lock in {attempt} attempts of {self.locks.timeout_ms} ms over "
                    f"{waited:.0f} s, and was rolled back each time: {_message(cause)}; {blockers}"
                    f"\nstatement: {_statement(failure)}"
                ) from failure
            self.context.log(f"{position} {title}: attempt {attempt} of {self.locks.attempts} got no lock; {blockers}")
            self.context.sleep(delay)

    def _note_wait(self, seconds: float) -> None:
        self.progress.longest_lock_wait = max(self.progress.longest_lock_wait, seconds)

    def _run(self, script: Script) -> None:
        step: MigrationStep = RevisionStep(self.scripts.revision_map, script, True)
        with self.engine.connect() as connection, _listening(self.context):
            self._set_lock_timeout(self.locks.timeout_ms)
            with EnvironmentContext(Config(), self.scripts, fn=lambda *_: [step]) as environment:
                environment.configure(connection=connection, transaction_per_migration=True)
                with environment.begin_transaction():
                    environment.run_migrations()
            connection.commit()

    def _set_lock_timeout(self, milliseconds: int) -> None:
        """Sets it for the session, outside a transaction, whose end would take it back."""
        self.session.rollback()
        self.session.autocommit = True
        try:
            self.session.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(milliseconds)))
        finally:
            self.session.autocommit = False
        self._lock_timeout = milliseconds

    def _before_statement(self, _: Any, cursor: Any, statement: str, *__: Any) -> None:
        # CREATE INDEX CONCURRENTLY waits for every older transaction, but nobody has to wait for it while it does: cut
        # off after half a second it would only leave invalid indexes behind.
        wanted = self.locks.budget_ms if _CONCURRENTLY.match(statement) else self.locks.timeout_ms
        if wanted != self._lock_timeout:
            cursor.connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(wanted)))
            self._lock_timeout = wanted

    def _drop_invalid_indexes(self) -> None:
        """An interrupted CREATE INDEX CONCURRENTLY leaves an index that costs every write and answers no query."""
        self.session.rollback()
        self.session.autocommit = True
        try:
            for schema, index, table in self.session.execute(_INVALID_INDEXES).fetchall():
                self.context.log(
                    f"index {schema}.{index} on {table} is invalid, left by an interrupted CREATE INDEX CONCURRENTLY: "
                    "dropping it"
                )
                self.session.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(self.locks.budget_ms)))
                self.session.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(schema, index)))
        finally:
            if not self.session.closed:
                self.session.autocommit = False


class _Blockers:
    """Samples, while a migration runs, whom it waits for and for how long; errors end it silently: it only informs."""

    def __init__(self, observer: database.Connection, pid: int) -> None:
        self._observer = observer
        self._pid = pid
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="blockers", daemon=True)
        self._last: list[tuple[Any, ...]] = []
        self.longest = 0.0

    def __enter__(self) -> _Blockers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=5)

    def __str__(self) -> str:
        """`held by pid 12 (forecast-api, in a transaction since …: "UPDATE …")`."""
        if not self._last:
            return "who held it is gone"
        return "held by " + ", ".join(
            f"pid {pid} ({name}"
            + (f", in a transaction since {since}" if since else "")
            + (f': "{" ".join(query.split())}"' if query else "")
            + ")"
            for pid, name, since, query in self._last
        )

    def _sample(self) -> None:
        waited = 0.0
        with contextlib.suppress(psycopg.Error):
            while not self._stop.wait(_SAMPLE_SECONDS):
                rows = self._observer.execute(_BLOCKERS, (self._pid,)).fetchall()
                waited = waited + _SAMPLE_SECONDS if rows else 0.0
                self.longest = max(self.longest, waited)
                if rows:
                    self._last = rows


@contextmanager
def _listening(context: Context) -> Iterator[None]:
    """Takes what a migration prints or logs into the step's log."""
    logger = logging.getLogger()
    handler = _Handler(context)
    # Alembic says "Running upgrade …" itself, in other words than the progress lines.
    alembic = logging.getLogger("alembic")
    level, alembic_level = logger.level, alembic.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    alembic.setLevel(logging.WARNING)
    try:
        with contextlib.redirect_stdout(_Printed(context)):
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        alembic.setLevel(alembic_level)


class _Handler(logging.Handler):
    def __init__(self, context: Context) -> None:
        super().__init__()
        self._context = context

    def emit(self, record: logging.LogRecord) -> None:
        self._context.log(f"  {record.getMessage()}")


class _Printed(io.TextIOBase):
    def __init__(self, context: Context) -> None:
        self._context = context

    def write(self, text: str) -> int:
        if text.strip():
            self._context.log(f"  {text.rstrip()}")
        return len(text)


def _database_error(error: BaseException | None) -> psycopg.Error | None:
    """The driver's error inside what was raised."""
    while error is not None:
        if isinstance(error, psycopg.Error):
            return error
        error = getattr(error, "orig", None) or error.__cause__
    return None


def _message(error: BaseException) -> str:
    if isinstance(error, psycopg.Error):
        parts = [error.diag.message_primary or str(error), error.diag.message_detail, error.diag.message_hint]
        return " ".join(" ".join(part.split()) for part in parts if part)
    return f"{type(error).__name__}: {error}"


def _statement(error: BaseException | None) -> str:
    while error is not None:
        statement = getattr(error, "statement", None)
        if isinstance(statement, str):
            return " ".join(statement.split())[:_LONGEST_STATEMENT]
        error = error.__cause__
    return "none; the error came from the migration's own code"


def _explain(title: str, failure: Exception, cause: psycopg.Error | None) -> str:
    message = _message(cause or failure)
    return f"migration {title} failed: {message}\nstatement: {_statement(failure)}"

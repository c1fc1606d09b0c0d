"""The pool of connections to PostgreSQL: bounded in number and in time, opened in the background.

The process starts and lives without a database; every use then ends in `DatabaseUnavailable` within seconds. SQL
belongs to `repository`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from energy_forecast.errors import DatabaseUnavailable
from energy_forecast.logs import log, redact

LOGGER = logging.getLogger(__name__)

Connection = psycopg.AsyncConnection[TupleRow]

_WAIT_SECONDS = 2.0
_PARAMETERS = {
    "connect_timeout": 3,
    "tcp_user_timeout": 6000,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    # The last one lets PostgreSQL drop the session, and its locks, of a node that is gone.
    "options": "-c statement_timeout=5000 -c idle_in_transaction_session_timeout=15000 -c tcp_user_timeout=15000",
}

# Errors that pass by themselves or with a migration; all others are mistakes of this code and must show as such.
_PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
    psycopg.errors.UndefinedTable,
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InsufficientPrivilege,
)


def read_url(path: Path) -> str:
    """The connection string in `path`; `DatabaseUnavailable`, without quoting it, when it is missing or malformed."""
    try:
        url = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        kind = type(error).__name__
        raise DatabaseUnavailable(f"the connection string cannot be read from {path} ({kind})") from error
    try:
        conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        # The driver quotes what it cannot parse, and that may be the password.
        example = "postgresql://user:password@host:port/name"
        raise DatabaseUnavailable(f"{path} holds no connection string; write {example}") from None
    return url


class Database:
    """A pool of at most `size` connections in autocommit mode, shown as `name` in pg_stat_activity."""

    def __init__(self, url_file: Path, size: int, name: str) -> None:
        self._url_file = url_file
        self._last_failure = ""
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            # Read for each new connection, so that a rotated password needs no restart.
            conninfo=self._url,
            kwargs={**_PARAMETERS, "application_name": name, "autocommit": True},
            min_size=1,
            max_size=size,
            max_waiting=size * 16,
            timeout=_WAIT_SECONDS,
            reconnect_timeout=10,
            max_lifetime=1800,
            check=AsyncConnectionPool.check_connection,
            open=False,
            name=name,
        )

    async def open(self) -> None:
        """Start to connect in the background."""
        await self._pool.open(wait=False)

    async def close(self) -> None:
        """Close every connection, waiting up to 5 seconds for those in use."""
        await self._pool.close(timeout=5)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection; `DatabaseUnavailable` when none is to be had within 2 seconds, or when it breaks in use."""
        try:
            async with self._pool.connection() as connection:
                yield connection
        except PoolTimeout:
            reason = self._last_failure or "it does not accept connections, or all of the pool's are in use"
            raise DatabaseUnavailable(f"no connection to the database within {_WAIT_SECONDS:g} s: {reason}") from None
        except TooManyRequests:
            raise DatabaseUnavailable("too many requests wait for a connection to the database") from None
        except PoolClosed:
            raise DatabaseUnavailable("the pool of connections is closed") from None
        except _PASSING as error:
            reason = redact(str(error).strip().splitlines()[0]) if str(error).strip() else type(error).__name__
            log(LOGGER, logging.WARNING, "database_failed", reason=reason, kind=type(error).__name__)
            raise DatabaseUnavailable(f"the database failed: {reason}") from error

    def usage(self) -> tuple[int, int]:
        """(connections given out, connections in the pool)."""
        stats = self._pool.get_stats()
        size = stats.get("pool_size", 0)
        return size - stats.get("pool_available", 0), size

    async def _url(self) -> str:
        try:
            url = await asyncio.to_thread(read_url, self._url_file)
        except DatabaseUnavailable as error:
            self._last_failure = str(error)
            raise
        self._last_failure = ""
        return url

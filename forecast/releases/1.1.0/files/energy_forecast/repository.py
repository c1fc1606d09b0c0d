"""Every SQL statement of the service, and what the schema must have for it.

Creating the schema belongs to the migrations. Statements name their columns, so that a schema which a newer release has
expanded suits them too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from energy_forecast.database import Connection, Database
from energy_forecast.features import PAST
from energy_forecast.forecaster import Forecast
from energy_forecast.messages import HOME
from energy_forecast.slots import SECONDS, moment_of

# Readings of a test client: stored and shown like all others, but no forecast or score is made from them.
SYNTHETIC = "synthetic"

SCORED_POINTS = 336

_NEEDS = (
    "SELECT at, region, demand_mw, source, recorded_at FROM readings LIMIT 0",
    "SELECT start, at, demand_mw, model, made_at FROM forecasts LIMIT 0",
    "SELECT start, at, forecast_mw, actual_mw FROM scores LIMIT 0",
)

# The key is meant by its name, not its columns, so that a later release can widen it under the same name. A test client
# never overwrites what somebody measured.
_STORE = """
INSERT INTO readings AS old (at, region, demand_mw, source)
SELECT * FROM unnest(%s::timestamptz[], %s::text[], %s::float8[], %s::text[]) ORDER BY 1, 2
ON CONFLICT ON CONSTRAINT readings_pkey DO UPDATE
SET demand_mw = EXCLUDED.demand_mw, source = EXCLUDED.source, recorded_at = now()
WHERE old.source = %s OR EXCLUDED.source <> %s
"""

_NEWEST = "SELECT at, demand_mw, source, region FROM readings WHERE region = %s ORDER BY at DESC LIMIT %s"

_RECENT = """
SELECT extract(epoch FROM at)::bigint / %s, demand_mw FROM readings
WHERE region = %s AND source <> %s
  AND at > (SELECT max(at) FROM readings WHERE region = %s AND source <> %s) - make_interval(secs => %s)
"""

_FORECAST = """
INSERT INTO forecasts AS old (start, at, demand_mw, model)
SELECT %s, * FROM unnest(%s::timestamptz[], %s::float8[], %s::text[])
ON CONFLICT ON CONSTRAINT forecasts_pkey DO UPDATE
SET demand_mw = EXCLUDED.demand_mw, model = EXCLUDED.model, made_at = now()
WHERE (old.demand_mw, old.model) IS DISTINCT FROM (EXCLUDED.demand_mw, EXCLUDED.model)
"""

_UNSCORED = """
SELECT f.start, f.at, f.demand_mw, r.demand_mw
FROM forecasts f JOIN readings r ON r.at = f.at AND r.region = %s AND r.source <> %s
LEFT JOIN scores s ON s.start = f.start AND s.at = f.at
WHERE s.at IS NULL OR s.actual_mw <> r.demand_mw OR s.forecast_mw <> f.demand_mw
ORDER BY f.start, f.at LIMIT %s
"""

_SCORE = """
INSERT INTO scores (start, at, forecast_mw, actual_mw)
SELECT * FROM unnest(%s::timestamptz[], %s::timestamptz[], %s::float8[], %s::float8[])
ON CONFLICT ON CONSTRAINT scores_pkey DO UPDATE
SET forecast_mw = EXCLUDED.forecast_mw, actual_mw = EXCLUDED.actual_mw
"""

_SCORES = "SELECT forecast_mw, actual_mw FROM scores ORDER BY at DESC, start DESC LIMIT %s"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """Demand of a region measured in the half hour that starts at `at` (UTC), in megawatts."""

    at: datetime
    demand_mw: float
    source: str
    region: str = HOME


@dataclass(frozen=True, kw_only=True)
class Score:
    """What was forecast at `start` for `at`, beside what was measured, both in megawatts."""

    start: datetime
    at: datetime
    forecast_mw: float
    actual_mw: float


class Repository(Protocol):
    """What the API needs of its storage. Every method raises `DatabaseUnavailable`."""

    async def check(self) -> None:
        """Raise unless the database answers and has the tables, columns and rights that this code uses."""

    async def store(self, readings: Sequence[Reading]) -> None:
        """Insert or replace by time and region; one transaction."""

    async def newest(self, limit: int, region: str) -> list[Reading]:
        """The newest readings of `region`, newest first."""

    async def recent(self, region: str) -> dict[int, float]:
        """Demand (MW) by slot in the eight days up to the newest measured reading of `region`."""

    async def scores(self) -> list[tuple[float, float]]:
        """(forecast, actual) in MW of the newest scored half hours, at most a week's."""

    def usage(self) -> tuple[int, int]:
        """(connections in use, connections open)."""


class PostgresRepository:
    """The repository on PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self) -> None:
        """See `Repository`."""
        async with self._database.connection() as connection:
            for statement in _NEEDS:
                await connection.execute(statement)

    async def store(self, readings: Sequence[Reading]) -> None:
        """See `Repository`."""
        keys = ([r.at for r in readings], [r.region for r in readings])
        columns = (*keys, [r.demand_mw for r in readings], [r.source for r in readings])
        async with self._database.connection() as connection:
            await connection.execute(_STORE, (*columns, SYNTHETIC, SYNTHETIC))

    async def newest(self, limit: int, region: str) -> list[Reading]:
        """See `Repository`."""
        async with self._database.connection() as connection:
            rows = await (await connection.execute(_NEWEST, (region, limit))).fetchall()
        return [Reading(at=at, demand_mw=demand, source=source, region=where) for at, demand, source, where in rows]

    async def recent(self, region: str) -> dict[int, float]:
        """See `Repository`."""
        async with self._database.connection() as connection:
            return await load_recent(connection, region)

    async def scores(self) -> list[tuple[float, float]]:
        """See `Repository`."""
        async with self._database.connection() as connection:
            return await load_scores(connection)

    def usage(self) -> tuple[int, int]:
        """See `Repository`."""
        return self._database.usage()


async def load_recent(connection: Connection, region: str = HOME) -> dict[int, float]:
    """Demand (MW) by slot in the eight days up to the newest measured reading of `region`."""
    arguments = (SECONDS, region, SYNTHETIC, region, SYNTHETIC, PAST * SECONDS)
    return dict(await (await connection.execute(_RECENT, arguments)).fetchall())


async def load_scores(connection: Connection) -> list[tuple[float, float]]:
    """(forecast, actual) in MW of the newest scored half hours."""
    rows = await (await connection.execute(_SCORES, (SCORED_POINTS,))).fetchall()
    return [(forecast, actual) for forecast, actual in rows]


async def save_forecast(connection: Connection, forecast: Forecast, model: str) -> None:
    """Store one forecast; the same again changes no row."""
    moments = [moment_of(forecast.start + step) for step in range(len(forecast.demand))]
    values = ([float(value) for value in forecast.demand], [model] * len(moments))
    await connection.execute(_FORECAST, (moment_of(forecast.start), moments, *values))


async def load_unscored(connection: Connection, limit: int) -> list[Score]:
    """Forecast half hours of the home region measured since, or measured anew, and not scored that way yet."""
    rows = await (await connection.execute(_UNSCORED, (HOME, SYNTHETIC, limit))).fetchall()
    return [Score(start=start, at=at, forecast_mw=forecast, actual_mw=actual) for start, at, forecast, actual in rows]


async def save_scores(connection: Connection, scores: Sequence[Score]) -> None:
    """Store scores, replacing those of the same forecast and half hour."""
    moments = ([s.start for s in scores], [s.at for s in scores])
    await connection.execute(_SCORE, (*moments, [s.forecast_mw for s in scores], [s.actual_mw for s in scores]))

"""The worker's rounds: forecast, score, measure. Only one worker at a time makes them.

The worker that holds a PostgreSQL advisory lock leads until its session ends; during a roll-out the new one stands by
and takes over when the old one goes, however it goes. The process around it belongs to `worker`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from energy_forecast.database import Connection, Database
from energy_forecast.errors import DatabaseUnavailable
from energy_forecast.forecaster import Forecaster
from energy_forecast.logs import log
from energy_forecast.metrics import Metrics
from energy_forecast.model import NAME
from energy_forecast.repository import load_recent, load_scores, load_unscored, save_forecast, save_scores
from energy_forecast.scoring import accuracy
from energy_forecast.slots import DAY

LOGGER = logging.getLogger(__name__)

LOCK = 4_171_926_031
_MOST_SCORED = 10_000
_RETRY_SECONDS = 2.0


class Rounds:
    """Makes a round every `interval` seconds while this process leads."""

    def __init__(self, database: Database, forecaster: Forecaster, metrics: Metrics, interval: float) -> None:
        self._database = database
        self._forecaster = forecaster
        self._metrics = metrics
        self._interval = interval
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End after the round that runs."""
        self._stop.set()

    async def run(self) -> None:
        """Lead whenever possible, until `stop`. Only mistakes of this code end it with an exception."""
        while not self._stop.is_set():
            try:
                async with self._database.connection() as connection:
                    await self._lead(connection)
            except DatabaseUnavailable as error:
                self._metrics.rounds.labels("failed").inc()
                log(LOGGER, logging.WARNING, "round_failed", reason=str(error))
            await self._pause(_RETRY_SECONDS)

    async def _lead(self, connection: Connection) -> None:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))).fetchone()
        if row is None or not row[0]:
            self._metrics.rounds.labels("standby").inc()
            return
        log(LOGGER, logging.INFO, "leading")
        try:
            while not self._stop.is_set():
                await self.round(connection)
                await self._pause(self._interval)
        finally:
            # The session goes back to the pool: it must not take the lock along. A broken session has lost it anyway.
            with contextlib.suppress(Exception):
                await connection.execute("SELECT pg_advisory_unlock(%s)", (LOCK,))

    async def round(self, connection: Connection) -> None:
        """One round in one transaction."""
        async with connection.transaction():
            made = self._forecaster.forecast(await load_recent(connection), DAY)
            await save_forecast(connection, made, NAME)
            scores = await load_unscored(connection, _MOST_SCORED)
            if scores:
                await save_scores(connection, scores)
            pairs = await load_scores(connection)
        self._metrics.forecasts.labels(made.basis.value).inc()
        if pairs:
            self._metrics.score(accuracy(pairs), len(pairs))
        self._metrics.rounds.labels("done").inc()
        log(LOGGER, logging.INFO, "round", basis=made.basis.value, scored=len(scores))

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

"""The worker process: `python -m energy_forecast.worker`. Makes rounds, and serves the operations' routes."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from energy_forecast.api import bare_app
from energy_forecast.build import load_build
from energy_forecast.database import Database
from energy_forecast.drain import Drain, serve
from energy_forecast.errors import ForecastError
from energy_forecast.flags import FlagFile
from energy_forecast.forecaster import Forecaster
from energy_forecast.history import load_history
from energy_forecast.logs import log, set_up
from energy_forecast.metrics import Metrics
from energy_forecast.repository import PostgresRepository
from energy_forecast.rounds import Rounds
from energy_forecast.service import Service
from energy_forecast.settings import Settings

LOGGER = logging.getLogger(__name__)


class Work:
    """The rounds as a task of the server's event loop."""

    def __init__(self, rounds: Rounds) -> None:
        self._rounds = rounds
        self._task: asyncio.Task[None] | None = None

    def alive(self) -> bool:
        """False once the rounds have ended with an error."""
        return self._task is None or not self._task.done()

    def start(self) -> None:
        """Begin to make rounds."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def finish(self) -> None:
        """Let the round that runs end."""
        self._rounds.stop()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            await self._rounds.run()
        except Exception:
            log(LOGGER, logging.ERROR, "rounds_ended", trace=True)
            raise


def run(settings: Settings) -> None:
    """Serve until SIGTERM. Raises `ForecastError` for what keeps the worker from starting."""
    build = load_build(settings.release_file)
    flags = FlagFile(settings.flags_file)
    forecaster = Forecaster.fitted(load_history(settings.demand_file))
    database = Database(settings.database_url_file, settings.pool_size, "energy-forecast-worker")
    metrics = Metrics(build, forecaster.tested.accuracy)
    work = Work(Rounds(database, forecaster, metrics, settings.forecast_interval))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await database.open()
        work.start()
        log(LOGGER, logging.INFO, "started", version=build.version, commit=build.commit, port=settings.worker_port)
        yield
        await work.finish()
        await database.close()
        log(LOGGER, logging.INFO, "stopped")

    service = Service(
        build=build,
        drain=Drain(),
        flags=flags,
        forecaster=forecaster,
        metrics=metrics,
        repository=PostgresRepository(database),
        alive=work.alive,
    )
    # Nobody sends the worker requests that could be lost, so it need not stay for them.
    serve(bare_app("Energy Forecast Worker", service, lifespan), settings.worker_port, service.drain, 0)


def main() -> None:
    """The process."""
    set_up()
    try:
        run(Settings.load(os.environ))
    except ForecastError as error:
        log(LOGGER, logging.ERROR, "cannot_start", reason=str(error))
        sys.exit(1)


if __name__ == "__main__":
    main()

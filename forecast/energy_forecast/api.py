"""The API process: `python -m energy_forecast.api`. Puts the parts together and turns errors into responses."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from energy_forecast import forecasts, operations, readings
from energy_forecast.build import load_build
from energy_forecast.database import Database
from energy_forecast.drain import Drain, serve
from energy_forecast.errors import ForecastError, Unavailable
from energy_forecast.flags import FlagFile
from energy_forecast.forecaster import Forecaster
from energy_forecast.history import load_history
from energy_forecast.logs import log, set_up
from energy_forecast.metrics import Metrics
from energy_forecast.observe import Observe
from energy_forecast.repository import PostgresRepository
from energy_forecast.service import Service
from energy_forecast.settings import Settings

LOGGER = logging.getLogger(__name__)

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def create_app(service: Service, lifespan: Lifespan | None = None) -> FastAPI:
    """The API over `service`."""
    app = bare_app("Energy Forecast Platform", service, lifespan)
    app.include_router(readings.router)
    app.include_router(forecasts.router)
    return app


def bare_app(title: str, service: Service, lifespan: Lifespan | None) -> FastAPI:
    """An application with what every process of the platform has: the operations' routes, errors, logs and metrics."""
    app = FastAPI(title=title, version=service.build.version, lifespan=lifespan, redoc_url=None)
    app.state.service = service
    app.include_router(operations.router)
    app.add_exception_handler(Unavailable, _unavailable)
    app.add_exception_handler(RequestValidationError, _refused)
    app.add_middleware(Observe, metrics=service.metrics, drain=service.drain)
    return app


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 503, headers={"Retry-After": "2"})


async def _refused(request: Request, error: Exception) -> JSONResponse:
    # The input is not repeated: it may be huge, or a NaN, which JSON cannot say.
    detail: list[dict[str, Any]] = [
        {key: each[key] for key in ("loc", "msg", "type")} for each in cast(RequestValidationError, error).errors()
    ]
    return JSONResponse({"detail": detail}, 422)


def run(settings: Settings) -> None:
    """Serve until SIGTERM. Raises `ForecastError` for what keeps the API from starting."""
    build = load_build(settings.release_file)
    flags = FlagFile(settings.flags_file)
    forecaster = Forecaster.fitted(load_history(settings.demand_file))
    database = Database(settings.database_url_file, settings.pool_size, "energy-forecast-api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await database.open()
        log(LOGGER, logging.INFO, "started", version=build.version, commit=build.commit, port=settings.api_port)
        yield
        await database.close()
        log(LOGGER, logging.INFO, "stopped")

    service = Service(
        build=build,
        drain=Drain(),
        flags=flags,
        forecaster=forecaster,
        metrics=Metrics(build, forecaster.tested.accuracy),
        repository=PostgresRepository(database),
    )
    serve(create_app(service, lifespan), settings.api_port, service.drain, settings.drain_seconds)


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

"""The routes for those who run a process, the API or the worker: health, readiness, version, metrics."""

from __future__ import annotations

import asyncio
import logging

from fastapi import APIRouter, Response

from energy_forecast.errors import DatabaseUnavailable, Unavailable
from energy_forecast.logs import log
from energy_forecast.messages import Alive, Problem, Ready, SchemaVersion, Version
from energy_forecast.metrics import CONTENT_TYPE
from energy_forecast.scoring import accuracy
from energy_forecast.service import Service, TheService

LOGGER = logging.getLogger(__name__)

_SCRAPE_SECONDS = 1.0

router = APIRouter(tags=["operations"])


@router.get("/healthz", responses={503: {"model": Problem, "description": "The process cannot recover by itself"}})
async def healthz(service: TheService) -> Alive:
    """The process is alive; says nothing about what it depends on."""
    if not service.alive():
        raise Unavailable("the process's work has ended with an error; its log has the reason")
    return Alive()


@router.get("/readyz", responses={503: {"model": Problem, "description": "Not ready, with the reason"}})
async def readyz(service: TheService) -> Ready:
    """The database answers and has what this release needs.

    Never compares schema revisions: an image must start on a schema that a newer release has expanded.
    """
    if service.drain.active:
        raise Unavailable("draining: this process was told to stop")
    await service.repository.check()
    return Ready()


@router.get("/version")
async def version(service: TheService) -> Version:
    """Which release answers."""
    build = service.build
    return Version(version=build.version, commit=build.commit, schema_=SchemaVersion(compatible=list(build.compatible)))


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus' format"}},
)
async def metrics(service: TheService) -> Response:
    """The process's metrics."""
    return Response(await scrape(service), media_type=CONTENT_TYPE)


async def scrape(service: Service) -> bytes:
    """Prometheus' text, with the live accuracy and the pool's state as of now."""
    try:
        async with asyncio.timeout(_SCRAPE_SECONDS):
            pairs = await service.repository.scores()
        if pairs:
            service.metrics.score(accuracy(pairs), len(pairs))
    except (DatabaseUnavailable, TimeoutError) as error:
        # The other numbers are wanted most while the database is down.
        log(LOGGER, logging.WARNING, "scrape_without_database", reason=str(error) or "timeout")
    in_use, size = service.repository.usage()
    service.metrics.pool_in_use.set(in_use)
    service.metrics.pool_size.set(size)
    service.metrics.draining.set(1 if service.drain.active else 0)
    return service.metrics.render()

"""The routes that take and show readings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from energy_forecast.flags import Flag
from energy_forecast.messages import (
    HOME,
    Problem,
    ReadingBatch,
    ReadingMessage,
    Readings,
    Region,
    Stored,
    render_moment,
)
from energy_forecast.repository import Reading
from energy_forecast.service import Service, TheService

# A clock may run ahead; a reading further ahead would move the start of every forecast there.
AHEAD = timedelta(hours=1)

router = APIRouter(prefix="/v1/readings", tags=["readings"])


@router.post(
    "",
    status_code=201,
    responses={
        400: {"model": Problem, "description": "The body cannot be parsed"},
        413: {"model": Problem, "description": "The body is too large"},
        503: {"model": Problem, "description": "The database cannot be used now"},
    },
)
async def store(batch: ReadingBatch, service: TheService) -> Stored:
    """Store readings; the same half hour of a region again replaces the reading.

    A synthetic reading never replaces a measured one.
    """
    latest = service.clock() + AHEAD
    for index, reading in enumerate(batch.readings):
        if reading.at > latest:
            problem = {
                "loc": ("body", "readings", index, "at"),
                "msg": f"lies in the future; nothing after {render_moment(latest)} is taken",
                "type": "value_error",
            }
            raise RequestValidationError([problem])
        check_region(service, reading.region, ("body", "readings", index, "region"))
    rows = {
        (each.at, each.region): Reading(at=each.at, demand_mw=each.demand_mw, source=each.source, region=each.region)
        for each in batch.readings
    }
    await service.repository.store(list(rows.values()))
    return Stored(count=len(rows))


@router.get("", responses={503: {"model": Problem, "description": "The database cannot be used now"}})
async def show(
    service: TheService, limit: Annotated[int, Query(ge=1, le=1000)] = 48, region: Region = HOME
) -> Readings:
    """The newest readings of a region, newest first."""
    stored = await service.repository.newest(limit, region)
    return Readings(
        readings=[ReadingMessage(at=r.at, demand_mw=r.demand_mw, source=r.source, region=r.region) for r in stored]
    )


def check_region(service: Service, region: str, where: tuple[str | int, ...]) -> None:
    """Raise `RequestValidationError` about the field `where` for a region that is not open."""
    # A release before this one cannot tell regions apart: the flag goes on once nobody wants to go back to it.
    if region != HOME and not service.flags.enabled(Flag.REGIONS):
        message = f"only {HOME} is open while the flag {Flag.REGIONS} is off"
        raise RequestValidationError([{"loc": where, "msg": message, "type": "value_error"}])

"""The routes that take and show readings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.exceptions import RequestValidationError

from energy_forecast.messages import Problem, ReadingBatch, ReadingMessage, Readings, Stored, render_moment
from energy_forecast.repository import Reading
from energy_forecast.service import TheService

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
    """Store readings; the same half hour again replaces the reading (a synthetic one never replaces a measured one)."""
    latest = service.clock() + AHEAD
    for index, reading in enumerate(batch.readings):
        if reading.at > latest:
            problem = {
                "loc": ("body", "readings", index, "at"),
                "msg": f"lies in the future; nothing after {render_moment(latest)} is taken",
                "type": "value_error",
            }
            raise RequestValidationError([problem])
    rows = {each.at: Reading(at=each.at, demand_mw=each.demand_mw, source=each.source) for each in batch.readings}
    await service.repository.store(list(rows.values()))
    return Stored(count=len(rows))


@router.get("", responses={503: {"model": Problem, "description": "The database cannot be used now"}})
async def show(service: TheService, limit: Annotated[int, Query(ge=1, le=1000)] = 48) -> Readings:
    """The newest readings, newest first."""
    stored = await service.repository.newest(limit)
    return Readings(readings=[ReadingMessage(at=r.at, demand_mw=r.demand_mw, source=r.source) for r in stored])

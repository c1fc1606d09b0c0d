"""The route that forecasts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query

from energy_forecast.flags import Flag
from energy_forecast.forecaster import Forecast
from energy_forecast.messages import ForecastMessage, Point, Problem
from energy_forecast.model import NAME
from energy_forecast.service import TheService
from energy_forecast.slots import moment_of

MOST_HOURS = 168

Unit = Literal["MW", "GW"]
_MEGAWATTS: dict[Unit, float] = {"MW": 1.0, "GW": 1000.0}
_DIGITS: dict[Unit, int] = {"MW": 1, "GW": 4}

router = APIRouter(prefix="/v1/forecast", tags=["forecast"])


@router.get("", responses={503: {"model": Problem, "description": "The database cannot be used now"}})
async def forecast(
    service: TheService, horizon_hours: Annotated[int, Query(ge=1, le=MOST_HOURS)] = 24
) -> ForecastMessage:
    """Half-hourly demand from the newest reading on; the same readings give the same forecast.

    With too few readings in the last eight days, the same weekdays of the packaged history stand in for them.
    """
    made = service.forecaster.forecast(await service.repository.recent(), 2 * horizon_hours)
    service.metrics.forecasts.labels(made.basis.value).inc()
    return message(made, horizon_hours, "GW" if service.flags.enabled(Flag.UNIT_GW) else "MW")


def message(made: Forecast, horizon_hours: int, unit: Unit) -> ForecastMessage:
    """The forecast as the API gives it, in `unit`."""
    return ForecastMessage(
        start=moment_of(made.start),
        horizon_hours=horizon_hours,
        unit=unit,
        model=NAME,
        basis=made.basis,
        points=[
            Point(at=moment_of(made.start + step), demand=round(float(demand) / _MEGAWATTS[unit], _DIGITS[unit]))
            for step, demand in enumerate(made.demand)
        ],
    )

"""The route that forecasts."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, HTTPException, Query

from energy_forecast.features import PAST
from energy_forecast.flags import Flag
from energy_forecast.forecaster import MOST_MISSING, Basis, Forecast
from energy_forecast.messages import HOME, ForecastMessage, Point, Problem, Region
from energy_forecast.model import NAME
from energy_forecast.readings import check_region
from energy_forecast.service import TheService
from energy_forecast.slots import moment_of

MOST_HOURS = 168

Unit = Literal["MW", "GW"]
_MEGAWATTS: dict[Unit, float] = {"MW": 1.0, "GW": 1000.0}
_DIGITS: dict[Unit, int] = {"MW": 1, "GW": 4}

router = APIRouter(prefix="/v1/forecast", tags=["forecast"])


@router.get(
    "",
    response_model_exclude_none=True,
    responses={
        409: {"model": Problem, "description": "Too few readings of this region"},
        503: {"model": Problem, "description": "The database cannot be used now"},
    },
)
async def forecast(
    service: TheService,
    horizon_hours: Annotated[int, Query(ge=1, le=MOST_HOURS)] = 24,
    region: Region = HOME,
) -> ForecastMessage:
    """Half-hourly demand of a region from its newest reading on; the same readings give the same forecast.

    With too few readings in the last eight days, the same weekdays of the packaged history stand in for them; for other
    regions than its own there is no such stand-in.
    """
    check_region(service, region, ("query", "region"))
    made = service.forecaster.forecast(await service.repository.recent(region), 2 * horizon_hours)
    if region != HOME and made.basis is Basis.HISTORY:
        raise HTTPException(409, f"region {region} needs {PAST - MOST_MISSING} readings in its last eight days")
    service.metrics.forecasts.labels(made.basis.value).inc()
    unit: Unit = "GW" if service.flags.enabled(Flag.UNIT_GW) else "MW"
    return message(made, horizon_hours, region, unit, service.flags.enabled(Flag.FORECAST_INTERVAL))


def message(made: Forecast, horizon_hours: int, region: str, unit: Unit, interval: bool) -> ForecastMessage:
    """The forecast as the API gives it, in `unit`, with or without its interval."""

    def rounded(megawatts: float) -> float:
        return round(float(megawatts) / _MEGAWATTS[unit], _DIGITS[unit])

    return ForecastMessage(
        region=region,
        start=moment_of(made.start),
        horizon_hours=horizon_hours,
        unit=unit,
        model=NAME,
        basis=made.basis,
        points=[
            Point(
                at=moment_of(made.start + step),
                demand=rounded(made.demand[step]),
                low=rounded(made.low[step]) if interval else None,
                high=rounded(made.high[step]) if interval else None,
            )
            for step in range(len(made.demand))
        ],
    )

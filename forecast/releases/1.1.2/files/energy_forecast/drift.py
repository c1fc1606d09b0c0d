"""Watches the model for drift: one in five forecasts is compared with the usual level of what was measured.

A departure is only logged; scoring forecasts against readings is the worker's.
"""

from __future__ import annotations

import itertools
import logging

from energy_forecast.forecaster import Forecast
from energy_forecast.logs import log
from energy_forecast.repository import Repository

LOGGER = logging.getLogger(__name__)

# The level costs a second query, so not every forecast is checked.
CHECKED = 5


class DriftWatch:
    """Counts the forecasts of one process."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    async def see(self, made: Forecast, region: str, repository: Repository) -> float | None:
        """The forecast's departure from the usual level as a fraction of it; None when this one is not checked."""
        if next(self._count) % CHECKED:
            return None
        usual = await repository.usual_level(region)
        if usual is None:
            return None
        mean = float(made.demand.mean())
        departure = (mean - usual) / usual
        log(
            LOGGER,
            logging.INFO,
            "forecast_checked",
            region=region,
            mean_mw=round(mean, 1),
            departure=round(departure, 4),
        )
        return departure

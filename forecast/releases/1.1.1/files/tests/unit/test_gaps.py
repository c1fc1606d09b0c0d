"""Gaps in the readings of a region that is smaller than England and Wales."""

from __future__ import annotations

import pytest

from energy_forecast.features import PAST
from energy_forecast.forecaster import MOST_MISSING, Basis, Forecaster
from energy_forecast.history import History
from energy_forecast.model import mape
from energy_forecast.slots import DAY, WEEK


@pytest.mark.parametrize("size", [0.01, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("first_missing", [0, 200, PAST - 1 - MOST_MISSING])
def test_a_gap_is_filled_at_the_regions_own_level(
    forecaster: Forecaster, history: History, size: float, first_missing: int
) -> None:
    start = history.end + 1300 * WEEK - PAST
    readings = {start + i: size * float(value) for i, value in enumerate(history.demand[-PAST:])}
    whole = forecaster.forecast(readings, DAY)
    for slot in range(start + first_missing, start + first_missing + MOST_MISSING):
        del readings[slot]
    filled = forecaster.forecast(readings, DAY)
    assert (filled.start, filled.basis) == (whole.start, Basis.READINGS)
    assert mape(filled.demand, whole.demand) < 0.02

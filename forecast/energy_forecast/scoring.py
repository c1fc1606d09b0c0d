"""How well forecasts came true. Which forecasts and readings belong together is found by `repository`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from energy_forecast.model import mape


def accuracy(pairs: Sequence[tuple[float, float]]) -> float:
    """1 - MAPE of (forecast, actual) pairs in one unit, actual positive; raises ValueError for none."""
    if not pairs:
        raise ValueError("there is no accuracy of no forecasts")
    forecast, actual = np.array(pairs, dtype=np.float64).T
    return 1.0 - mape(forecast, actual)

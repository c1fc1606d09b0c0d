"""How far off a forecast may be: the span that held nine of ten of the model's errors on weeks it had not seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from energy_forecast.features import PAST
from energy_forecast.history import History
from energy_forecast.model import HELD_OUT_WEEKS, fit
from energy_forecast.slots import WEEK

SHARE = 0.9
_STRIDE = 6


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Factors on a forecast, shape (336,): `low[i]` and `high[i]` for the half hour i steps ahead."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def measure(history: History, weeks: int = HELD_OUT_WEEKS) -> Interval:
    """Fit on all but the last `weeks`, forecast a week from every third hour of them, take the errors' quantiles."""
    split = len(history.demand) - weeks * WEEK
    model = fit(History(first=history.first, demand=history.demand[:split]))
    ratios = [
        history.demand[start : start + WEEK]
        / model.predict(history.demand[start - PAST : start], history.first + start, WEEK)
        for start in range(split, len(history.demand) - WEEK + 1, _STRIDE)
    ]
    low, high = np.quantile(np.array(ratios), ((1 - SHARE) / 2, (1 + SHARE) / 2), axis=0)
    # The forecast itself always lies within: a model that was biased in those weeks is no reason to exclude it.
    return Interval(low=np.minimum(low, 1.0), high=np.maximum(high, 1.0))

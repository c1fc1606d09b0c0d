"""What the model looks at: one day's half hours described by the eight days before it, free of scale.

Everything is divided by the level of the week before, so a model fitted on one country also suits a region a tenth its
size. Fitting belongs to `model`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from energy_forecast.slots import DAY, WEEK, slot_of_week

PAST = WEEK + DAY
NAMES = (
    "constant",
    "yesterday",
    "last week",
    "the day before that",
    "change of the day's level",
    "change of the last two hours",
    "the same, fading",
    "weekend",
)

_SHORT = 4
_FADING = np.exp(-np.arange(DAY) / 12)
_WEEKEND = 5 * DAY


def level(past: NDArray[np.float64]) -> float:
    """Mean of the last week of `past`: the scale that predictions are made in."""
    return float(past[-WEEK:].mean())


def design(past: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Features of the day that starts at slot `first`, shape (48, 8).

    `past` holds the 384 values before `first`; its unit cancels out.
    """
    scaled = past / level(past)
    day_change = scaled[-DAY:].mean() - scaled[:DAY].mean()
    short_change = scaled[-_SHORT:].mean() - scaled[DAY - _SHORT : DAY].mean()
    weekend = [slot_of_week(first + step) >= _WEEKEND for step in range(DAY)]
    return np.column_stack(
        (
            np.ones(DAY),
            scaled[-DAY:],
            scaled[DAY : 2 * DAY],
            scaled[:DAY],
            np.full(DAY, day_change),
            np.full(DAY, short_change),
            short_change * _FADING,
            np.array(weekend, dtype=np.float64),
        )
    )

"""How far off a forecast may be: the span that held nine of ten of the model's errors on weeks it had not seen.

One factor a day ahead, the same both ways: errors of four weeks are too few to tell half hours or directions apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from energy_forecast.features import PAST
from energy_forecast.history import History
from energy_forecast.model import HELD_OUT_WEEKS, fit
from energy_forecast.slots import DAY, WEEK

SHARE = 0.9
_STRIDE = 6


def measure(history: History, weeks: int = HELD_OUT_WEEKS) -> NDArray[np.float64]:
    """Factors above one, shape (336,): outcomes i half hours ahead lie within forecast / factor[i] and * factor[i].

    Fits on all but the last `weeks` and forecasts a week from every third hour of them.
    """
    split = len(history.demand) - weeks * WEEK
    model = fit(History(first=history.first, demand=history.demand[:split]))
    errors = [
        np.log(
            history.demand[start : start + WEEK]
            / model.predict(history.demand[start - PAST : start], history.first + start, WEEK)
        )
        for start in range(split, len(history.demand) - WEEK + 1, _STRIDE)
    ]
    by_day = np.abs(np.array(errors)).reshape(len(errors), WEEK // DAY, DAY)
    return np.repeat(np.exp(np.quantile(by_day, SHARE, axis=(0, 2))), DAY)

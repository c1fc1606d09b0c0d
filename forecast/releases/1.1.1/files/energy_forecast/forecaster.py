"""A forecast from what is stored: which past the model sees, and what stands in where readings are missing.

Deterministic: the same readings give the same forecast, whatever the clock says. A forecast starts where the readings
end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from energy_forecast.features import PAST
from energy_forecast.history import History
from energy_forecast.interval import measure
from energy_forecast.model import Backtest, Model, backtest, fit
from energy_forecast.slots import slot_of_week

# With more than a twentieth of the eight days missing, the gaps would shape the forecast more than the readings do.
MOST_MISSING = PAST // 20


class Basis(StrEnum):
    """What a forecast was made from."""

    READINGS = "readings"
    HISTORY = "history"


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """`demand[i]` (MW) is expected in slot `start + i`, within `low[i]` and `high[i]` nine out of ten times."""

    start: int
    demand: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    basis: Basis


@dataclass(frozen=True, kw_only=True)
class Forecaster:
    """A fitted model with the history that stands in for missing readings."""

    history: History
    model: Model
    tested: Backtest
    typical_week: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fitted(cls, history: History) -> Forecaster:
        """Fit on all of `history`, after testing on its held-out weeks; takes well under a second."""
        return cls(
            history=history,
            model=fit(history),
            tested=backtest(history),
            typical_week=history.typical_week(),
            spread=measure(history),
        )

    def forecast(self, readings: Mapping[int, float], steps: int) -> Forecast:
        """Forecast `steps` half hours, 336 at most, from the newest of `readings` (MW by slot) on.

        Without any reading the forecast starts at the history's end.
        """
        if not readings:
            past = self.history.before(self.history.end, PAST)
            return self._ahead(past, self.history.end, steps, Basis.HISTORY)
        start = max(readings) + 1
        slots = range(start - PAST, start)
        missing = [slot for slot in slots if slot not in readings]
        if len(missing) > MOST_MISSING:
            return self._ahead(self.history.before(start, PAST), start, steps, Basis.HISTORY)
        typical = {slot: float(self.typical_week[slot_of_week(slot)]) for slot in slots}
        known = [slot for slot in slots if slot in readings]
        # The typical week is of England and Wales; only its shape holds for a region of another size.
        size = sum(readings[slot] for slot in known) / sum(typical[slot] for slot in known)
        past = np.array([readings.get(slot, size * typical[slot]) for slot in slots])
        return self._ahead(past, start, steps, Basis.READINGS)

    def _ahead(self, past: NDArray[np.float64], start: int, steps: int, basis: Basis) -> Forecast:
        # A linear model can leave the range of its training data; demand cannot fall to nothing.
        demand = np.maximum(self.model.predict(past, start, steps), 0.01 * past.min())
        spread = self.spread[:steps]
        return Forecast(start=start, demand=demand, low=demand / spread, high=demand * spread, basis=basis)

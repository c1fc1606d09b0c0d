"""The packaged demand history: twelve weeks of half-hourly demand of England and Wales, the model's training data.

Published with J. W. Taylor, "Short-term electricity demand forecasting using double seasonal exponential smoothing",
Journal of the Operational Research Society 54 (2003), 799-805. Fetching it belongs to the project around this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from energy_forecast.errors import HistoryError
from energy_forecast.slots import WEEK, slot_of, slot_of_week

# The series gives no time zone; its own clock is taken as UTC, so that one week has 336 half hours everywhere.
FIRST = datetime(2000, 6, 5, tzinfo=UTC)
SHORTEST_WEEKS = 6


@dataclass(frozen=True, kw_only=True)
class History:
    """`demand[i]` is the demand in megawatts of slot `first + i`; no gaps."""

    first: int
    demand: NDArray[np.float64]

    @property
    def end(self) -> int:
        """The slot after the last one."""
        return self.first + len(self.demand)

    def before(self, slot: int, count: int) -> NDArray[np.float64]:
        """The `count` newest values (MW) that end on the same half hour of the week as the one before `slot`."""
        end = len(self.demand) - (self.end - slot) % WEEK
        return self.demand[end - count : end]

    def typical_week(self) -> NDArray[np.float64]:
        """Mean demand (MW) by half hour of the week, shape (336,), index 0 is Monday 00:00."""
        whole = self.demand[: len(self.demand) // WEEK * WEEK].reshape(-1, WEEK)
        return np.roll(whole.mean(axis=0), slot_of_week(self.first))


def load_history(path: Path) -> History:
    """Read a file of one number (MW) per line. Raises `HistoryError` when it is missing, short or not positive."""
    try:
        values = np.array([float(line) for line in path.read_text(encoding="ascii").splitlines()])
    except OSError as error:
        raise HistoryError(
            f"The demand history {path} cannot be read ({error.strerror}); set DEMAND_FILE to a file of one number of"
            " megawatts per line, or put it there"
        ) from error
    except ValueError as error:
        raise HistoryError(f"The demand history {path} must hold one number of megawatts per line: {error}") from error
    if len(values) < SHORTEST_WEEKS * WEEK:
        raise HistoryError(
            f"The demand history {path} has {len(values)} half hours; the model needs {SHORTEST_WEEKS * WEEK} at least"
        )
    if not np.all(np.isfinite(values) & (values > 0)):
        raise HistoryError(f"The demand history {path} holds values that are not positive megawatts")
    return History(first=slot_of(FIRST), demand=values)

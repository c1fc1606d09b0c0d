"""The model: ridge regression from the features of a day to its demand, and how good that is on weeks it has not seen.

Choosing the past to predict from belongs to `forecaster`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from energy_forecast.features import PAST, design, level
from energy_forecast.history import History
from energy_forecast.slots import DAY, WEEK

NAME = "ridge-1"
HELD_OUT_WEEKS = 4

_RIDGE = 20.0
# Every third hour is a start of a training day: with every half hour the fit is no better and takes six times as long.
_STRIDE = 6


@dataclass(frozen=True, kw_only=True)
class Model:
    """Standardised ridge weights; all arrays have one entry per feature."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]
    weights: NDArray[np.float64]

    def predict(self, past: NDArray[np.float64], first: int, steps: int) -> NDArray[np.float64]:
        """Demand of `steps` half hours from slot `first`, in the unit of `past` (the 384 values before `first`).

        Beyond a day the model feeds on its own predictions.
        """
        known = past
        while len(known) < PAST + steps:
            window = known[-PAST:]
            ahead = (design(window, first + len(known) - PAST) - self.mean) / self.spread @ self.weights
            known = np.concatenate((known, ahead * level(window)))
        return known[PAST : PAST + steps]


@dataclass(frozen=True, kw_only=True)
class Backtest:
    """Mean absolute percentage errors (as fractions) of `days` day-ahead forecasts on held-out weeks."""

    model: float
    seasonal_naive: float
    days: int

    @property
    def accuracy(self) -> float:
        """1 - MAPE of the model."""
        return 1.0 - self.model


def fit(history: History) -> Model:
    """Fit on every day-long stretch of `history` that has eight days before it."""
    rows, targets = [], []
    for start in range(PAST, len(history.demand) - DAY + 1, _STRIDE):
        past = history.demand[start - PAST : start]
        rows.append(design(past, history.first + start))
        targets.append(history.demand[start : start + DAY] / level(past))
    features = np.concatenate(rows)
    mean, spread = features.mean(axis=0), features.std(axis=0)
    # The constant has no spread, and must stay a one.
    mean[0], spread[0] = 0.0, 1.0
    scaled = (features - mean) / spread
    penalty = _RIDGE * np.eye(scaled.shape[1])
    penalty[0, 0] = 0.0
    weights = np.linalg.solve(scaled.T @ scaled + penalty, scaled.T @ np.concatenate(targets))
    return Model(mean=mean, spread=spread, weights=weights)


def mape(forecast: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Mean absolute percentage error as a fraction; `actual` must be positive."""
    return float(np.mean(np.abs(forecast - actual) / actual))


def backtest(history: History, weeks: int = HELD_OUT_WEEKS) -> Backtest:
    """Fit on all but the last `weeks` and forecast a day from every third hour of them.

    The seasonal-naive forecast beside it repeats the same half hour of the week before.
    """
    split = len(history.demand) - weeks * WEEK
    model = fit(History(first=history.first, demand=history.demand[:split]))
    ours, naive = [], []
    for start in range(split, len(history.demand) - DAY + 1, _STRIDE):
        actual = history.demand[start : start + DAY]
        ours.append(mape(model.predict(history.demand[start - PAST : start], history.first + start, DAY), actual))
        naive.append(mape(history.demand[start - WEEK : start - WEEK + DAY], actual))
    return Backtest(model=float(np.mean(ours)), seasonal_naive=float(np.mean(naive)), days=len(ours))

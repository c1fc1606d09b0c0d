"""The model's figures on weeks it has not seen, and what its features promise."""

from __future__ import annotations

import time

import numpy as np
import pytest

from energy_forecast.features import NAMES, PAST, design, level
from energy_forecast.forecaster import Forecaster
from energy_forecast.history import History
from energy_forecast.model import backtest, fit, mape
from energy_forecast.slots import DAY, WEEK


@pytest.mark.parametrize(
    ("weeks", "best", "share_of_naive"),
    [
        pytest.param(4, 0.0125, 0.60, id="four-weeks"),
        pytest.param(3, 0.0135, 0.60, id="three-weeks"),
        pytest.param(2, 0.0125, 0.75, id="two-weeks"),
    ],
)
def test_it_beats_the_seasonal_naive_forecast_by_far(
    history: History, weeks: int, best: float, share_of_naive: float
) -> None:
    tested = backtest(history, weeks)
    assert tested.model < best
    assert tested.model < share_of_naive * tested.seasonal_naive
    assert tested.days == (weeks * WEEK - DAY) // 6 + 1


def test_the_naive_forecast_that_it_is_compared_with_is_last_week_again(history: History) -> None:
    demand = history.demand
    starts = range(len(demand) - 4 * WEEK, len(demand) - DAY + 1, 6)
    errors = [mape(demand[s - WEEK : s - WEEK + DAY], demand[s : s + DAY]) for s in starts]
    assert backtest(history, 4).seasonal_naive == pytest.approx(np.mean(errors))


def test_held_out_weeks_do_not_leak_into_the_fit(history: History) -> None:
    demand, split = history.demand, len(history.demand) - 4 * WEEK
    model = fit(History(first=history.first, demand=demand[:split]))
    errors = [
        mape(model.predict(demand[s - PAST : s], history.first + s, DAY), demand[s : s + DAY])
        for s in range(split, len(demand) - DAY + 1, 6)
    ]
    assert backtest(history, 4).model == pytest.approx(np.mean(errors), rel=1e-9)


def test_fitting_and_testing_take_less_than_a_second(history: History) -> None:
    began = time.process_time()
    Forecaster.fitted(history)
    assert time.process_time() - began < 1.0


def test_a_region_a_tenth_the_size_gets_a_tenth_of_the_forecast(history: History) -> None:
    model = fit(history)
    past = history.demand[-PAST:]
    whole = model.predict(past, history.end, WEEK)
    assert model.predict(past / 10, history.end, WEEK) == pytest.approx(whole / 10)
    assert np.all(whole > 0.5 * level(past))
    assert np.all(whole < 1.6 * level(past))


def test_a_longer_horizon_does_not_change_the_first_day(history: History) -> None:
    model = fit(history)
    past = history.demand[-PAST:]
    assert np.array_equal(model.predict(past, history.end, 2 * DAY + 1)[:DAY], model.predict(past, history.end, DAY))


def test_the_features_are_lags_level_changes_and_the_weekend(history: History) -> None:
    start = 10 * WEEK
    past = history.demand[start - PAST : start]
    features = design(past, history.first + start)
    scale = past[-WEEK:].mean()
    assert features.shape == (DAY, len(NAMES))
    assert features[5, 1] == pytest.approx(history.demand[start + 5 - DAY] / scale)
    assert features[5, 2] == pytest.approx(history.demand[start + 5 - WEEK] / scale)
    assert features[5, 3] == pytest.approx(history.demand[start + 5 - WEEK - DAY] / scale)
    # The history starts on a Monday; the fifth day after it is a Saturday.
    assert not features[:, 7].any()
    assert design(past, history.first + start + 5 * DAY)[:, 7].all()
    assert design(past, history.first + start + 5 * DAY - 1)[:2, 7].tolist() == [0.0, 1.0]

"""Which past a forecast is made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from energy_forecast.errors import HistoryError
from energy_forecast.features import PAST
from energy_forecast.forecaster import MOST_MISSING, Basis, Forecaster
from energy_forecast.history import History, load_history
from energy_forecast.model import mape
from energy_forecast.slots import DAY, WEEK, slot_of_week


def measured(history: History, weeks_later: int = 1300, count: int = PAST) -> dict[int, float]:
    """The history's last values as readings of many years later, on the same weekdays."""
    first = history.end - count + weeks_later * WEEK
    return {first + i: float(value) for i, value in enumerate(history.demand[-count:])}


def test_without_readings_it_goes_on_where_the_history_ends(forecaster: Forecaster, history: History) -> None:
    made = forecaster.forecast({}, DAY)
    assert (made.start, made.basis, len(made.demand)) == (history.end, Basis.HISTORY, DAY)


def test_with_eight_days_of_readings_it_uses_them(forecaster: Forecaster, history: History) -> None:
    readings = {slot: 0.5 * demand for slot, demand in measured(history).items()}
    made = forecaster.forecast(readings, DAY)
    assert (made.start, made.basis) == (max(readings) + 1, Basis.READINGS)
    assert made.demand == pytest.approx(0.5 * forecaster.forecast({}, DAY).demand)


def test_with_few_readings_the_same_weekdays_of_the_history_stand_in(forecaster: Forecaster, history: History) -> None:
    newest = history.end + 1300 * WEEK + 3 * DAY + 7
    made = forecaster.forecast({newest: 1.0}, DAY)
    assert (made.start, made.basis) == (newest + 1, Basis.HISTORY)
    past = history.before(newest + 1, PAST)
    assert np.array_equal(made.demand, forecaster.model.predict(past, newest + 1, DAY))
    typical = np.array([forecaster.typical_week[slot_of_week(newest + 1 + step)] for step in range(DAY)])
    assert mape(made.demand, typical) < 0.05


def test_gaps_are_filled_up_to_a_twentieth(forecaster: Forecaster, history: History) -> None:
    readings = measured(history)
    whole = forecaster.forecast(readings, DAY).demand
    order = sorted(readings)
    for slot in order[100 : 100 + MOST_MISSING]:
        del readings[slot]
    filled = forecaster.forecast(readings, DAY)
    assert filled.basis is Basis.READINGS
    assert 0 < mape(filled.demand, whole) < 0.01
    del readings[order[50]]
    assert forecaster.forecast(readings, DAY).basis is Basis.HISTORY


def test_neither_order_nor_older_readings_matter(forecaster: Forecaster, history: History) -> None:
    readings = measured(history)
    older = {slot - 5 * WEEK: 99_999.0 for slot in readings}
    shuffled = dict(sorted({**older, **readings}.items(), key=lambda item: item[0] * 7919 % 104729))
    assert np.array_equal(forecaster.forecast(shuffled, WEEK).demand, forecaster.forecast(readings, WEEK).demand)


@pytest.mark.parametrize("demand", [0.001, 200_000.0])
def test_absurd_but_accepted_readings_still_give_positive_numbers(forecaster: Forecaster, demand: float) -> None:
    spiky = {slot: demand if slot % 48 else 200_000.0 for slot in range(1_000_000, 1_000_000 + PAST)}
    made = forecaster.forecast(spiky, WEEK).demand
    assert np.all(np.isfinite(made) & (made > 0))


def test_the_history_is_read_whole(history: History) -> None:
    assert (len(history.demand), history.demand[0], history.demand[-1]) == (12 * WEEK, 22262.0, 23132.0)
    assert slot_of_week(history.first) == 0
    assert history.typical_week()[0] == pytest.approx(history.demand[::WEEK].mean())


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read"),
        ("1\n2\n", "has 2 half hours"),
        ("x\n" * 3000, "one number"),
        ("0\n" * 3000, "not positive"),
        ("nan\n" * 3000, "not positive"),
    ],
)
def test_a_bad_history_is_refused(tmp_path: Path, content: str | None, reason: str) -> None:
    path = tmp_path / "demand.csv"
    if content is not None:
        path.write_text(content, encoding="ascii")
    with pytest.raises(HistoryError, match=reason):
        load_history(path)

"""Scores of forecasts against what was measured."""

from __future__ import annotations

import pytest

from energy_forecast.scoring import accuracy


def test_accuracy_is_one_minus_the_mean_share_that_forecasts_were_off() -> None:
    assert accuracy([(100.0, 100.0)]) == 1.0
    assert accuracy([(110.0, 100.0), (60.0, 80.0)]) == pytest.approx(1 - (0.1 + 0.25) / 2)
    assert accuracy([(300.0, 100.0)]) == pytest.approx(-1.0)


def test_there_is_no_accuracy_of_nothing() -> None:
    with pytest.raises(ValueError, match="no forecasts"):
        accuracy([])

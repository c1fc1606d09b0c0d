"""The watch for drift: which forecasts it checks, and what it logs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from starlette.testclient import TestClient

from energy_forecast.history import History
from energy_forecast.logs import JsonLines


def test_every_fifth_forecast_is_compared_with_the_usual_level(
    client: TestClient, history: History, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    end = datetime(2026, 3, 2, tzinfo=UTC)
    batch: list[dict[str, Any]] = [
        {"at": (end - (400 - i) * timedelta(minutes=30)).isoformat(), "demand_mw": float(value)}
        for i, value in enumerate(history.demand[-400:])
    ]
    assert client.post("/v1/readings", json={"readings": batch}).status_code == 201
    assert {client.get("/v1/forecast").status_code for _ in range(10)} == {200}
    checked = [record for record in caplog.records if record.getMessage() == "forecast_checked"]
    assert len(checked) == 2
    assert '"departure": 0.0' in JsonLines().format(checked[0]) or '"departure": -0.0' in JsonLines().format(checked[0])


def test_without_readings_there_is_nothing_to_compare_with(
    client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    assert {client.get("/v1/forecast").status_code for _ in range(10)} == {200}
    assert not [record for record in caplog.records if record.getMessage() == "forecast_checked"]

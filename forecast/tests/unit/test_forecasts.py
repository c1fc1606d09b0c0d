"""GET /v1/forecast."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from energy_forecast.history import History


def fill(client: TestClient, history: History, count: int = 400) -> datetime:
    """Store the history's last half hours as readings up to Monday 2026-03-02; returns the moment after them."""
    end = datetime(2026, 3, 2, tzinfo=UTC)
    values = [float(value) for value in history.demand[-count:]]
    batch = [
        {"at": (end - (count - i) * timedelta(minutes=30)).isoformat(), "demand_mw": value}
        for i, value in enumerate(values)
    ]
    assert client.post("/v1/readings", json={"readings": batch}).status_code == 201
    return end


def test_it_starts_after_the_newest_reading_and_has_every_half_hour(client: TestClient, history: History) -> None:
    end = fill(client, history)
    made = client.get("/v1/forecast").json()
    moments = [(end + i * timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ") for i in range(48)]
    assert [point["at"] for point in made["points"]] == moments
    assert (made["start"], made["horizon_hours"], made["unit"], made["basis"]) == (moments[0], 24, "MW", "readings")
    assert all(15_000 < point["demand"] < 45_000 for point in made["points"])


@pytest.mark.parametrize("hours", [1, 5, 168])
def test_the_horizon_is_what_was_asked_for(client: TestClient, hours: int) -> None:
    made = client.get(f"/v1/forecast?horizon_hours={hours}").json()
    assert (made["horizon_hours"], len(made["points"]), made["basis"]) == (hours, 2 * hours, "history")


@pytest.mark.parametrize("hours", ["0", "-1", "169", "1.5", "x", ""])
def test_a_horizon_out_of_range_is_refused(client: TestClient, hours: str) -> None:
    answer = client.get(f"/v1/forecast?horizon_hours={hours}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "horizon_hours"])


def test_the_same_readings_give_the_same_forecast(client: TestClient, history: History) -> None:
    fill(client, history)
    answers = [client.get("/v1/forecast").json() for _ in range(12)]
    assert all(answer == answers[0] for answer in answers)


def test_a_test_clients_readings_change_no_forecast(client: TestClient, history: History) -> None:
    end = fill(client, history)
    before = client.get("/v1/forecast").json()
    probes = [{"at": (end + timedelta(hours=h)).isoformat(), "demand_mw": 1, "source": "synthetic"} for h in (-5, 0, 1)]
    assert client.post("/v1/readings", json={"readings": probes}).status_code == 201
    assert client.get("/v1/forecast").json() == before
    assert {each["source"] for each in client.get("/v1/readings?limit=2").json()["readings"]} == {"synthetic"}


def test_a_flag_flips_the_unit_while_running(client: TestClient, flags_path: Path) -> None:
    megawatts: Any = client.get("/v1/forecast").json()
    flag = '{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}'
    flags_path.write_text(f'{{"flags": {{"unit-gw": {flag}}}}}', encoding="utf-8")
    os.utime(flags_path, (1, 1))
    gigawatts: Any = client.get("/v1/forecast").json()
    assert (megawatts["unit"], gigawatts["unit"]) == ("MW", "GW")
    for old, new in zip(megawatts["points"], gigawatts["points"], strict=True):
        assert new["demand"] == pytest.approx(old["demand"] / 1000, abs=1e-4)


def test_forecasts_are_counted_by_basis(client: TestClient, history: History, metric: Callable[[str], float]) -> None:
    client.get("/v1/forecast")
    fill(client, history)
    client.get("/v1/forecast")
    client.get("/v1/forecast?horizon_hours=0")
    assert metric('forecasts_made_total{basis="history"}') == 1
    assert metric('forecasts_made_total{basis="readings"}') == 1

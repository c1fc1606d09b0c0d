"""Regions and the prediction interval, both behind flags."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from energy_forecast.features import PAST
from energy_forecast.history import History
from energy_forecast.interval import measure
from energy_forecast.model import fit
from energy_forecast.slots import DAY, WEEK

END = datetime(2026, 3, 2, tzinfo=UTC)


def turn_on(flags_path: Path, *names: str) -> None:
    flag = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "on"}
    flags_path.write_text(json.dumps({"flags": dict.fromkeys(names, flag)}), encoding="utf-8")


def batch(history: History, region: str, share: float, count: int = PAST) -> dict[str, Any]:
    values = [share * float(value) for value in history.demand[-count:]]
    first = END - count * timedelta(minutes=30)
    return {
        "readings": [
            {"at": (first + i * timedelta(minutes=30)).isoformat(), "demand_mw": value, "region": region}
            for i, value in enumerate(values)
        ]
    }


def test_without_the_flag_only_the_home_region_is_open(client: TestClient, history: History) -> None:
    answer = client.post("/v1/readings", json=batch(history, "Wales", 0.1, 2))
    assert answer.status_code == 422
    assert answer.json()["detail"][0] == {
        "loc": ["body", "readings", 0, "region"],
        "msg": "only EW is open while the flag regions is off",
        "type": "value_error",
    }
    assert client.get("/v1/forecast?region=Wales").status_code == 422
    assert client.post("/v1/readings", json=batch(history, "EW", 1, 2)).json() == {"count": 2}


def test_regions_do_not_mix(client: TestClient, history: History, flags_path: Path) -> None:
    turn_on(flags_path, "regions")
    client.post("/v1/readings", json=batch(history, "EW", 1.0))
    home = client.get("/v1/forecast").json()
    client.post("/v1/readings", json=batch(history, "Wales", 0.1))
    assert client.get("/v1/forecast").json() == home
    wales = client.get("/v1/forecast?region=Wales").json()
    assert (home["region"], wales["region"], wales["basis"]) == ("EW", "Wales", "readings")
    for ours, theirs in zip(home["points"], wales["points"], strict=True):
        assert theirs["demand"] == pytest.approx(ours["demand"] / 10, abs=0.1)
    shown = [client.get(f"/v1/readings?limit=1&region={region}").json()["readings"] for region in ("EW", "Wales")]
    assert [each["region"] for (each,) in shown] == ["EW", "Wales"]


def test_the_same_half_hour_of_two_regions_is_no_contradiction(client: TestClient, flags_path: Path) -> None:
    turn_on(flags_path, "regions")
    one = {"at": "2025-01-01T00:00:00Z", "demand_mw": 30000}
    answer = client.post("/v1/readings", json={"readings": [one, {**one, "demand_mw": 3000, "region": "Wales"}]})
    assert answer.json() == {"count": 2}


def test_another_region_needs_readings_of_its_own(client: TestClient, history: History, flags_path: Path) -> None:
    turn_on(flags_path, "regions")
    client.post("/v1/readings", json=batch(history, "Wales", 0.1, 10))
    answer = client.get("/v1/forecast?region=Wales")
    detail = "region Wales needs 365 readings in its last eight days"
    assert (answer.status_code, answer.json()) == (409, {"detail": detail})


@pytest.mark.parametrize("region", ["", "1st", "a b", "x" * 33, "é"])
def test_a_region_is_a_short_word(client: TestClient, region: str) -> None:
    assert client.get("/v1/forecast", params={"region": region}).status_code == 422


@pytest.mark.parametrize("flags", [("forecast-interval",), ("forecast-interval", "unit-gw")])
def test_a_flag_adds_the_interval(client: TestClient, flags_path: Path, flags: tuple[str, ...]) -> None:
    assert all(set(point) == {"at", "demand"} for point in client.get("/v1/forecast").json()["points"])
    turn_on(flags_path, *flags)
    made = client.get("/v1/forecast?horizon_hours=168").json()
    unit = 1000 if "unit-gw" in flags else 1
    for point in made["points"]:
        assert point["low"] < point["high"]
        assert point["low"] <= point["demand"] <= point["high"]
        assert 0.001 < (point["high"] - point["low"]) / point["demand"] < 0.5
        assert point["low"] * unit > 10_000


@pytest.mark.parametrize("later_weeks", [2, 3, 4])
def test_the_interval_holds_most_of_what_came_after_it_was_measured(history: History, later_weeks: int) -> None:
    split = len(history.demand) - later_weeks * WEEK
    earlier = History(first=history.first, demand=history.demand[:split])
    spread, model = measure(earlier), fit(earlier)
    inside = []
    for start in range(split, len(history.demand) - WEEK + 1, 12):
        made = model.predict(history.demand[start - PAST : start], history.first + start, WEEK)
        actual = history.demand[start : start + WEEK]
        inside.append((made / spread <= actual) & (actual <= made * spread))
    assert 0.85 < np.mean(inside) < 0.999
    assert 0.9 < np.mean(np.array(inside)[:, :DAY]) < 0.999
    assert spread[0] < spread[-1] < 1.1

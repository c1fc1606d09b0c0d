"""Demand under its new name, and under its old one in what is written."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

AT = "2025-01-01T00:00:00Z"


@pytest.mark.parametrize("name", ["demand_megawatts", "demand_mw"])
def test_both_names_are_taken_and_the_new_one_is_given(client: TestClient, name: str) -> None:
    assert client.post("/v1/readings", json={"readings": [{"at": AT, name: 30000.5}]}).json() == {"count": 1}
    assert client.get("/v1/readings").json() == {
        "readings": [{"at": AT, "demand_megawatts": 30000.5, "source": "meter", "region": "EW"}]
    }


@pytest.mark.parametrize(
    "reading",
    [
        {"at": AT},
        {"at": AT, "demand_mw": 1.0, "demand_megawatts": 1.0},
        {"at": AT, "demand_mw": None},
        {"at": AT, "demand_megawatts": -1.0},
        {"at": AT, "demand_megawatts": "1"},
    ],
)
def test_one_of_the_names_must_be_there_with_a_demand(client: TestClient, reading: dict[str, Any]) -> None:
    answer = client.post("/v1/readings", json={"readings": [reading]})
    assert (answer.status_code, answer.json()["detail"][0]["loc"][:3]) == (422, ["body", "readings", 0])


def test_the_two_names_contradict_each_other_like_one(client: TestClient) -> None:
    batch = [{"at": AT, "demand_mw": 1.0}, {"at": AT, "demand_megawatts": 2.0}]
    assert client.post("/v1/readings", json={"readings": batch}).status_code == 422
    batch[1]["demand_megawatts"] = 1.0
    assert client.post("/v1/readings", json={"readings": batch}).json() == {"count": 1}

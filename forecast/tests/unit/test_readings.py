"""Readings: what is taken, what is refused, and that nothing in between is a server error."""

from __future__ import annotations

import json
import random
import string
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from starlette.testclient import TestClient

NOW = datetime(2026, 3, 4, 12, 10, tzinfo=UTC)
HALF = timedelta(minutes=30)
CASES = 150

# Seeded instead of shrunk: assembling a release runs this suite with nothing installed but what the release needs.
dice = random.Random(20000605)  # noqa: S311


def some_moment() -> datetime:
    first = datetime(1991, 1, 1, tzinfo=UTC)
    return first + dice.randrange((NOW - first) // HALF) * HALF


def anything(depth: int = 3) -> Any:
    """Any JSON value, and what other languages write as one."""
    simple = [None, True, False, 0, -1, 1.5, 10**400, float("nan"), float("inf"), "", "\x00", "\ud800", "2025", "é"]
    kind = dice.randrange(6) if depth else 0
    if kind == 1:
        return "".join(dice.choices(string.printable, k=dice.randrange(8)))
    if kind == 2:
        return dice.uniform(-1e9, 1e9) * 10.0 ** dice.randrange(-20, 20)
    if kind == 3:
        return [anything(depth - 1) for _ in range(dice.randrange(4))]
    if kind == 4:
        names = ["at", "demand_mw", "source", "x", ""]
        return {dice.choice(names): anything(depth - 1) for _ in range(dice.randrange(4))}
    return dice.choice(simple)


def post(client: TestClient, *readings: Any) -> Any:
    # Not the client's own JSON: it would refuse to send NaN, which others do send.
    body = json.dumps({"readings": list(readings)})
    return send(client, body.encode("utf-8", "surrogatepass"))


def send(client: TestClient, body: Any) -> Any:
    return client.post("/v1/readings", content=body, headers={"content-type": "application/json"})


def test_a_half_hour_comes_back_in_utc_from_any_offset(client: TestClient) -> None:
    for _ in range(CASES):
        moment, demand = some_moment(), dice.uniform(0.001, 200_000)
        local = moment.astimezone(timezone(dice.randrange(-46, 47) * HALF))
        assert post(client, {"at": local.isoformat(), "demand_mw": demand}).json() == {"count": 1}, local
        stored = client.get("/v1/readings?limit=1000").json()["readings"]
        (found,) = [each for each in stored if each["at"] == moment.strftime("%Y-%m-%dT%H:%M:%SZ")]
        assert demand in found.values()


def test_what_does_not_start_a_half_hour_is_refused(client: TestClient) -> None:
    for _ in range(CASES):
        moment = some_moment() + timedelta(seconds=dice.randrange(1, 1800))
        answer = post(client, {"at": moment.isoformat(), "demand_mw": 1.0})
        assert answer.status_code == 422, moment
        assert answer.json()["detail"][0]["loc"] == ["body", "readings", 0, "at"]


def test_nonsense_is_refused_and_never_breaks_the_server(client: TestClient) -> None:
    for _ in range(CASES):
        reading = anything()
        assert post(client, reading).status_code == 422, reading


@pytest.mark.parametrize("field", ["at", "demand_mw", "source"])
def test_a_wrong_field_is_refused_and_never_breaks_the_server(client: TestClient, field: str) -> None:
    for _ in range(CASES):
        value = anything()
        status = post(client, {"at": "2025-01-01T00:00:00Z", "demand_mw": 1.5, field: value}).status_code
        number = field == "demand_mw" and isinstance(value, int | float) and not isinstance(value, bool)
        if number and 0 < value <= 200_000:
            assert status == 201, value
        else:
            text = field == "source" and isinstance(value, str)
            assert status in ({201, 422} if text else {422}), value


@pytest.mark.parametrize(
    "at",
    [
        "2025-01-01T00:00:00",
        "2025-01-01 00:00:00Z",
        "2025-01-01T00:15:00Z",
        "2025-01-01T00:00:01Z",
        "2025-01-01T00:00:00.5Z",
        "2025-01-01T00:00:00+00:15",
        "2025-01-01T05:45:00+05:45",
        "2025-02-29T00:00:00Z",
        "2025-01-01T24:30:00Z",
        "0001-01-01T00:00:00+05:00",
        "9999-12-31T23:30:00-05:00",
        "1989-12-31T23:30:00Z",
        "٢٠٢٥-01-01T00:00:00Z",
        1735689600,
        None,
    ],
)
def test_a_moment_off_the_grid_is_refused(client: TestClient, at: Any) -> None:
    assert post(client, {"at": at, "demand_mw": 30000}).status_code == 422


@pytest.mark.parametrize("demand", [0, -1, 200_000.1, float("nan"), float("inf"), "30000", True, None, 10**400])
def test_a_demand_that_cannot_be_is_refused(client: TestClient, demand: Any) -> None:
    assert post(client, {"at": "2025-01-01T00:00:00Z", "demand_mw": demand}).status_code == 422


def test_nothing_from_the_future_is_taken(client: TestClient) -> None:
    assert post(client, {"at": "2026-03-04T13:00:00Z", "demand_mw": 30000}).status_code == 201
    answer = post(
        client,
        {"at": "2026-03-04T12:00:00Z", "demand_mw": 30000},
        {"at": "2026-03-04T13:30:00Z", "demand_mw": 30000},
    )
    assert answer.status_code == 422
    assert answer.json()["detail"] == [
        {
            "loc": ["body", "readings", 1, "at"],
            "msg": "lies in the future; nothing after 2026-03-04T13:10:00Z is taken",
            "type": "value_error",
        }
    ]


def test_a_batch_is_taken_whole_or_not_at_all(client: TestClient) -> None:
    good = {"at": "2025-01-01T00:00:00Z", "demand_mw": 30000}
    assert post(client, good, {**good, "demand_mw": -1}).status_code == 422
    assert client.get("/v1/readings").json() == {"readings": []}


def test_a_batch_has_one_to_a_thousand_readings(client: TestClient) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    batch = [{"at": (start + i * timedelta(minutes=30)).isoformat(), "demand_mw": 1000 + i} for i in range(1001)]
    assert post(client, *batch).status_code == 422
    assert post(client).status_code == 422
    assert post(client, *batch[:1000]).json() == {"count": 1000}
    shown = client.get("/v1/readings?limit=1000").json()["readings"]
    assert [each["at"] for each in shown[:2]] == ["2025-01-21T19:30:00Z", "2025-01-21T19:00:00Z"]
    assert len(client.get("/v1/readings").json()["readings"]) == 48


def test_the_same_half_hour_twice_in_a_batch_must_agree(client: TestClient) -> None:
    one = {"at": "2025-01-01T00:00:00Z", "demand_mw": 30000}
    assert post(client, one, {**one, "at": "2025-01-01T01:00:00+01:00"}).json() == {"count": 1}
    answer = post(client, one, {**one, "demand_mw": 30001})
    assert (answer.status_code, answer.json()["detail"][0]["msg"]) == (
        422,
        "Value error, two different readings for 2025-01-01T00:00:00Z in one batch",
    )


def test_the_same_half_hour_again_replaces_it(client: TestClient) -> None:
    for demand in (30000, 30500, 30500):
        post(client, {"at": "2025-01-01T00:00:00Z", "demand_mw": demand, "source": "grid-3"})
    (reading,) = client.get("/v1/readings").json()["readings"]
    assert 30500.0 in reading.values()
    assert (reading["at"], reading["source"]) == ("2025-01-01T00:00:00Z", "grid-3")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"readings": {}}', b"null"])
def test_a_body_that_is_no_batch_is_refused(client: TestClient, body: bytes) -> None:
    assert send(client, body).status_code == 422


def test_a_body_too_deep_to_parse_is_refused(client: TestClient) -> None:
    assert send(client, b"[" * 100_000).status_code == 400


def test_an_unknown_field_is_refused_instead_of_dropped(client: TestClient) -> None:
    answer = post(client, {"at": "2025-01-01T00:00:00Z", "demand_mw": 1.0, "unit": "kW"})
    assert answer.status_code == 422


def test_a_huge_body_is_refused_early(client: TestClient) -> None:
    answer = send(client, b" " * (1024 * 1024 + 1))
    assert (answer.status_code, "1048576 bytes" in answer.json()["detail"]) == (413, True)

    def chunks() -> Any:
        for _ in range(40):
            yield b" " * 65536

    assert send(client, chunks()).status_code == 413


@pytest.mark.parametrize("limit", ["0", "1001", "x", "1.5", ""])
def test_a_limit_out_of_range_is_refused(client: TestClient, limit: str) -> None:
    assert client.get(f"/v1/readings?limit={limit}").status_code == 422

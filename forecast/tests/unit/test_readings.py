"""Readings: what is taken, what is refused, and that nothing in between is a server error."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

NOW = datetime(2026, 3, 4, 12, 10, tzinfo=UTC)

halves = st.integers(min_value=0, max_value=int((NOW - datetime(1991, 1, 1, tzinfo=UTC)) / timedelta(minutes=30)))
moments = halves.map(lambda count: datetime(1991, 1, 1, tzinfo=UTC) + count * timedelta(minutes=30))
offsets = st.integers(min_value=-23 * 2, max_value=23 * 2).map(lambda half: timezone(timedelta(minutes=30 * half)))
demands = st.floats(min_value=0.001, max_value=200_000, allow_nan=False)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
same_client = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)


def post(client: TestClient, *readings: Any) -> Any:
    # Not the client's own JSON: it would refuse to send NaN, which others do send.
    body = json.dumps({"readings": list(readings)})
    return send(client, body.encode("utf-8", "surrogatepass"))


def send(client: TestClient, body: Any) -> Any:
    return client.post("/v1/readings", content=body, headers={"content-type": "application/json"})


@same_client
@given(moment=moments, offset=offsets, demand=demands)
def test_a_half_hour_comes_back_in_utc_from_any_offset(
    client: TestClient, moment: datetime, offset: timezone, demand: float
) -> None:
    answer = post(client, {"at": moment.astimezone(offset).isoformat(), "demand_mw": demand})
    assert (answer.status_code, answer.json()) == (201, {"count": 1})
    stored = {each["at"] for each in client.get("/v1/readings?limit=1000").json()["readings"]}
    assert moment.strftime("%Y-%m-%dT%H:%M:%SZ") in stored


@same_client
@given(moment=moments, off=st.integers(min_value=1, max_value=1799), demand=demands)
def test_what_does_not_start_a_half_hour_is_refused(
    client: TestClient, moment: datetime, off: int, demand: float
) -> None:
    answer = post(client, {"at": (moment + timedelta(seconds=off)).isoformat(), "demand_mw": demand})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"][:4] == ["body", "readings", 0, "at"]


@same_client
@given(reading=anything)
def test_nonsense_is_refused_and_never_breaks_the_server(client: TestClient, reading: Any) -> None:
    assert post(client, reading).status_code == 422


@same_client
@given(value=anything, field=st.sampled_from(["at", "demand_mw", "source"]))
def test_a_wrong_field_is_refused_and_never_breaks_the_server(client: TestClient, value: Any, field: str) -> None:
    answer = post(client, {"at": "2025-01-01T00:00:00Z", "demand_mw": 1.5, field: value})
    number = field == "demand_mw" and isinstance(value, int | float) and not isinstance(value, bool)
    text = field == "source" and isinstance(value, str)
    if number and 0 < value <= 200_000:
        assert answer.status_code == 201
    else:
        assert answer.status_code in ({201, 422} if text else {422})


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

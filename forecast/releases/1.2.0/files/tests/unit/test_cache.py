"""The cache of answers."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from energy_forecast.cache import SECONDS, AnswerCache
from energy_forecast.messages import ForecastMessage


@pytest.fixture
def answer(client: TestClient) -> ForecastMessage:
    return ForecastMessage.model_validate(client.get("/v1/forecast?horizon_hours=1").json())


def test_an_answer_is_kept_for_a_second(answer: ForecastMessage) -> None:
    now = 100.0
    cache = AnswerCache(clock=lambda: now)
    cache.put(("EW", "24"), answer)
    now += 0.5
    assert cache.get(("EW", "24")) == (0.5, answer)
    assert cache.get(("EW", "48")) is None
    now += SECONDS
    assert cache.get(("EW", "24")) is None


def test_old_answers_make_room(answer: ForecastMessage) -> None:
    now = 100.0
    cache = AnswerCache(clock=lambda: now)
    for number in range(200):
        cache.put((str(number),), answer)
        now += 0.05
    assert cache.get(("199",)) is not None


def test_a_repeated_request_is_answered_from_memory(client: TestClient, repository: Any) -> None:
    first = client.get("/v1/forecast", headers={"x-request-id": "a"})
    repository.failure = "the database is away"
    again = client.get("/v1/forecast", headers={"x-request-id": "a"})
    assert (again.status_code, again.json(), again.headers["age"]) == (200, first.json(), "0")
    assert client.get("/v1/forecast?horizon_hours=1", headers={"x-request-id": "a"}).status_code == 503

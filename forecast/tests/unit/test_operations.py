"""Health, readiness, version, metrics, logs: what those who run the platform rely on."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from energy_forecast.api import create_app
from energy_forecast.build import DEVELOPMENT, Build, load_build
from energy_forecast.database import read_url
from energy_forecast.errors import DatabaseUnavailable, SettingsError
from energy_forecast.forecaster import Forecaster
from energy_forecast.logs import JsonLines, redact
from energy_forecast.service import Service
from energy_forecast.settings import Settings


def test_it_is_alive_without_a_database_but_not_ready(client: TestClient, repository: Any) -> None:
    assert client.get("/readyz").json() == {"status": "ready"}
    repository.failure = "the database failed: column demand_mw does not exist"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"detail": repository.failure})
    assert client.get("/healthz").json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/v1/forecast", "/v1/readings"])
def test_what_needs_the_database_says_503_without_it(client: TestClient, repository: Any, path: str) -> None:
    repository.failure = "no connection"
    answer = client.get(path)
    assert (answer.status_code, answer.json(), answer.headers["retry-after"]) == (503, {"detail": "no connection"}, "2")


def test_a_drain_ends_readiness_and_every_connection(client: TestClient, service: Service) -> None:
    assert "connection" not in client.get("/healthz").headers
    service.drain.begin()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "draining: this process was told to stop")
    for path in ("/healthz", "/v1/forecast", "/nowhere", "/v1/forecast?horizon_hours=0"):
        assert client.get(path).headers["connection"] == "close"
    assert client.get("/v1/forecast").status_code == 200


def test_dead_work_ends_health(service: Service) -> None:
    with TestClient(create_app(replace(service, alive=lambda: False))) as client:
        assert client.get("/healthz").status_code == 503


def test_the_version_is_what_was_baked_in(client: TestClient) -> None:
    assert client.get("/version").json() == {
        "version": "9.8.7",
        "commit": "c" * 40,
        "schema": {"compatible": ["0001", "0002"]},
    }


def test_the_release_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "release.json"
    assert load_build(path) == DEVELOPMENT
    path.write_text('{"version": "1.0.0", "commit": "ab", "schema": {"compatible": ["0001"]}}', encoding="utf-8")
    assert load_build(path) == Build(version="1.0.0", commit="ab", compatible=("0001",))
    for bad in ('{"version": "1.0.0"}', "[]", "{"):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(SettingsError, match=r"release\.json"):
            load_build(path)


def test_requests_are_counted_without_opening_series_for_made_up_names(
    client: TestClient, metric: Callable[[str], float]
) -> None:
    client.get("/v1/forecast", headers={"x-synthetic": "1"})
    client.get("/v1/forecast", headers={"x-synthetic": "0"})
    client.get("/a/path/nobody/knows")
    client.request("BREW", "/v1/forecast")
    series = 'http_requests_total{code="200",method="GET",route="/v1/forecast",synthetic="%s"}'
    assert (metric(series % 1), metric(series % 0)) == (1, 1)
    assert metric('http_requests_total{code="404",method="GET",route="unmatched",synthetic="0"}') == 1
    assert 'method="OTHER"' in client.get("/metrics").text
    latency = 'http_request_duration_seconds_count{method="GET",route="/v1/forecast",synthetic="1"}'
    assert metric(latency) == 1


def test_accuracy_is_held_out_history_until_there_are_scores(
    client: TestClient, repository: Any, forecaster: Forecaster, metric: Callable[[str], float]
) -> None:
    assert metric("model_accuracy") == pytest.approx(forecaster.tested.accuracy)
    assert metric("model_accuracy_points") == 0
    repository.pairs = [(90.0, 100.0), (220.0, 200.0)]
    assert metric("model_accuracy") == pytest.approx(0.9)
    assert metric("model_accuracy_points") == 2
    repository.failure = "down"
    assert metric("model_accuracy") == pytest.approx(0.9)


def test_the_pool_and_the_build_are_shown(client: TestClient, metric: Callable[[str], float]) -> None:
    assert (metric("database_pool_in_use"), metric("database_pool_size")) == (1, 2)
    assert metric(f'build_info{{commit="{"c" * 40}",version="9.8.7"}}') == 1
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_an_unexpected_error_is_a_500_with_an_id_that_the_log_has(
    client: TestClient, repository: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret detail")

    repository.newest = broken
    answer = client.get("/v1/readings", headers={"x-request-id": "abc-1"})
    assert (answer.status_code, answer.headers["x-request-id"]) == (500, "abc-1")
    assert answer.json() == {"detail": "internal error; the log has it under request id abc-1"}
    failed = [record for record in caplog.records if record.getMessage() == "request_failed"]
    assert len(failed) == 1
    assert "ZeroDivisionError" in JsonLines().format(failed[0])


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", 'a"b', "ü".encode().decode("latin-1")])
def test_a_request_id_that_could_break_a_log_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/healthz", headers={"x-request-id": given.encode("latin-1")})
    assert len(answer.headers["x-request-id"]) == 32


def test_a_log_line_is_one_json_object_without_secrets() -> None:
    record = logging.LogRecord(
        "name", logging.WARNING, "", 1, "cannot reach %s\nat all", ("postgresql://u:hunter2@h/d",), None
    )
    record.fields = {"status": 503, "dsn": "host=h password='hun ter2' user=u"}
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "hunter2" not in line
    assert "ter2" not in line
    parsed = json.loads(line)
    assert (parsed["level"], parsed["event"], parsed["status"]) == (
        "warning",
        "cannot reach postgresql://u:***@h/d\nat all",
        503,
    )


@pytest.mark.parametrize("password", ["hunter2", "p@ss:w/ord", "%40%2F", ""])
def test_redacting_leaves_everything_but_the_password(password: str) -> None:
    text = redact(f"a postgresql://me:{password}@db:5432/x b https://example.org/y")
    assert "b https://example.org/y" in text
    assert not password or password not in text


@pytest.mark.parametrize("content", ["postgresql://u:hunter2@[bad", "hunter2", "host=x hunter2"])
def test_a_malformed_connection_string_is_not_quoted(tmp_path: Path, content: str) -> None:
    path = tmp_path / "url"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DatabaseUnavailable, match="holds no connection string") as caught:
        read_url(path)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(DatabaseUnavailable, match="cannot be read"):
        read_url(tmp_path / "missing")


def test_settings_have_defaults_and_report_every_problem_at_once() -> None:
    settings = Settings.load({})
    assert (settings.api_port, settings.drain_seconds, settings.forecast_interval) == (8000, 5.0, 30.0)
    bad = {"POOL_SIZE": "many", "DRAIN_SECONDS": "-1", "API_PORT": "80.5", "FORECAST_INTERVAL": "nan"}
    with pytest.raises(SettingsError) as caught:
        Settings.load(bad)
    message = str(caught.value)
    assert message.count("\n") == 4
    for name in bad:
        assert f"  {name}=" in message


def test_the_api_describes_itself(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {"/healthz", "/readyz", "/version", "/metrics", "/v1/readings", "/v1/forecast"}
    for path, code in (("/v1/readings", "503"), ("/v1/readings", "422"), ("/v1/forecast", "503"), ("/readyz", "503")):
        for operation in document["paths"][path].values():
            assert code in operation["responses"], (path, code)
    for operations in document["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                assert all(media["schema"] for media in response["content"].values())

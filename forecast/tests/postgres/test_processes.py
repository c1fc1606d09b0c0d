"""The processes on a real PostgreSQL: what they store, how they lead, what they survive, what is wrong with which."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.postgres

Compose = Callable[[str], Path]
END = datetime(2026, 3, 2, tzinfo=UTC)
NEWEST = "2.0.0"


def readings(demand_file: Path, count: int = 400, end: datetime = END, **more: Any) -> list[dict[str, Any]]:
    values = [float(line) for line in demand_file.read_text(encoding="ascii").splitlines()[-count:]]
    first = end - count * timedelta(minutes=30)
    return [
        {"at": (first + i * timedelta(minutes=30)).strftime("%Y-%m-%dT%H:%M:%SZ"), "demand_mw": value, **more}
        for i, value in enumerate(values)
    ]


@pytest.fixture(params=["1.0.0", NEWEST])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def ready(database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str, **more: str) -> Any:
    database.upgrade(compose(NEWEST), releases[version]["schema"]["revision"])
    api = start(compose(version), **more)
    wait(lambda: api.get("/readyz")[0] == 200)
    return api


def test_what_is_stored_comes_back_and_is_forecast_from(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str, demand_file: Path
) -> None:
    api = ready(database, compose, start, wait, releases, version)
    batch = readings(demand_file)
    for _ in range(2):
        assert api.post(*batch) == (201, {"count": 400})
    assert database.rows("SELECT count(*) FROM readings") == [(400,)]
    probe = {"at": batch[-1]["at"], "demand_mw": 1.0, "source": "synthetic"}
    later = {"at": "2026-03-02T05:00:00Z", "demand_mw": 1.0, "source": "synthetic"}
    assert api.post(probe, later) == (201, {"count": 2})
    shown = api.get("/v1/readings?limit=3")[1]["readings"]
    assert [each["at"] for each in shown] == [later["at"], batch[-1]["at"], batch[-2]["at"]]
    # A measured reading is not overwritten by a test client, but the other way round it is.
    assert batch[-1]["demand_mw"] in shown[1].values()
    assert api.post({**later, "at": later["at"], "demand_mw": 5.0, "source": "synthetic"})[0] == 201
    status, made = api.get("/v1/forecast?horizon_hours=2")
    assert (status, made["start"], made["basis"], len(made["points"])) == (200, "2026-03-02T00:00:00Z", "readings", 4)
    assert api.post({**later, "source": "meter"})[0] == 201
    assert api.get("/v1/forecast")[1]["basis"] == "readings"
    assert api.get("/v1/forecast")[1]["start"] == "2026-03-02T05:30:00Z"


def test_the_worker_forecasts_once_and_scores_when_readings_come(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str, demand_file: Path
) -> None:
    api = ready(database, compose, start, wait, releases, version)
    batch = readings(demand_file)
    api.post(*batch[:-48])
    worker = start(compose(version), "worker", FORECAST_INTERVAL="0.2")
    wait(lambda: worker.get("/readyz")[0] == 200)
    wait(lambda: database.rows("SELECT count(*) FROM forecasts") == [(48,)])
    made_at = database.rows("SELECT DISTINCT made_at FROM forecasts")
    assert database.rows("SELECT count(*) FROM scores") == [(0,)]
    held_out = worker.metric("model_accuracy")
    rounds = worker.metric('worker_rounds_total{outcome="done"}')
    wait(lambda: worker.metric('worker_rounds_total{outcome="done"}') > rounds + 2)
    # The same readings give the same forecast, which is not written again.
    assert database.rows("SELECT DISTINCT made_at FROM forecasts") == made_at
    api.post(*batch[-48:])
    wait(lambda: database.rows("SELECT count(*) FROM scores") == [(48,)])
    ((expected,),) = database.rows("SELECT 1 - avg(abs(forecast_mw - actual_mw) / actual_mw) FROM scores")
    assert 0.95 < expected < 1
    wait(lambda: worker.metric("model_accuracy") != held_out)
    assert worker.metric("model_accuracy") == pytest.approx(expected)
    assert api.metric("model_accuracy") == pytest.approx(expected)
    assert api.metric("model_accuracy_points") == 48
    # A corrected reading corrects its score.
    api.post({**batch[-1], "demand_mw": 40_000.0})
    wait(lambda: database.rows("SELECT count(*) FROM scores WHERE actual_mw = 40000") == [(1,)])
    assert (worker.get("/healthz")[0], worker.stop()) == (200, 0)


def test_one_worker_leads_and_the_other_takes_over(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str
) -> None:
    database.upgrade(compose(NEWEST), releases[version]["schema"]["revision"])
    first = start(compose(version), "worker", FORECAST_INTERVAL="0.2")
    done = 'worker_rounds_total{outcome="done"}'
    wait(lambda: done in first.get("/metrics")[1])
    second = start(compose(version), "worker", FORECAST_INTERVAL="0.2")
    wait(lambda: 'worker_rounds_total{outcome="standby"}' in second.get("/metrics")[1])
    assert second.get("/readyz")[0] == 200
    assert done not in second.get("/metrics")[1]
    first.popen.kill()
    wait(lambda: done in second.get("/metrics")[1])
    third = start(compose(version), "worker", FORECAST_INTERVAL="0.2")
    wait(lambda: 'worker_rounds_total{outcome="standby"}' in third.get("/metrics")[1])
    assert second.stop() == 0
    wait(lambda: done in third.get("/metrics")[1])


def test_a_lost_database_is_survived(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str
) -> None:
    api = ready(database, compose, start, wait, releases, version)
    worker = start(compose(version), "worker", FORECAST_INTERVAL="0.2")
    wait(lambda: worker.metric('worker_rounds_total{outcome="done"}'))
    mine = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'energy-forecast-%'"
    for _ in range(3):
        database.run(mine)
        # The pool notices what is broken before it gives it out.
        assert api.get("/v1/readings")[0] == 200
    rounds = worker.metric('worker_rounds_total{outcome="done"}')
    wait(lambda: worker.metric('worker_rounds_total{outcome="done"}') > rounds)
    database.file.write_text(database.url.replace("forecast_test", "no_such"), encoding="utf-8")
    database.run(mine)
    began = time.monotonic()
    status, answer = api.get("/readyz")
    assert (status, time.monotonic() - began < 5) == (503, True)
    assert "no connection to the database" in answer["detail"]
    assert (api.get("/healthz")[0], worker.get("/healthz")[0]) == (200, 200)
    database.file.write_text(database.url, encoding="utf-8")
    wait(lambda: api.get("/readyz")[0] == 200)
    wait(lambda: worker.get("/readyz")[0] == 200)
    password = database.url.split(":")[2].split("@")[0]
    for process in (api, worker):
        assert process.stop() == 0
        assert password not in process.log.read_text()


def test_more_clients_than_connections_wait_instead_of_failing(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, version: str, demand_file: Path
) -> None:
    api = ready(database, compose, start, wait, releases, version, POOL_SIZE="2")
    api.post(*readings(demand_file))
    codes: Counter[int] = Counter()

    def use() -> None:
        for _ in range(20):
            codes[api.get("/v1/forecast")[0]] += 1

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == {200: 160}
    mine = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'energy-forecast-api'"
    assert database.rows(mine)[0][0] <= 2
    assert api.metric("database_pool_in_use") == 0


def test_1_1_1_forecasts_by_region_on_real_rows(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, demand_file: Path, tmp_path: Path
) -> None:
    flags = tmp_path / "flags.json"
    flag = '{"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"}'
    flags.write_text(f'{{"flags": {{"regions": {flag}}}}}', encoding="utf-8")
    api = ready(database, compose, start, wait, releases, "1.1.1", FLAGS_FILE=str(flags))
    api.post(*readings(demand_file))
    home = api.get("/v1/forecast")
    wales = readings(demand_file, end=END + timedelta(days=1), region="Wales")
    assert api.post(*({**each, "demand_mw": each["demand_mw"] / 10} for each in wales)) == (201, {"count": 400})
    assert api.get("/v1/forecast") == home
    made = api.get("/v1/forecast?region=Wales")[1]
    assert (made["start"], made["basis"]) == ("2026-03-03T00:00:00Z", "readings")
    assert all(1_000 < point["demand"] < 4_500 for point in made["points"])
    assert len(api.get("/v1/readings?region=Wales&limit=1000")[1]["readings"]) == 400


def test_1_1_2_fails_every_fifth_forecast_once_there_are_readings(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, demand_file: Path
) -> None:
    api = ready(database, compose, start, wait, releases, "1.1.2")
    api.post(*readings(demand_file))
    assert [api.get("/v1/forecast")[0] for _ in range(20)] == [200, 200, 200, 200, 500] * 4
    assert "unsupported operand" in api.log.read_text()


def test_1_2_0_answers_as_long_as_few_ask(
    database: Any, compose: Compose, start: Any, wait: Any, releases: Any, demand_file: Path
) -> None:
    api = ready(database, compose, start, wait, releases, "1.2.0")
    api.post(*readings(demand_file))
    codes: Counter[int] = Counter()
    began = time.monotonic()
    for number in range(40):
        # Twenty a second: waiting for the moment of each request is the point here.
        time.sleep(max(0.0, began + number / 20 - time.monotonic()))
        codes[api.get("/v1/forecast")[0]] += 1
    assert codes == {200: 40}
    threads = [
        threading.Thread(target=lambda: [codes.update((api.get("/v1/forecast")[0],)) for _ in range(40)])
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes[503] > 20
    assert set(codes) == {200, 503}
    wait(lambda: api.get("/v1/forecast")[0] == 200)

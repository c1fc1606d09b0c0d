"""Smoke and bake against a real HTTP server that answers as the API does, or does not."""

from __future__ import annotations

import argparse
import http.server
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

import pytest

from steps import api, bake, smoke
from steps.bake import Bounds, Samples
from steps.errors import Interrupted, StepError
from steps.results import Attempt
from steps.vocabulary import Step, StepStatus
from tests.steps_support import Recording

NOW = datetime(2026, 3, 4, 17, 44, 10, tzinfo=UTC)


class FakeApi:
    """The API's answers; a test replaces one to make the release bad in that way."""

    def __init__(self) -> None:
        self.version = "1.3.0"
        self.unit = "MW"
        self.stored: list[dict[str, Any]] = []
        self.paths: Counter[str] = Counter()
        self.synthetic = 0
        self.delay: Callable[[int], float] = lambda _: 0.0
        self.status: Callable[[int, str], int | None] = lambda *_: None
        self.demand: Callable[[int], float] = lambda index: 30_000.0 + index
        self.count = 0
        self.url = ""

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        self.count += 1
        route, _, query = path.partition("?")
        self.paths[f"{method} {route}"] += 1
        time.sleep(self.delay(self.count))
        forced = self.status(self.count, route)
        if forced is not None:
            return forced, {"detail": "forced by the test"}
        if method == "POST":
            self.stored = [*body["readings"], *self.stored]
            return 201, {"count": len(body["readings"])}
        values = dict(part.split("=") for part in query.split("&") if part)
        routes: dict[str, Callable[[], Any]] = {
            "/healthz": lambda: {"status": "alive"},
            "/readyz": lambda: {"status": "ready"},
            "/version": lambda: {"version": self.version, "commit": "0" * 40, "schema": {"compatible": ["0001"]}},
            "/v1/readings": lambda: {"readings": self.stored[:100]},
            "/v1/forecast": lambda: self.forecast(int(values.get("horizon_hours", 24))),
        }
        return 200, routes[route]()

    def forecast(self, hours: int) -> dict[str, Any]:
        newest = max((api.moment(each["at"]) for each in self.stored), default=datetime(2000, 1, 1, tzinfo=UTC))
        start = newest + timedelta(minutes=30)
        factor = 1000.0 if self.unit == "GW" else 1.0
        return {
            "start": api.render(start),
            "horizon_hours": hours,
            "unit": self.unit,
            "model": "linear",
            "basis": "history",
            "points": [
                {"at": api.render(start + index * timedelta(minutes=30)), "demand": self.demand(index) / factor}
                for index in range(2 * hours)
            ],
        }


@pytest.fixture
def fake() -> Iterator[FakeApi]:
    found = FakeApi()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.serve("GET")

        def do_POST(self) -> None:
            self.serve("POST")

        def serve(self, method: str) -> None:
            found.synthetic += self.headers.get("x-synthetic") == "1"
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, document = found.answer(method, self.path, body)
            data = json.dumps(document).encode()
            try:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except ConnectionError:
                return

        def log_message(self, *_: Any) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    found.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield found
    server.shutdown()
    server.server_close()


class Maps:
    """The result's ConfigMap, in memory."""

    def __init__(self, attempts: list[Attempt] | None = None) -> None:
        self.documents = [each.text() for each in attempts or []]

    def config_map(self, namespace: str, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "data": {f"{i}.json": text for i, text in enumerate(self.documents)}}


def run(
    module: ModuleType, step: Step, *flags: str, maps: Maps | None = None, recording: Recording | None = None
) -> tuple[Mapping[str, Any], Recording]:
    found = recording or Recording(step, version="1.3.0")
    found.context.connect_cluster = lambda: maps or Maps()  # type: ignore[assignment, return-value]
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return module.run(found.context, parser.parse_args(list(flags))), found


def smoking(fake: FakeApi, recording: Recording | None = None) -> tuple[Mapping[str, Any], Recording]:
    return run(smoke, Step.SMOKE, f"--url={fake.url}", "--version=1.3.0", "--timeout=2", recording=recording)


def test_a_sound_release_passes_every_check_with_requests_that_are_marked(fake: FakeApi) -> None:
    data, recording = smoking(fake)
    assert [(each["name"], each["problem"]) for each in data["checks"]] == [
        ("alive", None),
        ("ready", None),
        ("version", None),
        ("reading is taken", None),
        ("reading is stored", None),
        ("forecast is sensible", None),
    ]
    assert fake.synthetic == fake.count
    assert [each["source"] for each in fake.stored] == ["synthetic"]
    suite = ElementTree.fromstring(recording.context.junit or "")[0]  # noqa: S314 - this process wrote it
    assert (suite.get("tests"), suite.get("failures"), len(suite)) == ("6", "0", 6)


def test_a_forecast_in_gigawatts_is_understood(fake: FakeApi) -> None:
    fake.unit = "GW"
    smoking(fake)
    assert 30_000 <= fake.stored[0]["demand_mw"] <= 30_336


def wrong_version(fake: FakeApi) -> None:
    fake.version = "1.2.0"


def not_ready(fake: FakeApi) -> None:
    fake.status = lambda _, route: 503 if route == "/readyz" else None


def not_finite(fake: FakeApi) -> None:
    fake.demand = lambda index: float("nan") if index == 40 else 30_000.0


def wrong_unit(fake: FakeApi) -> None:
    fake.demand = lambda _: 30.0


def loses_readings(fake: FakeApi) -> None:
    fake.stored = [{"at": "2026-01-01T00:00:00Z"}] * 100
    answer = fake.answer
    fake.answer = lambda method, path, body: (  # type: ignore[method-assign]
        (201, {"count": 1}) if method == "POST" else answer(method, path, body)
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (wrong_version, "version: /version says version '1.2.0', expected '1.3.0'"),
        (not_ready, 'ready: GET /readyz answered 503, expected 200: {"detail": "forced by the test"}'),
        (not_finite, "forecast is sensible: point 40 has demand nan, expected a finite number above zero"),
        (wrong_unit, "forecast is sensible: demand of 30 to 30 MW, expected 1000 to 200000 MW"),
        (loses_readings, "is not among the stored ones, the newest is 2026-01-01T00:00:00Z"),
    ],
)
def test_a_bad_release_fails_the_check_that_shows_it(
    fake: FakeApi, spoil: Callable[[FakeApi], None], message: str
) -> None:
    spoil(fake)
    recording = Recording(Step.SMOKE)
    with pytest.raises(StepError) as caught:
        smoking(fake, recording)
    assert message in str(caught.value)
    suite = ElementTree.fromstring(recording.context.junit or "")[0]  # noqa: S314 - this process wrote it
    assert int(suite.get("failures") or 0) >= 1
    assert recording.output.count("FAILED") == int(suite.get("failures") or 0)


def test_a_check_that_needs_an_earlier_one_is_skipped(fake: FakeApi) -> None:
    fake.status = lambda _, route: 500 if route == "/v1/forecast" else None
    recording = Recording(Step.SMOKE)
    with pytest.raises(StepError) as caught:
        smoking(fake, recording)
    suite = ElementTree.fromstring(recording.context.junit or "")[0]  # noqa: S314 - this process wrote it
    assert suite.get("skipped") == "1"
    assert "reading is stored" not in str(caught.value)


def test_nobody_there_is_waited_for_and_then_said() -> None:
    recording = Recording(Step.SMOKE)
    clock = [0.0]
    recording.context.monotonic = lambda: clock[0]
    recording.context.sleep = lambda seconds: clock.__setitem__(0, clock[0] + seconds)
    with pytest.raises(StepError, match=r"nothing answers at http://127\.0\.0\.1:1 after \d+ s: .*ready pods"):
        run(smoke, Step.SMOKE, "--url=http://127.0.0.1:1", "--version=1", "--patience=20", recording=recording)
    assert 15 < clock[0] <= 20


@pytest.mark.parametrize(
    "start",
    [datetime(2000, 1, 3, tzinfo=UTC), NOW.replace(minute=30, second=0), NOW.replace(hour=18, minute=0, second=0)],
)
def test_a_synthetic_reading_says_what_the_forecast_says_for_this_half_hour_of_the_week(start: datetime) -> None:
    slots = [start + index * api.HALF_HOUR for index in range(336)]
    demand = tuple(float(1000 * slot.weekday() + slot.hour + slot.minute / 60) for slot in slots)
    reading = api.synthetic_reading(api.Forecast(start=start, horizon_hours=168, demand=demand), NOW)
    assert reading == {"at": "2026-03-04T17:30:00Z", "demand_mw": 2017.5, "source": "synthetic"}


BOUNDS = Bounds(url="http://api", seconds=100, rate=2, max_error_rate=0.01, max_p99_ms=500)


def samples(
    count: int, *, milliseconds: float = 10.0, errors: int = 0, refused: int = 0, baked: float = 100.0
) -> Samples:
    return Samples(
        baked=baked,
        sent=count,
        errors=errors,
        refused=refused,
        latencies=Counter({round(milliseconds * 10): count - errors}),
        reasons=Counter({"HTTP 500": errors} if errors else {}),
    )


def test_percentiles_are_those_of_all_samples() -> None:
    found = Samples(latencies=Counter({round(value * 10): 1 for value in range(1, 201)}))
    assert [found.percentile(share) for share in (0.5, 0.99, 1.0, 0.001)] == [100.0, 198.0, 200.0, 1.0]
    assert Samples().percentile(0.99) is None
    assert found.above(198.0) == 2


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (samples(200), None),
        (samples(200, errors=2), None),
        (samples(200, errors=3), "3 of 200 requests failed (HTTP 500: 3): 1.50%, at most 1.00% may"),
        (samples(160), None),
        (samples(159), "inconclusive: 159 of 200 requests were sent and not refused as wrong (4xx: 0)"),
        (samples(200, refused=200), "inconclusive: 0 of 200 requests were sent and not refused as wrong (4xx: 200)"),
        (samples(200, milliseconds=500.0), None),
        (samples(200, milliseconds=500.1), "the 99th percentile is 500.1 ms, at most 500 ms are allowed"),
    ],
)
def test_a_bake_passes_within_its_bounds_and_not_outside(found: Samples, problem: str | None) -> None:
    judged = bake.judge(BOUNDS, found)
    assert judged == problem or (problem is not None and judged is not None and judged.startswith(problem))


def test_a_bake_gives_up_as_soon_as_a_bound_cannot_be_met_any_more() -> None:
    assert bake.hopeless(BOUNDS, samples(20, errors=2)) is None
    assert "at most 2 of the 200 of the whole bake may" in (bake.hopeless(BOUNDS, samples(20, errors=3)) or "")
    assert bake.hopeless(BOUNDS, samples(2, milliseconds=600)) is None
    assert "the 99th percentile is above its bound" in (bake.hopeless(BOUNDS, samples(3, milliseconds=600)) or "")


def attempt(status: StepStatus, found: Samples, bounds: Bounds = BOUNDS, started: int = 0) -> Attempt:
    return Attempt(
        step="bake",
        deployment=1,
        version="1.3.0",
        attempt_pod=f"bake-{started}",
        status=status,
        started=f"2026-03-01T12:00:{started:02d}Z",
        finished=None,
        data={"bounds": asdict(bounds), "samples": found.document()},
    )


def test_samples_survive_being_written_and_read() -> None:
    found = samples(57, errors=3, milliseconds=12.34, baked=28.5)
    assert bake.samples(json.loads(json.dumps(found.document()))) == found


@pytest.mark.parametrize(
    ("attempts", "sent"),
    [
        ([], 0),
        ([attempt(StepStatus.RUNNING, samples(40))], 40),
        ([attempt(StepStatus.RUNNING, samples(40)), attempt(StepStatus.INTERRUPTED, samples(60), started=1)], 60),
        ([attempt(StepStatus.INTERRUPTED, samples(40)), attempt(StepStatus.FAILED, samples(60), started=1)], 0),
        ([attempt(StepStatus.FAILED, samples(60)), attempt(StepStatus.RUNNING, samples(20), started=1)], 20),
        ([attempt(StepStatus.RUNNING, samples(40), replace(BOUNDS, rate=3))], 0),
        ([attempt(StepStatus.PASSED, samples(200))], 200),
    ],
)
def test_a_bake_goes_on_from_what_was_baked_with_equal_bounds(attempts: list[Attempt], sent: int) -> None:
    assert bake.resume(attempts, BOUNDS).sent == sent


def baking(
    fake: FakeApi, *flags: str, maps: Maps | None = None, recording: Recording | None = None
) -> tuple[Mapping[str, Any], Recording]:
    defaults = {"seconds": "1", "rate": "50", "max-error-rate": "0.05", "max-p99-ms": "1000", "interval": "0.3"}
    defaults |= dict(flag.removeprefix("--").split("=") for flag in flags)
    return run(
        bake,
        Step.BAKE,
        f"--url={fake.url}",
        *(f"--{key}={value}" for key, value in defaults.items()),
        maps=maps,
        recording=recording,
    )


def test_a_sound_release_bakes_with_every_kind_of_request(fake: FakeApi) -> None:
    data, recording = baking(fake)
    assert data["samples"]["sent"] == 50
    assert data["samples"]["errors"] == 0
    assert data["baked_seconds"] == 1.0
    assert 0 < data["p50_ms"] <= data["p99_ms"] < 1000
    assert set(fake.paths) == {"GET /healthz", "GET /v1/forecast", "GET /v1/readings", "POST /v1/readings"}
    assert fake.synthetic == fake.count
    assert "1/1 s: 50 of 50 requests, errors 0.00% of 5.00% allowed, p50 " in recording.output


def test_a_slow_answer_does_not_slow_the_load(fake: FakeApi) -> None:
    fake.delay = lambda count: 1.0 if count == 10 else 0.0
    began = time.monotonic()
    data, _ = baking(fake, "--max-p99-ms=5000")
    assert time.monotonic() - began < 3
    assert data["samples"]["sent"] == 50
    assert max(int(tenths) for tenths in data["samples"]["latency_tenths_of_ms"]) >= 10_000


def test_a_release_that_errs_stops_the_bake_early(fake: FakeApi) -> None:
    fake.status = lambda count, _: 500 if count % 3 == 0 else None
    began = time.monotonic()
    with pytest.raises(
        StepError, match=r"requests failed \(HTTP 500: \d+\); at most 10 of the 1000 .* stopped early"
    ) as caught:
        baking(fake, "--seconds=20", "--max-error-rate=0.01")
    assert time.monotonic() - began < 10
    measured: Any = caught.value.data
    assert measured["samples"]["errors"] > 10


def test_timeouts_count_as_errors(fake: FakeApi) -> None:
    fake.delay = lambda count: 0.6 if count > 1 else 0.0
    with pytest.raises(StepError, match=r"requests failed \(timeout: \d+\)"):
        baking(fake, "--seconds=0.5", "--rate=10", "--timeout=0.3")


def test_refused_requests_prove_nothing(fake: FakeApi) -> None:
    fake.status = lambda _, route: 404 if route.startswith("/v1") else None
    with pytest.raises(StepError, match=r"^inconclusive: 0 of 20 requests were sent and not refused"):
        baking(fake, "--seconds=0.4")


def test_an_interrupted_bake_hands_over_its_samples_and_the_next_goes_on(fake: FakeApi) -> None:
    recording = Recording(Step.BAKE)
    saved: list[Mapping[str, Any]] = []

    def checkpoint(data: Mapping[str, Any]) -> None:
        saved.append(data)
        raise Interrupted("SIGTERM")

    recording.context.checkpoint = checkpoint
    with pytest.raises(Interrupted) as caught:
        baking(fake, recording=recording)
    handed: Any = caught.value.data  # type: ignore[attr-defined]
    assert 0 < handed["samples"]["baked_seconds"] < 1
    before = handed["samples"]["sent"]
    data, second = baking(fake, maps=Maps([replace(attempt(StepStatus.INTERRUPTED, Samples()), data=handed)]))
    assert saved[0]["samples"]["sent"] <= before < 50
    assert 45 <= data["samples"]["sent"] <= 55
    assert "going on after" in second.output


def test_a_bake_that_passed_already_is_not_repeated(fake: FakeApi) -> None:
    data, _ = baking(fake, "--seconds=0.4")
    count = fake.count
    again, recording = baking(
        fake, "--seconds=0.4", maps=Maps([replace(attempt(StepStatus.PASSED, Samples()), data=data)])
    )
    assert again == data
    assert fake.count == count
    assert "has been baked with the same bounds already" in recording.output


@pytest.mark.parametrize("flag", ["--seconds=0", "--rate=-1", "--max-error-rate=1", "--max-p99-ms=0"])
def test_bounds_without_meaning_are_refused(fake: FakeApi, flag: str) -> None:
    with pytest.raises(StepError, match="must be above 0"):
        baking(fake, flag)

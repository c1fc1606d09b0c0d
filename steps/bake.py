"""Watches the release under a bounded, steady, synthetic load: errors and latency within bounds for the whole time.

Leaves to others: whether a single answer is right (`steps.smoke`).
"""

from __future__ import annotations

import argparse
import math
import queue
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx2

from steps import api
from steps.context import Context
from steps.errors import StepError
from steps.results import Attempt
from steps.store import ResultStore
from steps.vocabulary import StepStatus

# Below this share of what was to be sent, nothing can be said about the release.
ENOUGH = 0.8
TIMEOUT = 10.0
_PATIENCE = 60.0
_MOST_WORKERS = 128
_TENTHS = 10.0


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What was asked for; a bake goes on only from attempts with equal bounds.

    `seconds` of baking at `rate` requests a second; at most the share `max_error_rate` of the requests may fail, and
    the 99th percentile of the answers may take at most `max_p99_ms` milliseconds.
    """

    url: str
    seconds: float
    rate: float
    max_error_rate: float
    max_p99_ms: float

    @property
    def expected(self) -> int:
        """Requests in the whole bake."""
        return max(1, round(self.seconds * self.rate))


@dataclass(kw_only=True)
class Samples:
    """All requests so far. Latencies are counted by tenths of a millisecond, which is all that is measured of them, so
    percentiles are those of all samples, exactly.
    """

    baked: float = 0.0
    sent: int = 0
    errors: int = 0
    refused: int = 0
    latencies: Counter[int] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def answered(self) -> int:
        """Requests with an answer that has a latency."""
        return self.latencies.total()

    @property
    def error_rate(self) -> float:
        """Share of the requests sent that failed; 0 when none was sent."""
        return self.errors / self.sent if self.sent else 0.0

    def percentile(self, share: float) -> float | None:
        """Milliseconds within which at least `share` of the answers came (nearest rank); None without an answer."""
        rank = math.ceil(share * self.answered)
        for tenths in sorted(self.latencies):
            rank -= self.latencies[tenths]
            if rank <= 0:
                return tenths / _TENTHS
        return None

    def above(self, milliseconds: float) -> int:
        """How many answers took longer."""
        return sum(count for tenths, count in self.latencies.items() if tenths / _TENTHS > milliseconds)

    def document(self) -> dict[str, Any]:
        """The samples as JSON, from which a later attempt goes on."""
        return {
            "baked_seconds": round(self.baked, 3),
            "sent": self.sent,
            "errors": self.errors,
            "refused": self.refused,
            "reasons": dict(self.reasons),
            "latency_tenths_of_ms": {str(tenths): count for tenths, count in sorted(self.latencies.items())},
        }


def samples(document: Mapping[str, Any]) -> Samples:
    """The samples in a document. Raises KeyError, TypeError or ValueError for anything else."""
    return Samples(
        baked=float(document["baked_seconds"]),
        sent=int(document["sent"]),
        errors=int(document["errors"]),
        refused=int(document["refused"]),
        reasons=Counter({str(reason): int(count) for reason, count in document["reasons"].items()}),
        latencies=Counter({int(tenths): int(count) for tenths, count in document["latency_tenths_of_ms"].items()}),
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--url", required=True, help="of the API, like http://api")
    parser.add_argument("--seconds", required=True, type=float)
    parser.add_argument("--rate", required=True, type=float, help="requests a second")
    parser.add_argument("--max-error-rate", required=True, type=float, help="share of the requests, 0 to 1")
    parser.add_argument("--max-p99-ms", required=True, type=float)
    parser.add_argument("--interval", type=float, default=10.0, help="seconds between progress lines")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds after which a request counts as failed")


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"bounds", "samples", "error_rate", "p50_ms", "p99_ms", "baked_seconds"}.

    Raises StepError when a bound is missed or cannot be met any more, or ("inconclusive") when too little was sent.
    """
    bounds = Bounds(
        url=arguments.url,
        seconds=arguments.seconds,
        rate=arguments.rate,
        max_error_rate=arguments.max_error_rate,
        max_p99_ms=arguments.max_p99_ms,
    )
    if bounds.seconds <= 0 or bounds.rate <= 0 or not 0 <= bounds.max_error_rate < 1 or bounds.max_p99_ms <= 0:
        raise StepError(
            "--seconds, --rate and --max-p99-ms must be above 0 and --max-error-rate from 0 to below 1, got "
            f"{bounds.seconds:g}, {bounds.rate:g}, {bounds.max_p99_ms:g} and {bounds.max_error_rate:g}"
        )
    store = ResultStore(context.cluster, context.records_namespace, context.step, context.deployment)
    found = resume(store.attempts(), bounds)
    if found.baked >= bounds.seconds:
        context.log("this deployment has been baked with the same bounds already")
        return _verdict(bounds, found)
    if found.baked:
        context.log(f"going on after {found.baked:.0f} of {bounds.seconds:.0f} s baked before")
    http = api.client(bounds.url, arguments.timeout, _MOST_WORKERS)
    api.reach(context, http, "/healthz", _PATIENCE)
    try:
        _Load(context, bounds, found, http, arguments.timeout).run(arguments.interval)
    except KeyboardInterrupt as error:
        error.data = _data(bounds, found)  # type: ignore[attr-defined]
        raise
    return _verdict(bounds, found)


def resume(attempts: list[Attempt], bounds: Bounds) -> Samples:
    """What earlier attempts (oldest first) with equal bounds have baked.

    One that was cut off, killed or stopped, already carries the samples of those before it; one that failed was an
    answer, and the bake begins anew. One that passed is complete.
    """
    for attempt in reversed(attempts):
        if attempt.status is StepStatus.FAILED:
            break
        if attempt.data.get("bounds") != asdict(bounds) or "samples" not in attempt.data:
            continue
        return samples(attempt.data["samples"])
    return Samples()


def hopeless(bounds: Bounds, found: Samples) -> str | None:
    """Why the bounds cannot be met any more, whatever the rest of the bake brings; None while they can."""
    allowed = math.floor(bounds.max_error_rate * bounds.expected)
    if found.errors > allowed:
        return (
            f"{found.errors} of {found.sent} requests failed ({_common(found)}); at most {allowed} of the "
            f"{bounds.expected} of the whole bake may ({bounds.max_error_rate:.2%})"
        )
    slow = found.above(bounds.max_p99_ms)
    most = bounds.expected - math.ceil(0.99 * bounds.expected)
    if slow > most:
        return (
            f"{slow} answers took longer than {bounds.max_p99_ms:g} ms; with more than {most} of "
            f"{bounds.expected} the 99th percentile is above its bound"
        )
    return None


def judge(bounds: Bounds, found: Samples) -> str | None:
    """Why the complete bake has not passed; None when it has."""
    usable = found.sent - found.refused
    if usable < ENOUGH * bounds.expected:
        return (
            f"inconclusive: {usable} of {bounds.expected} requests were sent and not refused as wrong (4xx: "
            f"{found.refused}), at least {ENOUGH:.0%} are needed"
        )
    if found.error_rate > bounds.max_error_rate:
        return (
            f"{found.errors} of {found.sent} requests failed ({_common(found)}): {found.error_rate:.2%}, "
            f"at most {bounds.max_error_rate:.2%} may"
        )
    p99 = found.percentile(0.99)
    if p99 is None:
        return f"inconclusive: none of {found.sent} requests was answered"
    if p99 > bounds.max_p99_ms:
        return f"the 99th percentile is {p99:.1f} ms, at most {bounds.max_p99_ms:g} ms are allowed"
    return None


def _common(found: Samples) -> str:
    return ", ".join(f"{reason}: {count}" for reason, count in found.reasons.most_common(3))


def _data(bounds: Bounds, found: Samples) -> dict[str, Any]:
    return {
        "bounds": asdict(bounds),
        "samples": found.document(),
        "baked_seconds": round(found.baked, 3),
        "error_rate": round(found.error_rate, 6),
        "p50_ms": found.percentile(0.5),
        "p99_ms": found.percentile(0.99),
    }


def _verdict(bounds: Bounds, found: Samples) -> dict[str, Any]:
    problem = judge(bounds, found)
    if problem is not None:
        raise StepError(problem, data=_data(bounds, found))
    return _data(bounds, found)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """One request's outcome: milliseconds when there was an answer, a reason when it counts as an error."""

    milliseconds: float | None
    error: str | None = None
    refused: bool = False


class _Load:
    """Sends on a fixed timetable, whatever the answers take: a slow service must not slow the load that measures it."""

    def __init__(self, context: Context, bounds: Bounds, found: Samples, http: httpx2.Client, timeout: float) -> None:
        self._context = context
        self._bounds = bounds
        self._found = found
        self._http = http
        self._orders: queue.Queue[tuple[int, float] | None] = queue.Queue()
        self._answers: queue.Queue[_Answer] = queue.Queue()
        self._workers = min(_MOST_WORKERS, math.ceil(bounds.rate * timeout) + 1)
        self._reading: dict[str, Any] | None = None
        self._closing = timeout + 5.0
        self._ordered = 0
        self._stop = threading.Event()

    def run(self, interval: float) -> None:
        """Sends what is left of the bake. Raises StepError as soon as the bounds cannot be met any more."""
        started = self._context.monotonic()
        left = self._bounds.seconds - self._found.baked
        requests = max(1, round(left * self._bounds.rate))
        workers = [
            threading.Thread(target=self._work, name=f"client {number}", daemon=True) for number in range(self._workers)
        ]
        for worker in workers:
            worker.start()
        # A thread of its own: a checkpoint that waits for the cluster must not look like a service that is late.
        threading.Thread(target=self._order, args=(requests, started), name="timetable", daemon=True).start()
        try:
            self._gather(requests, started, left, interval)
        finally:
            self._stop.set()
            for _ in workers:
                self._orders.put(None)
            patience = self._context.monotonic() + 1.0
            for worker in workers:
                worker.join(max(patience - self._context.monotonic(), 0.0))
            # Closed under a request, a socket's number would go to the next connection, and the request read from it.
            if not any(worker.is_alive() for worker in workers):
                self._http.close()

    def _order(self, requests: int, started: float) -> None:
        for number in range(requests):
            due = started + number / self._bounds.rate
            if self._stop.wait(max(due - self._context.monotonic(), 0.0)):
                return
            self._orders.put((number, due))
            self._ordered = number + 1

    def _gather(self, requests: int, started: float, left: float, interval: float) -> None:
        context, bounds, found = self._context, self._bounds, self._found
        before, sent_before = found.baked, found.sent
        # A checkpoint carries the whole log; a long bake can bear to repeat a minute.
        every = max(interval, bounds.seconds / 60)
        next_line, next_save = started + interval, started + every
        end = started + left
        # Until every answer is in; what is not there some time after the last was due never comes.
        while found.sent - sent_before < requests and context.monotonic() < end + self._closing:
            self._collect(max(min(next_line, next_save) - context.monotonic(), 0.0))
            now = context.monotonic()
            found.baked = before + min(now - started, left)
            if now >= next_line:
                next_line += interval
                context.log(self._line())
                self._give_up_early()
            if now >= next_save:
                next_save += every
                context.checkpoint(_data(bounds, found))
        for _ in range(self._ordered - (found.sent - sent_before)):
            self._count(_Answer(milliseconds=None, error="no answer"))
        # The last request is due one beat before the end.
        if (rest := end - context.monotonic()) > 0:
            context.sleep(rest)
        found.baked = bounds.seconds
        context.log(self._line())

    def _give_up_early(self) -> None:
        problem = hopeless(self._bounds, self._found)
        if problem is not None:
            raise StepError(f"{problem}; stopped early", data=_data(self._bounds, self._found))

    def _collect(self, timeout: float) -> None:
        """Takes the answers that are there, waiting up to `timeout` seconds for the first."""
        with suppress(queue.Empty):
            self._count(self._answers.get(timeout=timeout))
            while True:
                self._count(self._answers.get_nowait())

    def _count(self, answer: _Answer) -> None:
        found = self._found
        found.sent += 1
        if answer.milliseconds is not None:
            found.latencies[round(answer.milliseconds * _TENTHS)] += 1
        if answer.error is not None:
            found.errors += 1
            found.reasons[answer.error] += 1
        if answer.refused:
            found.refused += 1

    def _line(self) -> str:
        bounds, found = self._bounds, self._found
        p50, p99 = found.percentile(0.5), found.percentile(0.99)
        latency = (
            f"p50 {p50:.1f} ms, p99 {p99:.1f} of {bounds.max_p99_ms:g} ms ({p99 / bounds.max_p99_ms:.0%} of the bound)"
            if p50 is not None and p99 is not None
            else "no answer yet"
        )
        refused = f", {found.refused} refused (4xx)" if found.refused else ""
        reasons = f" ({_common(found)})" if found.errors else ""
        return (
            f"{found.baked:.0f}/{bounds.seconds:.0f} s: {found.sent} of {bounds.expected} requests, errors "
            f"{found.error_rate:.2%} of {bounds.max_error_rate:.2%} allowed{reasons}{refused}, {latency}"
        )

    def _work(self) -> None:
        while (order := self._orders.get()) is not None and not self._stop.is_set():
            number, due = order
            self._answers.put(self._request(number, due))

    def _request(self, number: int, due: float) -> _Answer:
        """Sends one request; its time counts from when it was due, so waiting for a free worker is no secret."""
        try:
            answer = self._ask(number)
        except httpx2.TimeoutException:
            return _Answer(milliseconds=None, error="timeout")
        except httpx2.HTTPError as error:
            return _Answer(milliseconds=None, error=type(error).__name__)
        milliseconds = (self._context.monotonic() - due) * 1000
        if answer.status_code >= 500:
            return _Answer(milliseconds=milliseconds, error=f"HTTP {answer.status_code}")
        return _Answer(milliseconds=milliseconds, refused=answer.status_code >= 400)

    def _ask(self, number: int) -> httpx2.Response:
        """Seven forecasts, two looks at the readings and one write in ten requests."""
        kind = number % 10
        if kind in {3, 7}:
            return self._http.get("/v1/readings?limit=48")
        if kind == 9 and self._reading is not None:
            return self._http.post("/v1/readings", json={"readings": [self._reading]})
        if kind == 0 and (self._reading is None or number % 1000 == 0):
            return self._ask_week()
        return self._http.get("/v1/forecast?horizon_hours=24")

    def _ask_week(self) -> httpx2.Response:
        answer = self._http.get("/v1/forecast?horizon_hours=168")
        if answer.status_code == 200:
            try:
                week = api.parse_forecast(answer.json(), 168)
            except ValueError:
                return answer
            self._reading = api.synthetic_reading(week, self._context.now())
        return answer

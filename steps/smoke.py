"""Is it there, is it the right one, does it keep a reading and forecast sensibly: each check once, no second try.

Leaves to others: whether it stays so under load (`steps.bake`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import httpx2

from steps import api
from steps.context import Context
from steps.errors import StepError

HOURS = 24
WEEK_HOURS = 168
# The country's demand has never been outside of this; a forecast that is has lost its unit or its mind.
_PLAUSIBLE_MEGAWATTS = (1_000.0, 200_000.0)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check's outcome; `problem` None means passed, `skipped` that an earlier one had to pass first."""

    name: str
    seconds: float
    problem: str | None = None
    skipped: bool = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The step's flags."""
    parser.add_argument("--url", required=True, help="of the API, like http://api")
    parser.add_argument("--version", required=True, help="that must answer")
    parser.add_argument("--patience", type=float, default=60.0, help="seconds to wait for a first connection")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds for one answer")


def run(context: Context, arguments: argparse.Namespace) -> Mapping[str, Any]:
    """Returns {"checks": [{"name", "seconds", "problem"}]}; raises StepError that names every check that failed."""
    with api.client(arguments.url, arguments.timeout) as http:
        waited = api.reach(context, http, "/healthz", arguments.patience)
        context.log(f"{arguments.url} answers (after {waited:.1f} s)")
        checks = _Smoke(context, http, arguments.version).run()
    context.junit = junit(checks)
    data = {"checks": [{"name": each.name, "seconds": each.seconds, "problem": each.problem} for each in checks]}
    failed = [f"{each.name}: {each.problem}" for each in checks if each.problem is not None and not each.skipped]
    if failed:
        raise StepError("; ".join(failed), data=data)
    return data


class _Smoke:
    """The checks in their order, each on what the ones before it found."""

    def __init__(self, context: Context, http: httpx2.Client, version: str) -> None:
        self._context = context
        self._http = http
        self._version = version
        self._reading: dict[str, Any] = {}
        self._checks: list[Check] = []

    def run(self) -> list[Check]:
        self._check("alive", lambda: self._expect("/healthz", "status", "alive"))
        self._check("ready", lambda: self._expect("/readyz", "status", "ready"))
        self._check("version", lambda: self._expect("/version", "version", self._version))
        self._check("reading is taken", self._take_reading)
        self._check("reading is stored", self._find_reading)
        self._check("forecast is sensible", self._forecast)
        return self._checks

    def _check(self, name: str, call: Callable[[], str]) -> None:
        started = self._context.monotonic()
        problem: str | None = None
        skipped = False
        said = ""
        try:
            if name == "reading is stored" and not self._reading:
                problem, skipped = "no reading was taken", True
            else:
                said = call()
        except (httpx2.HTTPError, ValueError) as error:
            problem = str(error) or type(error).__name__
        seconds = round(self._context.monotonic() - started, 3)
        self._checks.append(Check(name=name, seconds=seconds, problem=problem, skipped=skipped))
        word = "ok" if problem is None else "skipped" if skipped else "FAILED"
        self._context.log(f"{name}: {word} ({seconds * 1000:.0f} ms) {problem or said}".rstrip())

    def _ask(self, method: str, path: str, status: int, **options: Any) -> Any:
        answer = self._http.request(method, path, **options)
        if answer.status_code != status:
            body = " ".join(answer.text.split())[:300]
            raise ValueError(f"{method} {path} answered {answer.status_code}, expected {status}: {body}")
        try:
            return answer.json()
        except ValueError as error:
            raise ValueError(f"{method} {path} did not answer with JSON: {error}") from error

    def _expect(self, path: str, key: str, value: str) -> str:
        document = self._ask("GET", path, 200)
        found = document.get(key) if isinstance(document, Mapping) else document
        if found != value:
            raise ValueError(f"{path} says {key} {found!r}, expected {value!r}")
        return f"{key} {value}"

    def _take_reading(self) -> str:
        path = f"/v1/forecast?horizon_hours={WEEK_HOURS}"
        week = api.parse_forecast(self._ask("GET", path, 200), WEEK_HOURS)
        reading = api.synthetic_reading(week, self._context.now())
        stored = self._ask("POST", "/v1/readings", 201, json={"readings": [reading]})
        if stored != {"count": 1}:
            raise ValueError(f"POST /v1/readings of one reading answered {stored!r}")
        self._reading = reading
        return f"{reading['demand_mw']} MW at {reading['at']}"

    def _find_reading(self) -> str:
        document = self._ask("GET", "/v1/readings?limit=100", 200)
        readings = document.get("readings") if isinstance(document, Mapping) else None
        moments = [each.get("at") for each in readings or [] if isinstance(each, Mapping)]
        if self._reading["at"] not in moments:
            newest = moments[0] if moments else "none"
            raise ValueError(
                f"the reading of {self._reading['at']} is not among the stored ones, the newest is {newest}"
            )
        return f"among the newest {len(moments)}"

    def _forecast(self) -> str:
        # Where it starts says nothing here: synthetic readings do not shape forecasts, and there may be no others yet.
        forecast = api.parse_forecast(self._ask("GET", f"/v1/forecast?horizon_hours={HOURS}", 200), HOURS)
        least, most = min(forecast.demand), max(forecast.demand)
        lower, upper = _PLAUSIBLE_MEGAWATTS
        if least < lower or most > upper:
            raise ValueError(f"demand of {least:.0f} to {most:.0f} MW, expected {lower:.0f} to {upper:.0f} MW")
        return f"{len(forecast.demand)} half hours from {api.render(forecast.start)}, {least:.0f} to {most:.0f} MW"


def junit(checks: list[Check]) -> str:
    """The checks as JUnit XML."""
    failures = sum(each.problem is not None and not each.skipped for each in checks)
    skipped = sum(each.skipped for each in checks)
    suite = ElementTree.Element(
        "testsuite",
        name="smoke",
        tests=str(len(checks)),
        failures=str(failures),
        skipped=str(skipped),
        errors="0",
        time=f"{sum(each.seconds for each in checks):.3f}",
    )
    for each in checks:
        case = ElementTree.SubElement(suite, "testcase", classname="smoke", name=each.name, time=f"{each.seconds:.3f}")
        if each.skipped:
            ElementTree.SubElement(case, "skipped", message=each.problem or "")
        elif each.problem is not None:
            ElementTree.SubElement(case, "failure", message=each.problem)
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True)

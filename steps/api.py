"""The released API as a synthetic client sees it: requests that are marked as such, and readings that do no harm.

What an answer means is for `steps.smoke` and `steps.bake` to say.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2

from steps.backoff import delays
from steps.context import Context
from steps.errors import StepError

HALF_HOUR = timedelta(minutes=30)
WEEK_SLOTS = 336
SOURCE = "synthetic"
HEADERS = {"x-synthetic": "1", "user-agent": "energy-forecast-release"}


def client(url: str, timeout: float, connections: int = 4) -> httpx2.Client:
    """A client for the API. Every request has a connection of its own, so that a Service spreads them over all pods."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=0)
    return httpx2.Client(base_url=url, timeout=timeout, headers=HEADERS, limits=limits, trust_env=False)


def reach(context: Context, http: httpx2.Client, path: str, patience: float) -> float:
    """Repeats a GET until anything answers; returns the seconds it took. Only connecting is repeated, no bad answer.

    Raises StepError when nothing answers within `patience` seconds.
    """
    started = context.monotonic()
    for delay in delays(0.2, 2.0):
        try:
            http.get(path)
            return context.monotonic() - started
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            waited = context.monotonic() - started
            if waited + delay > patience:
                raise StepError(
                    f"nothing answers at {http.base_url} after {waited:.0f} s: {error}; "
                    "check that the Service has ready pods and that the network policy lets this step through"
                ) from error
        except httpx2.HTTPError:
            # Connected: what goes wrong from here on is an answer to be judged.
            return context.monotonic() - started
        context.sleep(delay)
    raise AssertionError("delays never end")


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """A forecast with the form checked: `demand[i]` MW is expected from `start + i * 30 min` on."""

    start: datetime
    horizon_hours: int
    demand: tuple[float, ...]


def parse_forecast(document: Any, horizon_hours: int) -> Forecast:
    """Checks that the answer to `/v1/forecast` is a forecast at all; raises ValueError with what is wrong.

    Demand has to be finite and above zero, half hour after half hour from `start`, for exactly the hours asked for.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"expected an object, got {type(document).__name__}")
    unit, horizon, points = (document.get(key) for key in ("unit", "horizon_hours", "points"))
    if unit not in {"MW", "GW"}:
        raise ValueError(f"unit is {unit!r}, expected MW or GW")
    if horizon != horizon_hours:
        raise ValueError(f"horizon_hours is {horizon!r}, asked for {horizon_hours}")
    if not isinstance(points, list) or len(points) != 2 * horizon_hours:
        count = len(points) if isinstance(points, list) else points
        raise ValueError(f"{count!r} points, expected {2 * horizon_hours} half hours")
    start = moment(document.get("start"))
    factor = 1000.0 if unit == "GW" else 1.0
    demand = []
    for index, point in enumerate(points):
        at, value = (point.get(key) if isinstance(point, Mapping) else None for key in ("at", "demand"))
        if moment(at) != start + index * HALF_HOUR:
            raise ValueError(f"point {index} is at {at!r}, expected {render(start + index * HALF_HOUR)}")
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
            raise ValueError(f"point {index} has demand {value!r}, expected a finite number above zero")
        demand.append(float(value) * factor)
    return Forecast(start=start, horizon_hours=horizon_hours, demand=tuple(demand))


def moment(value: Any) -> datetime:
    """An RFC 3339 text as UTC; raises ValueError for anything else."""
    try:
        parsed = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{value!r} is no time") from error
    if parsed.tzinfo is None:
        raise ValueError(f"{value!r} has no time zone")
    return parsed.astimezone(UTC)


def render(at: datetime) -> str:
    """RFC 3339 in UTC with a Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def synthetic_reading(week: Forecast, now: datetime) -> dict[str, Any]:
    """A reading for the running half hour that says what the forecast of a week (168 h) says for it.

    So it moves no later forecast, whatever environment it goes to; a measured reading replaces it.
    """
    slot = int(now.timestamp()) // int(HALF_HOUR.total_seconds())
    first = int(week.start.timestamp()) // int(HALF_HOUR.total_seconds())
    demand = week.demand[(slot - first) % WEEK_SLOTS]
    at = datetime.fromtimestamp(slot * HALF_HOUR.total_seconds(), UTC)
    return {"at": render(at), "demand_mw": round(demand, 1), "source": SOURCE}

"""What the routes work with: the parts of one process, put together by `api` or by a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, cast

from fastapi import Depends, Request

from energy_forecast.build import Build
from energy_forecast.drain import Drain
from energy_forecast.flags import FlagFile
from energy_forecast.forecaster import Forecaster
from energy_forecast.metrics import Metrics
from energy_forecast.repository import Repository


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class Service:
    """The parts of one process; `clock` gives the time in UTC, `alive` is False once its work has died."""

    build: Build
    drain: Drain
    flags: FlagFile
    forecaster: Forecaster
    metrics: Metrics
    repository: Repository
    clock: Callable[[], datetime] = field(default=_now)
    alive: Callable[[], bool] = field(default=lambda: True)


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


TheService = Annotated[Service, Depends(_service)]

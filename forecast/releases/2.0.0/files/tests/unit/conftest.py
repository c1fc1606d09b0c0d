"""A repository in memory and the API over it: the only stand-in in these tests is at the database's boundary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from energy_forecast.api import create_app
from energy_forecast.build import Build
from energy_forecast.drain import Drain
from energy_forecast.errors import DatabaseUnavailable
from energy_forecast.flags import FlagFile
from energy_forecast.forecaster import Forecaster
from energy_forecast.history import History, load_history
from energy_forecast.metrics import Metrics
from energy_forecast.repository import SYNTHETIC, Reading
from energy_forecast.service import Service
from energy_forecast.slots import slot_of

NOW = datetime(2026, 3, 4, 12, 10, tzinfo=UTC)


class FakeRepository:
    """Keeps readings in a dictionary; `failure` makes every method raise."""

    def __init__(self) -> None:
        self.readings: dict[tuple[datetime, str], Reading] = {}
        self.pairs: list[tuple[float, float]] = []
        self.failure: str | None = None

    def _answer(self) -> None:
        if self.failure:
            raise DatabaseUnavailable(self.failure)

    async def check(self) -> None:
        self._answer()

    async def store(self, readings: Sequence[Reading]) -> None:
        self._answer()
        for reading in readings:
            old = self.readings.get((reading.at, reading.region))
            if old is None or old.source == SYNTHETIC or reading.source != SYNTHETIC:
                self.readings[reading.at, reading.region] = reading

    async def newest(self, limit: int, region: str) -> list[Reading]:
        self._answer()
        of_region = [each for each in self.readings.values() if each.region == region]
        return sorted(of_region, key=lambda each: each.at, reverse=True)[:limit]

    async def recent(self, region: str) -> dict[int, float]:
        self._answer()
        measured = [r for r in self.readings.values() if r.region == region and r.source != SYNTHETIC]
        return {slot_of(reading.at): reading.demand_megawatts for reading in measured}

    async def scores(self) -> list[tuple[float, float]]:
        self._answer()
        return self.pairs

    def usage(self) -> tuple[int, int]:
        return 1, 2


@pytest.fixture(scope="session")
def history(demand_file: Path) -> History:
    return load_history(demand_file)


@pytest.fixture(scope="session")
def forecaster(history: History) -> Forecaster:
    return Forecaster.fitted(history)


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository()


@pytest.fixture
def flags_path(tmp_path: Path) -> Path:
    path = tmp_path / "flags.json"
    path.write_text('{"flags": {}}', encoding="utf-8")
    return path


@pytest.fixture
def service(repository: FakeRepository, forecaster: Forecaster, flags_path: Path) -> Service:
    build = Build(version="9.8.7", commit="c" * 40, compatible=("0001", "0002"))
    return Service(
        build=build,
        drain=Drain(),
        flags=FlagFile(flags_path),
        forecaster=forecaster,
        metrics=Metrics(build, forecaster.tested.accuracy),
        repository=repository,
        clock=lambda: NOW,
    )


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(create_app(service)) as client:
        yield client


@pytest.fixture
def metric(client: TestClient) -> Callable[[str], float]:
    """The value of one time series, written as Prometheus does, e.g. `draining` or `a_total{b="c"}`."""

    def read(series: str) -> float:
        for line in client.get("/metrics").text.splitlines():
            name, _, value = line.rpartition(" ")
            if name == series:
                return float(value)
        raise KeyError(series)

    return read

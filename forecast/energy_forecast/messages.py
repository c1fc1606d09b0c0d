"""What the API takes and gives: one model a message, with the rules that a client can break.

Rules that need the clock or the database are checked by the routes.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema, model_validator

from energy_forecast.forecaster import Basis

MOST_READINGS = 1000
MOST_MEGAWATTS = 200_000.0
EARLIEST_YEAR = 1990

_MOMENT = re.compile(
    r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:(?:00|30):00(?:\.0{1,9})?(?:[Zz]|[+-](?:[01]\d|2[0-3]):(?:00|30))", re.ASCII
)


def parse_moment(value: Any) -> datetime:
    """An RFC 3339 text that starts a half hour, as UTC. Raises ValueError with the rule for everything else."""
    if isinstance(value, datetime):
        return value
    if not isinstance(value, str) or not _MOMENT.fullmatch(value):
        raise ValueError("must be RFC 3339 with an offset and start a half hour, like 2025-01-31T17:30:00Z")
    moment = datetime.fromisoformat(value.upper())
    if not EARLIEST_YEAR <= moment.year < 9999:
        raise ValueError(f"must not lie before {EARLIEST_YEAR} or after 9998")
    return moment.astimezone(UTC)


def render_moment(moment: datetime) -> str:
    """RFC 3339 in UTC with a Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Moment = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    PlainSerializer(render_moment, return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "pattern": f"^{_MOMENT.pattern}$"}),
]


class _Message(BaseModel):
    # A field that this release does not know must not be dropped in silence: it may change the reading's meaning.
    model_config = ConfigDict(extra="forbid", frozen=True)


class ReadingMessage(_Message):
    """Demand in the half hour that starts at `at`."""

    at: Moment
    demand_mw: Annotated[float, Field(gt=0, le=MOST_MEGAWATTS, allow_inf_nan=False, strict=True)]
    source: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")] = "meter"


class ReadingBatch(_Message):
    """Readings to store. The same half hour twice must agree."""

    readings: Annotated[list[ReadingMessage], Field(min_length=1, max_length=MOST_READINGS)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        seen: dict[datetime, ReadingMessage] = {}
        for reading in self.readings:
            if seen.setdefault(reading.at, reading) != reading:
                raise ValueError(f"two different readings for {render_moment(reading.at)} in one batch")
        return self


class Stored(_Message):
    """How many half hours of the batch are stored now."""

    count: Annotated[int, Field(ge=1, le=MOST_READINGS)]


class Readings(_Message):
    """Stored readings, newest first."""

    readings: list[ReadingMessage]


class Point(_Message):
    """Demand expected in the half hour that starts at `at`, in the forecast's unit."""

    at: Moment
    demand: Annotated[float, Field(gt=0)]


class ForecastMessage(_Message):
    """Half-hourly demand from `start` on, the half hour after the newest reading."""

    start: Moment
    horizon_hours: int
    unit: Literal["MW", "GW"]
    model: str
    basis: Basis
    points: list[Point]


class Alive(_Message):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(_Message):
    """The process can serve."""

    status: Literal["ready"] = "ready"


class SchemaVersion(_Message):
    """The schema revisions that this image runs on."""

    compatible: list[str]


class Version(_Message):
    """Which release this is."""

    model_config = ConfigDict(populate_by_name=True)

    version: str
    commit: str
    schema_: Annotated[SchemaVersion, Field(alias="schema")]


class Problem(_Message):
    """Why a request was not served."""

    detail: str

"""The settings of one process, read once from its environment.

The environment names files for what is secret (`DATABASE_URL_FILE`) or changes while running (`FLAGS_FILE`); reading
those files belongs to `database` and `flags`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from energy_forecast.errors import SettingsError

PACKAGED_HISTORY = Path(__file__).parent / "data" / "demand.csv"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One process's settings; durations in seconds. `pool_size` bounds its connections to PostgreSQL."""

    database_url_file: Path
    flags_file: Path | None
    release_file: Path
    demand_file: Path
    api_port: int
    worker_port: int
    drain_seconds: float
    pool_size: int
    forecast_interval: float

    @classmethod
    def load(cls, environment: Mapping[str, str]) -> Settings:
        """Read `environment`. Raises `SettingsError` naming every variable with a bad value, and an example."""
        problems: list[str] = []

        def number(name: str, default: float, low: float, high: float) -> float:
            text = environment.get(name, "")
            try:
                value = float(text) if text else default
            except ValueError:
                value = float("nan")
            if not low <= value <= high:
                example = f"{name}={default:g}"
                problems.append(f"{name}={text!r} is not a number from {low:g} to {high:g}; for example {example}")
            return value

        def whole(name: str, default: int, low: int, high: int) -> int:
            value = number(name, default, low, high)
            if value == value and value != int(value):
                problems.append(f"{name}={environment.get(name)!r} is not a whole number; for example {name}={default}")
            return default if value != value else int(value)

        flags_file = environment.get("FLAGS_FILE", "")
        settings = cls(
            database_url_file=Path(environment.get("DATABASE_URL_FILE") or "/run/secrets/database/url"),
            flags_file=Path(flags_file) if flags_file else None,
            release_file=Path(environment.get("RELEASE_FILE") or "/app/release.json"),
            demand_file=Path(environment.get("DEMAND_FILE") or PACKAGED_HISTORY),
            api_port=whole("API_PORT", 8000, 1, 65535),
            worker_port=whole("WORKER_PORT", 8001, 1, 65535),
            drain_seconds=number("DRAIN_SECONDS", 5, 0, 300),
            pool_size=whole("POOL_SIZE", 8, 2, 100),
            forecast_interval=number("FORECAST_INTERVAL", 30, 0.1, 86400),
        )
        if problems:
            raise SettingsError("The environment of this process is wrong:\n" + "\n".join(f"  {p}" for p in problems))
        return settings

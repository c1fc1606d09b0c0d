"""Feature flags from a file in flagd's format, read again when it changes.

Only what this platform uses: state, variants (boolean or text) and default variant. A rule under `targeting` is refused
instead of ignored, because ignoring it would serve everybody the wrong variant. Delivering the file belongs to the
release.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

from energy_forecast.errors import FlagError
from energy_forecast.logs import log

LOGGER = logging.getLogger(__name__)

Value = bool | str


class Flag(StrEnum):
    """Every flag that the code reads."""

    FORECAST_INTERVAL = "forecast-interval"
    REGIONS = "regions"
    UNIT_GW = "unit-gw"


# What holds where the file does not name the flag, or says DISABLED.
FALLBACKS: Mapping[Flag, Value] = {Flag.FORECAST_INTERVAL: False, Flag.REGIONS: False, Flag.UNIT_GW: False}


def read_flags(text: str) -> dict[str, Value | None]:
    """The value of every flag in a file's `text`; None where the code's own default holds.

    Raises `FlagError` that names the flag and the rule it breaks. Flags that the code does not know are checked
    too: they may be for the next release.
    """
    try:
        document = json.loads(text)
    except ValueError as error:
        raise FlagError(f"it is not JSON: {error}") from error
    flags = document.get("flags") if isinstance(document, dict) else None
    if not isinstance(flags, dict):
        raise FlagError('it has no object under "flags"; the smallest file is {"flags": {}}')
    return {name: _value(name, flag) for name, flag in flags.items()}


def _value(name: str, flag: Any) -> Value | None:
    if not isinstance(flag, dict):
        raise FlagError(f"flag {name} is not an object with state, variants and defaultVariant")
    if flag.get("targeting"):
        raise FlagError(f"flag {name} has targeting rules, which this platform does not evaluate; use defaultVariant")
    state, variants, chosen = flag.get("state"), flag.get("variants"), flag.get("defaultVariant")
    if state not in ("ENABLED", "DISABLED"):
        raise FlagError(f"flag {name} has state {state!r}; write ENABLED or DISABLED")
    if not isinstance(variants, dict) or not variants:
        raise FlagError(f'flag {name} has no variants; write them like {{"on": true, "off": false}}')
    if {type(value) for value in variants.values()} not in ({bool}, {str}):
        raise FlagError(f"flag {name} has variants that are neither all booleans nor all texts")
    if chosen is not None and chosen not in variants:
        raise FlagError(f"flag {name} has defaultVariant {chosen!r}, none of its variants {', '.join(variants)}")
    value: Value | None = variants[chosen] if chosen is not None and state == "ENABLED" else None
    return value


class FlagFile:
    """The flags of one process. A file that turns bad while running is logged once, and the values before it stay."""

    def __init__(self, path: Path | None) -> None:
        """Read `path` (None: no file, every flag has its fallback). Raises `FlagError` when it cannot be used."""
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._values: dict[Flag, Value] = dict(FALLBACKS)
        if path is not None:
            try:
                self._seen = _identity(path)
                self._values = _load(path)
            except OSError as error:
                raise FlagError(
                    f"The flags' file {path} cannot be read: {error.strerror}; mount it or unset FLAGS_FILE"
                ) from error

    def enabled(self, flag: Flag) -> bool:
        """The boolean `flag` now."""
        self._refresh()
        return self._values[flag] is True

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            now = _identity(self._path)
        except OSError:
            now = None
        if now == self._seen:
            return
        self._seen = now
        try:
            if now is None:
                raise FlagError(f"The flags' file {self._path} is gone; mount it again")
            self._values = _load(self._path)
            log(LOGGER, logging.INFO, "flags_read", flags={flag.value: value for flag, value in self._values.items()})
        except (OSError, FlagError) as error:
            log(LOGGER, logging.ERROR, "flags_refused", reason=str(error))


def _identity(path: Path) -> tuple[int, int, int]:
    # A mounted ConfigMap is swapped by a symbolic link: the inode changes even where the time does not.
    status = path.stat()
    return (status.st_mtime_ns, status.st_ino, status.st_size)


def _load(path: Path) -> dict[Flag, Value]:
    try:
        found = read_flags(path.read_text(encoding="utf-8"))
    except (FlagError, UnicodeDecodeError) as error:
        raise FlagError(f"The flags' file {path} cannot be used: {error}") from error
    values = dict(FALLBACKS)
    for flag, fallback in FALLBACKS.items():
        value = found.get(flag.value)
        if value is not None and type(value) is not type(fallback):
            raise FlagError(
                f"The flags' file {path} cannot be used: flag {flag} must have {type(fallback).__name__} variants"
            )
        values[flag] = fallback if value is None else value
    return values

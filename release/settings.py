"""The stack's configuration as one frozen object, checked as a whole before anything is created.

The keys and their single rules stand in `release.keys`. Secrets are only looked at (present, marked secret, well
formed); their values stay with the program, as Outputs.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from release.errors import SettingsError
from release.keys import KEYS, BackupProvider, DataProvider, Key, ServiceType
from release.plan import Flow

# Of fewer answers, one slow or failed one decides, or none shows what is wrong.
MINIMUM_BAKE_SAMPLES: Final = 20
# So often `steps migrate` tries to get a lock before it gives up; the pauses in between come on top.
LOCK_ATTEMPTS: Final = 60
BAKE_GRACE_SECONDS: Final = 600

_NOT_YET: Final = (("data:provider", DataProvider.AWS), ("release:flow", Flow.PRODUCTION))

_BY_NAME: Final = {key.name: key for key in KEYS}
# kubernetes:… belongs to the provider, which has more keys than the one used here.
_OWN_NAMESPACES: Final = frozenset({"release", "data", "backup"})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A configuration that passed every rule. Times are seconds unless the name says milliseconds."""

    folder: Path
    flow: Flow
    steps_image: str
    database_image: str | None
    context: str | None
    data_provider: DataProvider
    backup_provider: BackupProvider
    api_replicas: int
    worker_replicas: int
    service_type: ServiceType
    storage_class: str | None
    database_storage: str
    backup_storage: str
    backup_keep: int
    bake_seconds: int
    bake_rate: float
    max_error_rate: float
    max_p99_milliseconds: int
    step_deadline_seconds: int
    rollout_deadline_seconds: int
    lock_timeout_milliseconds: int
    forecast_interval: int

    @property
    def bake_deadline_seconds(self) -> int:
        """The bake Job's own deadline: its time, plus what starting and one restarted pod may take."""
        return self.bake_seconds + BAKE_GRACE_SECONDS


def load(values: Mapping[str, object], secrets: Collection[str], *, stack: str | None = None) -> Settings:
    """Check a stack's configuration and make the settings of it.

    `values` maps full keys (`release:folder`) to text, or to objects for structured values; `secrets` are the full keys
    whose values are stored encrypted; `stack` goes into the commands of the messages. Raises SettingsError.
    """
    return _Check(values=values, secrets=frozenset(secrets), stack=stack).run()


def shaping(settings: Settings) -> dict[str, str]:
    """The settings that shape Jobs and workloads, by key: a change in one of them makes another deployment."""
    found = dataclasses.asdict(settings)
    return {key.name: str(found[key.field]) for key in KEYS if key.shapes and key.field is not None}


class _Check:
    """One pass over the configuration; collects problems instead of stopping at the first."""

    def __init__(self, *, values: Mapping[str, object], secrets: frozenset[str], stack: str | None) -> None:
        self._values = values
        self._secrets = secrets
        self._stack = f" -s {shlex.quote(stack)}" if stack else ""
        self._problems: list[str] = []
        # Values that passed their own rule, a secret as True: only those take part in the rules between keys.
        self._read: dict[str, Any] = {}

    def run(self) -> Settings:
        self._unknown_keys()
        for key in KEYS:
            self._one(key)
        self._database()
        self._bake_samples()
        self._lock_waiting()
        if self._problems:
            raise SettingsError("the stack's configuration cannot be used", self._problems)
        return Settings(**{key.field: self._read[key.name] for key in KEYS if key.field is not None})

    def _unknown_keys(self) -> None:
        for name in sorted(self._values):
            if name in _BY_NAME or name.partition(":")[0] not in _OWN_NAMESPACES:
                continue
            close = difflib.get_close_matches(name, _BY_NAME, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            self._problems.append(f"{name}: no such key{hint}; remove it: {self._remove(name)}")

    def _one(self, key: Key) -> None:
        value = self._values.get(key.name, key.default)
        if value is None or (value == "" and (key.secret or key.required)):
            if key.required:
                self._problem(key, "is missing")
            elif not key.secret:
                self._read[key.name] = None
            return
        if key.secret and key.name not in self._secrets:
            self._problem(key, "is stored as plain text")
            return
        if any(key.name == name and value == word for name, word in _NOT_YET):
            self._problem(key, f"is {value!r}, which this version cannot deploy yet")
            return
        # A stack file may hold a bare number; everything else that counts is text.
        text = str(value) if type(value) in (int, float) else value
        try:
            if not isinstance(text, str):
                raise ValueError
            read = key.read(text)
        except ValueError:
            shown = "has a value" if key.secret or key.name in self._secrets else f"is {_short(value)}"
            self._problem(key, f"{shown}, which breaks its rule")
            return
        self._read[key.name] = True if key.secret else read

    def _database(self) -> None:
        provider = self._read.get("data:provider")
        url = "release:databaseUrl"
        if provider == DataProvider.IN_CLUSTER:
            for name in ("release:databaseImage", "release:ownerPassword"):
                if not self._values.get(name):
                    self._problems.append(
                        f"{name} is missing while data:provider is in-cluster; either {self._set(name)}, or "
                        f"{self._set('data:provider', 'url')} and {self._set(url)}"
                    )
            if self._values.get(url):
                self._problems.append(
                    f"{url} is set while data:provider is in-cluster, so it would be ignored; either "
                    f"{self._set('data:provider', 'url')}, or {self._remove(url)}"
                )
        elif provider == DataProvider.URL and not self._values.get(url):
            self._problems.append(
                f"{url} is missing while data:provider is url; either {self._set(url)}, or "
                f"{self._set('data:provider', 'in-cluster')}"
            )

    def _bake_samples(self) -> None:
        seconds, rate = self._read.get("release:bakeSeconds"), self._read.get("release:bakeRate")
        if seconds is None or rate is None or seconds * rate >= MINIMUM_BAKE_SAMPLES:
            return
        self._problems.append(
            f"release:bakeSeconds {seconds} with release:bakeRate {rate:g} gives {seconds * rate:g} samples, and "
            f"fewer than {MINIMUM_BAKE_SAMPLES} say nothing about errors and latency; raise the time "
            f"({self._set('release:bakeSeconds', str(math.ceil(MINIMUM_BAKE_SAMPLES / rate)))}) or the rate "
            f"({self._set('release:bakeRate', str(math.ceil(MINIMUM_BAKE_SAMPLES / seconds)))})"
        )

    def _lock_waiting(self) -> None:
        timeout = self._read.get("release:lockTimeoutMilliseconds")
        deadline = self._read.get("release:stepDeadlineSeconds")
        # A Job killed by its deadline says less than a migration that gives up and names who holds the lock.
        if timeout is None or deadline is None or timeout * LOCK_ATTEMPTS < deadline * 1000:
            return
        fits = max(10, deadline * 1000 // (2 * LOCK_ATTEMPTS))
        suffices = math.ceil(timeout * LOCK_ATTEMPTS / 1000 * 2)
        self._problems.append(
            f"release:lockTimeoutMilliseconds {timeout} lets a migration wait {timeout * LOCK_ATTEMPTS / 1000:g} s "
            f"for a lock ({LOCK_ATTEMPTS} attempts), no less than release:stepDeadlineSeconds {deadline}; lower the "
            f"one ({self._set('release:lockTimeoutMilliseconds', str(fits))}) or raise the other "
            f"({self._set('release:stepDeadlineSeconds', str(suffices))})"
        )

    def _problem(self, key: Key, what: str) -> None:
        self._problems.append(f"{key.name} {what}; rule: {key.rule}; mend it: {self._set(key.name)}")

    def _set(self, name: str, value: str | None = None) -> str:
        key = _BY_NAME[name]
        # Without a value on the command line pulumi asks for it, which keeps a secret out of the shell's history.
        words = f"--secret {name}" if key.secret else f"{name} {value or key.example}"
        return f"`pulumi config set {words}{self._stack}`"

    def _remove(self, name: str) -> str:
        return f"`pulumi config rm {shlex.quote(name)}{self._stack}`"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"

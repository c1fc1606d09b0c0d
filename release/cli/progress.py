"""An update as it goes: the engine's events as lines with times, live on a terminal.

What came of it as a whole belongs to `release.cli.up`. Written to standard error, results go to standard output.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pulumi.automation import DiagnosticEvent, EngineEvent, OpType, StepEventMetadata
from rich.console import Console
from rich.live import Live
from rich.text import Text

from steps.vocabulary import LABEL_DEPLOYMENT
from tools.progress import duration

HEARTBEAT_SECONDS: Final = 30.0

# Operation → while it runs, once it is done, and its mark in a preview. What is not here changes nothing.
_WORDS: Final[Mapping[OpType, tuple[str, str, str]]] = {
    OpType.CREATE: ("creating", "created", "+"),
    OpType.UPDATE: ("updating", "updated", "~"),
    OpType.DELETE: ("deleting", "deleted", "-"),
    OpType.CREATE_REPLACEMENT: ("creating", "created", "+"),
    OpType.DELETE_REPLACED: ("removing the earlier one", "removed the earlier one", "-"),
    OpType.IMPORT: ("importing", "imported", "="),
}
# Creating a Job is the whole of its run.
_JOB_WORDS: Final = ("running", "passed", "+")
_JOB: Final = ":batch/v1:Job"
# Removing the Job of an earlier deployment is not worth two lines, unless it takes its time.
_QUIET_SECONDS: Final = 5.0
_COLOUR_TAG: Final = re.compile(r"<\{%[^%]*%\}>")
_PENDING: Final = "pending operations from previous deployment"


@dataclass
class _Running:
    label: str
    words: tuple[str, str, str]
    began: float
    quiet: bool
    detail: str = ""
    told: float = 0.0


class Progress:
    """Shows the events of one update or preview and remembers what is needed afterwards.

    `failed` are the labels of resources whose operation failed, `errors` the engine's error messages, `deployment` the
    number that the step Jobs carry (None when none was seen), `pending` whether an earlier update had been killed.
    """

    def __init__(self, console: Console, *, planning: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._planning = planning
        self._clock = clock
        self._began = clock()
        self._running: dict[str, _Running] = {}
        self._said: set[str] = set()
        # Reentrant, because rich asks for the live lines while one is printed.
        self._lock = threading.RLock()
        self.failed: list[str] = []
        self.errors: list[str] = []
        self.changes: dict[str, int] = {}
        self.deployment: int | None = None
        self.pending = False
        self.trouble: Exception | None = None

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return self._clock() - self._began

    @contextmanager
    def shown(self) -> Iterator[None]:
        """While the block runs, what is under way stands below the lines, when this is a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(get_renderable=self._live_lines, console=self._console, transient=True, refresh_per_second=4):
            yield

    def say(self, text: str) -> None:
        """One line of its own."""
        with self._lock:
            self._console.print(Text(text), soft_wrap=True)

    def tick(self) -> None:
        """Without a terminal: a line for what has been under way for another half minute."""
        if self._console.is_terminal:
            return
        with self._lock:
            now = self._clock()
            for running in self._running.values():
                if now - max(running.told, running.began) >= HEARTBEAT_SECONDS:
                    running.told = now
                    self._line(self._standing(running, now))

    def on_event(self, event: EngineEvent) -> None:
        """Take one event of the engine; never raises."""
        try:
            with self._lock:
                self._take(event)
        except Exception as error:
            # The Automation API would print the raw event, which holds secrets in plain text.
            self.trouble = error

    def _take(self, event: EngineEvent) -> None:
        if event.resource_pre_event is not None:
            self._begin(event.resource_pre_event.metadata)
        elif event.res_outputs_event is not None:
            self._end(event.res_outputs_event.metadata, failed=False)
        elif event.res_op_failed_event is not None:
            self._end(event.res_op_failed_event.metadata, failed=True)
        elif event.diagnostic_event is not None:
            self._diagnose(event.diagnostic_event)
        elif event.policy_event is not None:
            policy = event.policy_event
            self._message(policy.enforcement_level, policy.resource_urn, f"{policy.policy_name}: {policy.message}")
        elif event.summary_event is not None:
            self.changes = {str(getattr(op, "value", op)): n for op, n in event.summary_event.resource_changes.items()}

    def _begin(self, metadata: StepEventMetadata) -> None:
        state = metadata.new or metadata.old
        number = _deployment(metadata.new.inputs if metadata.new else None)
        if number is not None:
            self.deployment = max(number, self.deployment or 0)
        words = _WORDS.get(metadata.op)
        if metadata.op in (OpType.CREATE, OpType.CREATE_REPLACEMENT) and metadata.type.endswith(_JOB):
            words = _JOB_WORDS
        if words is None or state is None or not state.custom or metadata.type.startswith("pulumi:providers:"):
            return
        label = _label(metadata.urn)
        if self._planning:
            if metadata.op is not OpType.DELETE_REPLACED:
                self._console.print(Text(f"  {words[2]} {label}"), soft_wrap=True)
            return
        quiet = metadata.op is OpType.DELETE_REPLACED
        running = _Running(label=label, words=words, began=self._clock(), quiet=quiet)
        self._running[metadata.urn] = running
        if not (quiet or self._console.is_terminal):
            self._line(f"{label}: {words[0]}")

    def _end(self, metadata: StepEventMetadata, *, failed: bool) -> None:
        running = self._running.pop(metadata.urn, None)
        if failed:
            self.failed.append(_label(metadata.urn))
        if running is None:
            return
        seconds = self._clock() - running.began
        if running.quiet and not failed and seconds < _QUIET_SECONDS:
            return
        took = duration(seconds)
        self._line(f"{running.label}: {f'FAILED after {took}' if failed else f'{running.words[1]} in {took}'}")

    def _diagnose(self, event: DiagnosticEvent) -> None:
        # Debug messages quote what is registered, secrets included.
        if event.severity == "debug":
            return
        message = _COLOUR_TAG.sub("", event.message).strip()
        if not message:
            return
        running = self._running.get(event.urn or "")
        if event.ephemeral:
            if running is not None:
                running.detail = message.splitlines()[0]
            return
        if event.severity == "warning" and _PENDING in message:
            self.pending = True
            self._line("an earlier update was killed; what it had begun is adopted")
            return
        self._message(event.severity, event.urn, message)

    def _message(self, severity: str, urn: str | None, message: str) -> None:
        about = f"{_label(urn)}: " if urn and "pulumi:pulumi:Stack" not in urn else ""
        text = f"{about}{message}"
        if severity in ("error", "mandatory"):
            self.errors.append(text)
        prefix = "" if severity.startswith("info") else f"{severity}: "
        first, *rest = text.expandtabs(2).splitlines()
        # The provider repeats the log that the error hook has just shown.
        new = [line for line in rest if line.strip() and line.strip() not in self._said]
        self._said.update(line.strip() for line in rest)
        self._line("\n".join([f"{prefix}{first}", *(f"          {line}" for line in new)]))

    def _line(self, text: str) -> None:
        self._console.print(Text(f"{duration(self.elapsed):>9} {text}"), soft_wrap=True)

    def _standing(self, running: _Running, now: float) -> str:
        detail = f" ({running.detail})" if running.detail else ""
        return f"{running.label}: {running.words[0]} … {duration(now - running.began)}{detail}"

    def _live_lines(self) -> Text:
        with self._lock:
            now = self._clock()
            lines = [f"{duration(self.elapsed):>9} {self._standing(item, now)}" for item in self._running.values()]
            return Text("\n".join(lines) or f"{duration(self.elapsed):>9} …", overflow="ellipsis", no_wrap=True)


def _label(urn: str) -> str:
    """`migrate (Job)` of a resource's URN."""
    kinds, _, name = urn.rpartition("::")
    return f"{name} ({kinds.rpartition(':')[2]})"


def _deployment(inputs: Mapping[str, Any] | None) -> int | None:
    """The deployment's number on a step's Job, None on everything else."""
    metadata = (inputs or {}).get("metadata")
    labels = metadata.get("labels") if isinstance(metadata, Mapping) else None
    number = labels.get(LABEL_DEPLOYMENT) if isinstance(labels, Mapping) else None
    return int(number) if isinstance(number, str) and number.isdigit() else None

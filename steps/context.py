"""What every step gets: who it is, its log, its clock, its result; and how secrets stay out of all of them.

Leaves to others: reading the environment and the end of a step (`steps.runner`).
"""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

from steps.errors import StepError
from steps.kube import Cluster, client
from steps.results import LOG_BYTES
from steps.vocabulary import Step

HIDDEN = "***"
_URL_PASSWORD = re.compile(r"(?P<before>[a-zA-Z][a-zA-Z0-9+.-]*://[^\s:/@]*:)[^\s/]*(?=@)")
_KEYWORD_PASSWORD = re.compile(
    r"(?P<before>\bpass(?:word|wd|file)?\s*=\s*)(?:'(?:[^'\\]|\\.)*'|[^\s&;,'\"]+)", re.IGNORECASE
)
# Hiding a shorter one would tear holes into unrelated words; inside a connection string it is hidden all the same.
_SHORTEST_SECRET = 4


class Redactor:
    """Takes secrets out of text: every one it was told, and whatever looks like a password in a connection string."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def learn(self, secret: str) -> None:
        """Remembers a secret, also as it looks inside a URL."""
        for form in {secret, quote(secret, safe=""), quote(secret), unquote(secret)}:
            if len(form) >= _SHORTEST_SECRET:
                self._secrets.add(form)

    def text(self, text: str) -> str:
        """The text without secrets."""
        # The longest first: one secret may be part of another.
        for secret in sorted(self._secrets, key=len, reverse=True):
            text = text.replace(secret, HIDDEN)
        text = _URL_PASSWORD.sub(rf"\g<before>{HIDDEN}", text)
        return _KEYWORD_PASSWORD.sub(rf"\g<before>{HIDDEN}", text)

    def value(self, value: Any) -> Any:
        """JSON data without secrets."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value


class Log:
    """Lines `HH:MM:SS step message` for people, kept for the result as they were printed; UTC."""

    def __init__(self, step: str, redactor: Redactor, *, stream: TextIO | None = None) -> None:
        self._step = step
        self._redactor = redactor
        self._stream = stream or sys.stdout
        self._lines: deque[str] = deque()
        self._bytes = 0

    def __call__(self, message: str) -> None:
        """Prints every line of a message."""
        clock = datetime.now(UTC).strftime("%H:%M:%S")
        for line in self._redactor.text(message).splitlines() or [""]:
            text = f"{clock} {self._step} {line}\n"
            self._keep(text)
            self._stream.write(text)
        self._stream.flush()

    def _keep(self, line: str) -> None:
        self._lines.append(line)
        self._bytes += len(line.encode())
        while self._bytes > LOG_BYTES and len(self._lines) > 1:
            self._bytes -= len(self._lines.popleft().encode())

    @property
    def text(self) -> str:
        """The last 64 KiB."""
        return "".join(self._lines)


@dataclass(kw_only=True)
class Context:
    """One run of one step; `checkpoint` writes what is known so far into the result, for a step that can go on."""

    step: Step
    environment: str
    deployment: int
    version: str
    records_namespace: str
    namespace: str
    pod: str
    log: Log
    redactor: Redactor
    connect_cluster: Callable[[], Cluster] = lambda: Cluster(client())
    checkpoint: Callable[[Mapping[str, Any]], None] = lambda data: None
    junit: str | None = None
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    @cached_property
    def cluster(self) -> Cluster:
        """The Kubernetes API; connected when first used. Raises ClusterError when there is none."""
        return self.connect_cluster()

    def secret(self, path: str, what: str) -> str:
        """A secret's file without the newline at its end; from here on the log hides it.

        Raises StepError when the file is missing or empty.
        """
        value = self.read(path, what).rstrip("\r\n")
        if not value:
            raise StepError(f"{what}: the file {path} is empty; put the value into the Secret it is mounted from")
        self.redactor.learn(value)
        return value

    def read(self, path: str, what: str) -> str:
        """A text file. Raises StepError when it cannot be read."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise StepError(
                f"{what}: the file {path} cannot be read ({error}); check the volume it is mounted from"
            ) from error

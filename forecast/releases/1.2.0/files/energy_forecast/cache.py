"""Answers of the last second, so that many clients asking for the same forecast cost one."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from energy_forecast.errors import Unavailable
from energy_forecast.messages import ForecastMessage

SECONDS = 1.0
# An answer of a week with its interval is about 40 kB; together they stay small beside the process.
MOST = 50

Key = tuple[str, ...]


class AnswerCache:
    """At most `MOST` answers, none older than `SECONDS`."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that never go back."""
        self._clock = clock
        self._answers: OrderedDict[Key, tuple[float, ForecastMessage]] = OrderedDict()

    def get(self, key: Key) -> tuple[float, ForecastMessage] | None:
        """(age in seconds, answer), or None."""
        self._expire()
        if key not in self._answers:
            return None
        kept, answer = self._answers[key]
        return self._clock() - kept, answer

    def put(self, key: Key, answer: ForecastMessage) -> None:
        """Keep an answer. Raises `Unavailable` when there is no room."""
        self._expire()
        if key not in self._answers and len(self._answers) >= MOST:
            raise Unavailable(f"the cache of answers is full: {MOST} within {SECONDS:g} s")
        self._answers[key] = (self._clock(), answer)

    def _expire(self) -> None:
        while self._answers:
            kept, _ = next(iter(self._answers.values()))
            if self._clock() - kept < SECONDS:
                return
            self._answers.popitem(last=False)

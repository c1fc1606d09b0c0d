"""Delays between attempts: growing to a bound, with jitter, so that what failed together comes back apart."""

from __future__ import annotations

import random
from collections.abc import Iterator


def delays(first: float, longest: float, factor: float = 2.0) -> Iterator[float]:
    """Seconds to wait before each further attempt, without end; half to all of the nominal delay."""
    delay = first
    while True:
        yield delay * random.uniform(0.5, 1.0)  # noqa: S311 - it spreads attempts and guards no secret
        delay = min(delay * factor, longest)

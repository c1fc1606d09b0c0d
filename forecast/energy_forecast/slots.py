"""The half-hour grid: a moment is a whole number of half hours since 1970-01-01T00:00Z (a *slot*).

Only conversion; what a client may send is checked in `messages`.
"""

from __future__ import annotations

from datetime import UTC, datetime

SECONDS = 1800
DAY = 48
WEEK = 336

_MONDAY = int(datetime(1970, 1, 5, tzinfo=UTC).timestamp()) // SECONDS


def slot_of(moment: datetime) -> int:
    """The slot that `moment` (aware) lies in."""
    return int(moment.timestamp()) // SECONDS


def moment_of(slot: int) -> datetime:
    """The start of `slot`, in UTC."""
    return datetime.fromtimestamp(slot * SECONDS, UTC)


def slot_of_week(slot: int) -> int:
    """Half hours since Monday 00:00 UTC, 0 to 335."""
    return (slot - _MONDAY) % WEEK

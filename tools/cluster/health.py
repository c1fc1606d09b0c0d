"""Whether a component is well: one question over HTTP, and what a row of answers means.

Asking is `probe`; `Judge` is pure and told the time, so every rule can be tested. Acting on it is the supervisor's.
"""

from __future__ import annotations

import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from enum import StrEnum

PROBE_SECONDS = 5.0
_UNANSWERED_SECONDS = 25.0
_UNWELL_SECONDS = 90.0
_START_SECONDS = 240.0


class Answer(StrEnum):
    """What a component said to one question."""

    WELL = "well"
    UNWELL = "unwell"
    NONE = "none"


class Verdict(StrEnum):
    """What follows from the answers so far."""

    STARTING = "starting"
    READY = "ready"
    UNREADY = "unready"
    HUNG = "hung"


@dataclass(kw_only=True)
class Judge:
    """Judges one life of one process, from `started` (monotonic seconds) on.

    It is hung when it gave no answer for 25 s, was unwell for 90 s, or never got well within four minutes: generous,
    because a machine busy with builds is slow, and a restart makes it slower.
    """

    started: float
    well_at: float | None = None
    answered_at: float | None = None

    def hear(self, answer: Answer, now: float) -> Verdict:
        """Take an answer given at `now` into account."""
        if answer is Answer.WELL:
            self.well_at = self.answered_at = now
            return Verdict.READY
        if answer is Answer.UNWELL:
            self.answered_at = now
        if self.well_at is None:
            return Verdict.HUNG if now - self.started > _START_SECONDS else Verdict.STARTING
        silent = now - (self.answered_at or self.well_at)
        if silent > _UNANSWERED_SECONDS or now - self.well_at > _UNWELL_SECONDS:
            return Verdict.HUNG
        return Verdict.UNREADY


def probe(url: str) -> Answer:
    """Ask once; takes at most about five seconds."""
    try:
        with _opener.open(url, timeout=PROBE_SECONDS) as response:
            response.read()
            return Answer.WELL
    except urllib.error.HTTPError as error:
        error.close()
        return Answer.UNWELL
    except (OSError, http.client.HTTPException):
        return Answer.NONE


def _make_opener() -> urllib.request.OpenerDirector:
    # loopback of our own network namespace: nobody else can listen there, and some components sign for themselves
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))


_opener = _make_opener()

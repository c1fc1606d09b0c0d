"""The root of all errors of this project and the few kinds the steps raise; who shows them decides exit codes."""

from __future__ import annotations

from collections.abc import Mapping


class ReleaseError(Exception):
    """What a person can read and act on: says what is wrong, where, and what mends it. Never carries a secret."""


class RecordError(ReleaseError):
    """A record cannot be read, opened or closed as asked."""


class ClusterError(ReleaseError):
    """The Kubernetes API did not do what a step or the command line needs."""


class StepError(ReleaseError):
    """A step did its work and the answer is no; the message is the reason shown to people."""

    def __init__(self, message: str, *, data: Mapping[str, object] | None = None) -> None:
        """`data` is what was measured until then; the runner writes it into the result beside the reason."""
        super().__init__(message)
        self.data: Mapping[str, object] = data or {}


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGINT arrived.

    A KeyboardInterrupt, because the database driver cancels the running statement on the server for that one only.
    """

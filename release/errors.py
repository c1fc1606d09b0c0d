"""The one family of errors that this project raises on purpose.

The root comes from `steps`, which may import nothing of the others. Only the command line turns an error into text and
an exit code; everything else raises it or passes it on.
"""

from __future__ import annotations

from collections.abc import Sequence

from steps.errors import ClusterError, RecordError, ReleaseError

__all__ = [
    "ClusterError",
    "ManifestError",
    "ProblemsError",
    "RecordError",
    "ReleaseError",
    "SettingsError",
    "UsageError",
]


class UsageError(ReleaseError):
    """What was typed cannot be meant: an unknown environment, version or option (exit code 2)."""


class ProblemsError(ReleaseError):
    """Several problems found in one go.

    `problems` keeps them one a line, so that a caller can show or count them; the text is `title` and the lines.
    """

    def __init__(self, title: str, problems: Sequence[str]) -> None:
        self.title = title
        self.problems = tuple(problems)
        super().__init__("\n".join([f"{title}:", *(f"  - {problem}" for problem in self.problems)]))


class ManifestError(ProblemsError):
    """A release folder that cannot be deployed: each line names the file, the key and the rule."""


class SettingsError(ProblemsError):
    """A stack configuration that cannot be used: each line gives key, value, rule and the command that mends it."""

"""The one error of the tools. Turning it into text and an exit code is left to the command lines."""

from __future__ import annotations

from release.errors import ReleaseError


class ToolError(ReleaseError):
    """Something on this machine stops a tool: the text says what is wrong, where, and what command mends it."""

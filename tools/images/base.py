"""The root file system that images start from when there is no Docker: what `debian:12-slim` is, made on this machine.

Made once with mmdebstrap from the machine's own apt sources and kept in the builder's storage; it does not change by
itself. `refresh()` makes it anew with today's packages, after which every image is built anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

from tools.errors import ToolError
from tools.images import sandbox, sources
from tools.paths import IMAGES
from tools.progress import phase

_STATE = IMAGES / "base.json"
# As in the official slim image: no documentation, nor translations.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*")
_KEPT = ("/usr/share/doc/*/copyright",)
_HOOKS = (
    'rm -rf "$1"/var/log/* "$1"/var/cache/ldconfig "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*',
    'rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf "$1"/etc/hostname',
)


def identity() -> str | None:
    """The hash (64 hex digits) of the root file system that images are built from, or None before there is one."""
    try:
        state = json.loads(_STATE.read_text())
    except (FileNotFoundError, ValueError):
        return None
    current = isinstance(state, dict) and state.get("recipe") == _recipe()
    return str(state["sha256"]) if current else None


def refresh() -> None:
    """Forget the root file system, so that the next build makes one with today's packages."""
    _STATE.unlink(missing_ok=True)


def make(folder: Path, apt: sources.Sources) -> str:
    """Make the root file system in `folder`, with a Dockerfile that imports it, and give its identity.

    Raises ToolError when it cannot be made.
    """
    archive = folder / "root.tar"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with phase("Base root file system", estimate=25) as current:
        command = [*_command(), f"--aptopt={apt.settings_file}", sources.SUITE, str(archive), str(apt.list_file)]
        # mmdebstrap then sets every time in the archive to this, so that equal packages give an equal archive.
        sandbox.run(command, log="image-base", environment={"SOURCE_DATE_EPOCH": "1"}, line=current.detail)
        with archive.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if archive.stat().st_size < 10_000_000:
            raise ToolError(f"mmdebstrap made only {archive.stat().st_size} bytes of root file system: see its log.")
        current.note(f"{archive.stat().st_size / 1e6:.0f} MB")
    (folder / "Dockerfile").write_text('FROM scratch\nADD root.tar /\nCMD ["bash"]\n')
    _STATE.write_text(json.dumps({"recipe": _recipe(), "sha256": digest}))
    return digest


def _command() -> list[str]:
    command = ["mmdebstrap", "--variant=apt", "--format=tar"]
    command += [f"--dpkgopt=path-exclude={path}" for path in _LEFT_OUT]
    command += [f"--dpkgopt=path-include={path}" for path in _KEPT]
    return command + [f"--customize-hook={hook}" for hook in _HOOKS]


def _recipe() -> str:
    return hashlib.sha256(json.dumps([_command(), sources.SUITE, sources.architecture()]).encode()).hexdigest()

"""The hash of everything that makes a deployment what it is.

Two updates with the same hash are the same deployment: the second adopts what the first began, or changes nothing.
Secrets, the kube-context, the folder's path and storage sizes stay outside, so that a rotated password or a moved
checkout does not run a release again.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from release.errors import ReleaseError
from release.manifest import Release
from release.settings import Settings, shaping


def program_digest(root: Path) -> str:
    """Hash of the program in `root`: `__main__.py`, `components/` and what decides in `release/` (64 hex digits).

    The command line only watches, so it is no part of it.

    Raises ReleaseError when `root` is no project folder.
    """
    files = [
        root / "__main__.py",
        *sorted((root / "components").rglob("*.py")),
        *sorted((root / "release").glob("*.py")),
    ]
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise ReleaseError(f"{file}: the program cannot be read ({error.strerror}); is this its folder?") from error
        # Name and length go in as well: moving text from one file into the next is a change.
        digest.update(f"{file.relative_to(root).as_posix()}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def digest(release: Release, settings: Settings, *, program: str) -> str:
    """The deployment's hash (64 hex digits) of manifest, flags, shaping settings and `program` (program_digest)."""
    parts = {
        "format": 1,
        "manifest": release.sha256,
        "flags": release.manifest.flags.sha256,
        "settings": shaping(settings),
        "program": program,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

"""What goes into one image: a folder with a Dockerfile, and labels; its hash, and a clean copy of the folder.

How it is built is left to `embedded` and `docker`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tools.errors import ToolError

_LEFT_OUT = ("__pycache__",)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An image to build: `context` holds the Dockerfile, and requirements.txt where Python packages are needed."""

    name: str
    context: Path
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a folder without a Dockerfile: ToolError."""
        if not (self.context / "Dockerfile").is_file():
            raise ToolError(f"{self.context} holds no Dockerfile, so the image {self.name} cannot be built from it.")

    @property
    def requirements(self) -> Path | None:
        """The pinned Python packages, or None where the image has none."""
        file = self.context / "requirements.txt"
        return file if file.is_file() else None

    def files(self) -> list[Path]:
        """Every file of the context, relative to it and sorted, without what Python leaves behind."""
        found = (path.relative_to(self.context) for path in self.context.rglob("*") if path.is_file())
        return sorted(path for path in found if not any(part in _LEFT_OUT for part in path.parts))

    def digest(self, *more: str) -> str:
        """The hash (64 hex digits) of all that goes in: files with their execute bits, labels, and `more`."""
        sums = {}
        for path in self.files():
            content = hashlib.sha256((self.context / path).read_bytes()).hexdigest()
            sums[path.as_posix()] = f"{_mode(self.context / path):o} {content}"
        document = json.dumps([self.name, sums, dict(self.labels), more], sort_keys=True)
        return hashlib.sha256(document.encode()).hexdigest()

    def copy_to(self, folder: Path) -> None:
        """Copy the context to `folder`, emptied first.

        The modes are set, since those in a clone depend on the user's umask and would change the layers' digests.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o755)
        for path in self.files():
            target = folder / path
            for parent in reversed(target.relative_to(folder).parents[:-1]):
                (folder / parent).mkdir(exist_ok=True)
                (folder / parent).chmod(0o755)
            shutil.copyfile(self.context / path, target)
            target.chmod(_mode(self.context / path))


def _mode(path: Path) -> int:
    return 0o755 if path.stat().st_mode & 0o100 else 0o644

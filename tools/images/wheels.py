"""Python wheels for the images, downloaded on this machine by hash into a folder per requirements file.

pip's own settings on this machine decide where they come from. Installing them is left to the Dockerfiles.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.errors import ToolError
from tools.paths import IMAGES, display
from tools.progress import phase

PYTHON = "3.11"
# Debian 12 has glibc 2.36; pip takes every platform by name.
_GLIBC = 36


def ensure(requirements: Path, name: str) -> Path:
    """The folder with every wheel that `requirements` (pinned, with hashes) names, for the image `name`.

    Raises ToolError with pip's own words when one cannot be had as a wheel.
    """
    key = hashlib.sha256(requirements.read_bytes() + platform.machine().encode()).hexdigest()[:16]
    folder = IMAGES / "wheels" / key
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with phase(f"Python wheels of {name}") as current:
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f"{key}."))
        try:
            done = subprocess.run(command(requirements, partial), capture_output=True, text=True, check=False)
            if done.returncode != 0:
                last = "\n".join(done.stderr.strip().splitlines()[-6:])
                raise ToolError(
                    f"pip cannot download the wheels that {display(requirements)} pins:\n{last}\n"
                    f"Check the package index that pip uses: {sys.executable} -m pip config list"
                )
            partial.chmod(0o755)
            current.note(f"{sum(1 for _ in partial.iterdir())} wheels")
            partial.rename(folder)
        except OSError:
            # Another process was first: a folder that is there is whole.
            if not folder.is_dir():
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return folder


def command(requirements: Path, target: Path) -> list[str]:
    """pip's command line; independent of the Python that runs it."""
    machine = platform.machine()
    names = [f"manylinux_2_{minor}_{machine}" for minor in range(_GLIBC, 4, -1)]
    names += [f"{name}_{machine}" for name in ("manylinux2014", "manylinux2010", "manylinux1")]
    arguments = [sys.executable, "-m", "pip", "download", "--quiet", "--require-hashes", "--only-binary=:all:"]
    arguments += ["--no-deps", "--implementation", "cp", "--python-version", PYTHON]
    arguments += [part for name in names for part in ("--platform", name)]
    return [*arguments, "--dest", os.fspath(target), "--requirement", os.fspath(requirements)]

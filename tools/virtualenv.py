"""Makes `.venv`: the pinned packages, the project importable in it, and the command `release`.

Runs with the machine's own Python before anything is installed, hence the standard library only. What is installed
is left to the requirements files; a second call costs nothing until one of them changes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tools import command, lock, paths
from tools.errors import ToolError
from tools.progress import phase

FOR_RELEASES = ("requirements.txt", "forecast/requirements.txt")
FOR_TESTS = (*FOR_RELEASES, "requirements-dev.txt")


def ensure(requirements: Sequence[str], *, root: Path = paths.ROOT, venv: Path = paths.VENV) -> None:
    """Install the requirements files (paths below `root`) into `venv`, making it where it is missing or broken.

    Raises ToolError with pip's own last lines when that fails.
    """
    wanted = {name: _key(root / name, root) for name in requirements}
    if wanted.items() <= _installed(venv).items():
        return
    with lock.hold(paths.LOCAL / "venv.lock", wait=True):
        if not _works(venv):
            with phase(f"make {paths.display(venv)}"):
                _make(venv)
        installed = _installed(venv)
        if wanted.items() <= installed.items():
            return
        _stamp(venv).unlink(missing_ok=True)
        with phase(f"install {', '.join(requirements)}"):
            arguments = [argument for name in requirements for argument in ("-r", str(root / name))]
            _pip(venv, ["install", "--quiet", "--disable-pip-version-check", "--require-hashes", *arguments])
        _import_project(venv, root)
        stamp = "".join(f"{name} {key}\n" for name, key in sorted({**installed, **wanted}.items()))
        _stamp(venv).write_text(stamp, encoding="utf-8")


def _key(file: Path, root: Path) -> str:
    if not file.is_file():
        raise ToolError(f"{file} is missing: it pins the packages to install. Restore it: git checkout {file}")
    digest = hashlib.sha256(file.read_bytes())
    # A virtual environment belongs to one Python and to one place.
    digest.update(f"{sys.version_info[:2]} {root}".encode())
    return digest.hexdigest()


def _stamp(venv: Path) -> Path:
    return venv / "requirements.stamp"


def _installed(venv: Path) -> dict[str, str]:
    """The requirements files that are installed, with their keys; none when the stamp is missing or unreadable."""
    with contextlib.suppress(OSError, ValueError):
        lines = _stamp(venv).read_text(encoding="utf-8").splitlines()
        return {name: key for name, key in (line.rsplit(" ", 1) for line in lines)}
    return {}


def _works(venv: Path) -> bool:
    """Whether the environment's Python starts, has this Python's version, and has pip."""
    ask = "import pip, sys; print(sys.version_info[:2])"
    try:
        done = subprocess.run([venv / "bin/python", "-c", ask], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return False
    return done.stdout.strip() == str(sys.version_info[:2])


def _make(venv: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "venv", "--clear", venv], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(
            f"{sys.executable} -m venv {venv} failed:\n{(done.stdout + done.stderr).strip()}\nPython's venv module "
            "with pip is needed (Debian and Ubuntu: apt install python3-venv); another Python: make PYTHON=python3.12 …"
        )


def _pip(venv: Path, arguments: Sequence[str]) -> None:
    done = subprocess.run(
        [venv / "bin/python", "-m", "pip", *arguments], capture_output=True, text=True, check=False, cwd=venv
    )
    if done.returncode != 0:
        tail = "\n".join(f"  {line}" for line in (done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ToolError(
            f"pip could not install the packages into {venv}; its last lines:\n{tail}\n"
            f"Check the package index that pip uses ({venv}/bin/python -m pip config list), then run the command again."
        )


def _import_project(venv: Path, root: Path) -> None:
    """Make the project importable and put `release` beside the environment's Python.

    An editable install would need a build backend of its own in the environment; a path file and six lines do not.
    """
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    done = subprocess.run([venv / "bin/python", "-c", ask], capture_output=True, text=True, check=True)
    Path(done.stdout.strip(), "energy-forecast-release.pth").write_text(
        f"{root}\n{root / 'forecast'}\n", encoding="utf-8"
    )
    launcher = venv / "bin/release"
    code = "import sys; sys.argv[0] = 'release'; from release.cli import main; sys.exit(main())"
    # By way of sh: the path in a #! line is cut off at 127 characters. -P keeps the current folder off sys.path.
    launcher.write_text(
        f'#!/bin/sh\nexec {shlex.quote(str(venv / "bin/python"))} -P -c {shlex.quote(code)} "$@"\n', encoding="utf-8"
    )
    launcher.chmod(0o755)


def main() -> None:
    """Make or complete the virtual environment."""
    parser = argparse.ArgumentParser(prog="python3 -m tools.virtualenv", description=__doc__)
    parser.add_argument("--tests", action="store_true", help="also what the tests need")
    ensure(FOR_TESTS if parser.parse_args().tests else FOR_RELEASES)


if __name__ == "__main__":
    command.run(main)

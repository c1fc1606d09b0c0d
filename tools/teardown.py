"""`make down` and `make clean`: stop the embedded cluster, or remove all that the project made on this machine.

What the cluster made outside its folder (processes, mounts, interfaces, rules) is removed by `tools.cluster`.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from release.errors import UsageError
from tools import cluster, command, lock, paths
from tools.errors import ToolError
from tools.progress import phase, say

MOUNTS = Path("/proc/self/mountinfo")

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, rich_markup_mode=None)


@app.command()
def down() -> None:
    """Stop the embedded cluster; its data stays, and `make up` goes on with it.

    Example: python -m tools.teardown down
    """
    with lock.hold(paths.UP_LOCK, command="make down"):
        _stop()


@app.command()
def clean(yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False) -> None:
    """Remove the embedded cluster, its data, all state, secrets, releases and built tools: the whole local folder.

    The virtual environment (.venv) and Go's own caches stay. On a terminal it asks first.

    Example: python -m tools.teardown clean --yes
    """
    if not paths.LOCAL.exists():
        # A node whose folder was deleted by hand goes on running until it is ended.
        cluster.clean()
        say(f"nothing else to remove: there is no {paths.display(paths.LOCAL)}")
        return
    if not yes and sys.stdin.isatty():
        _ask()
    with lock.hold(paths.UP_LOCK, command="make clean"):
        cluster.clean()
        with phase(f"remove {paths.display(paths.LOCAL)}"):
            _remove(paths.LOCAL)
    say(".venv stays; remove it by hand when you want that too: rm -r .venv")


def stop_if_up() -> None:
    """Stop the embedded cluster where it runs; its data stays."""
    if cluster.is_up():
        _stop()


def _stop() -> None:
    with phase("stop the embedded cluster"):
        cluster.down()


def _remove(folder: Path) -> None:
    for kept in (paths.ROOT, Path.home()):
        if kept.is_relative_to(folder):
            raise ToolError(
                f"RELEASE_LOCAL is {folder}, which holds {kept} too: remove what is not wanted there by hand."
            )
    mounted = mounts_below(folder, MOUNTS.read_text(encoding="utf-8") if MOUNTS.exists() else "")
    if mounted:
        # Removing would go on into whatever is mounted there, which need not be the project's.
        raise ToolError(
            f"something is still mounted below {folder}, so it is not removed: {', '.join(mounted)}. "
            "Unmount it (umount PATH), then run make clean again."
        )
    try:
        shutil.rmtree(folder)
    except PermissionError as error:
        raise ToolError(f"{error.filename} belongs to another user, probably root: sudo rm -r {folder}") from error


def mounts_below(folder: Path, mountinfo: str) -> list[str]:
    """The mount points at or below `folder` in the text of /proc/self/mountinfo."""
    points = [line.split(" ")[4] for line in mountinfo.splitlines() if line]
    # A space and the like are written as a backslash and three octal digits.
    named = [Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), point)) for point in points]
    return [str(point) for point in named if point.is_relative_to(folder)]


def _ask() -> None:
    found = [path for path in (paths.STATE, paths.CLUSTER, paths.STACKS, paths.RELEASES) if path.exists()]
    names = ", ".join(paths.display(path) for path in found) or "no data"
    if not typer.confirm(f"This deletes {paths.display(paths.LOCAL)} with {names}. Go on?", err=True):
        raise UsageError("nothing was removed")


if __name__ == "__main__":
    command.run(app)

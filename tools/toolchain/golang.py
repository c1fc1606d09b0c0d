"""Whether this machine's Go can build the pinned modules. The user's Go settings are read, never changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.errors import ToolError

NEEDED = (1, 26)
# The first Go that can fetch a newer toolchain by itself.
FETCHING = (1, 21)
USUAL_PLACE = Path("/usr/local/go/bin/go")

_INSTALL = (
    "Install Go 1.26 or newer (https://go.dev/doc/install) and put its bin folder on PATH; an older Go from 1.21 on "
    "will do when it may fetch its own toolchain (`go env -w GOTOOLCHAIN=auto`)."
)


@dataclass(frozen=True, kw_only=True)
class Go:
    """A Go command that was found: its path and the version it has outside of any module."""

    executable: Path
    version: str


def find_go(environ: Mapping[str, str] = os.environ) -> Go:
    """The Go command to build with; raises ToolError that says what to install when there is none that will do."""
    found = shutil.which("go", path=environ.get("PATH"))
    if found is None and not os.access(USUAL_PLACE, os.X_OK):
        raise ToolError(f"There is no `go` on PATH, and the toolchain has to be built. {_INSTALL}")
    executable = Path(found) if found else USUAL_PLACE
    # In an empty folder no go.mod can make an older Go fetch the newer one already for this question.
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [executable, "env", "-json", "GOVERSION", "GOTOOLCHAIN"],
                cwd=folder,
                env={**environ, "GOWORK": "off"},
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
            answer = json.loads(done.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            said = (getattr(error, "stderr", None) or str(error)).strip()
            raise ToolError(f"{executable} does not work: {said}\n{_INSTALL}") from error
    problem = refusal(answer["GOVERSION"], answer["GOTOOLCHAIN"])
    if problem:
        raise ToolError(f"{executable} {problem}. {_INSTALL}")
    return Go(executable=executable, version=answer["GOVERSION"])


def refusal(version: str, toolchain: str) -> str | None:
    """Why a Go of this GOVERSION and GOTOOLCHAIN cannot build the modules, or None when it can.

    A development version (`devel …`) has no number and is taken as new enough.
    """
    match = re.match(r"go(\d+)\.(\d+)", version)
    if match is None:
        return None if version.startswith("devel") else f"says the version {version!r}, which is none of Go's"
    number = (int(match[1]), int(match[2]))
    if number >= NEEDED:
        return None
    if number < FETCHING:
        return f"is {version}, too old to build the toolchain and to fetch a newer Go"
    if toolchain in {"auto", "path"} or toolchain.endswith(("+auto", "+path")):
        return None
    return f"is {version} and may not fetch a newer one (GOTOOLCHAIN is {toolchain!r})"

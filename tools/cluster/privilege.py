"""Whether this process may run a node here, and how it becomes root when it is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

from tools.errors import ToolError
from tools.paths import LOCAL, ROOT

ELSEWHERE = (
    "Or use another cluster: make one (`kind create cluster`, `k3d cluster create`, or any other), see its name with "
    "`kubectl config get-contexts`, and point the stack at it: `pulumi config set kubernetes:context kind-kind` "
    "(KUBECONFIG counts too)."
)


def demand_linux() -> None:
    """Raise ToolError anywhere but on Linux."""
    if not sys.platform.startswith("linux"):
        raise ToolError(f"the embedded cluster runs on Linux only, this is {sys.platform}. {ELSEWHERE}")


def is_root() -> bool:
    """Whether this process is root."""
    return os.geteuid() == 0


def as_root(arguments: Sequence[str]) -> None:
    """Run `python -m tools.cluster` with these arguments by sudo, when sudo asks nothing; else raise ToolError."""
    demand_linux()
    command = [
        *("env", f"RELEASE_LOCAL={LOCAL}", f"PYTHONPATH={ROOT}"),
        *(sys.executable, "-m", "tools.cluster", *arguments),
    ]
    sudo = shutil.which("sudo")
    if sudo is None:
        raise ToolError(f"the embedded cluster needs root, and there is no sudo: run this as root. {ELSEWHERE}")
    if subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode != 0:
        raise ToolError(
            "the embedded cluster needs root, and sudo wants a password here. Run `sudo -v` and then the same command "
            f"again. {ELSEWHERE}"
        )
    done = subprocess.run([sudo, "-n", *command], cwd=ROOT, check=False)
    if done.returncode != 0:
        raise ToolError(f"`sudo python -m tools.cluster {' '.join(arguments)}` failed, see above.")

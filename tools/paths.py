"""Where everything of this project lies on this machine. What is in the folders is left to the tools that fill them.

All of it is in one git-ignored folder, `.local` at the root of the clone, or the folder that the environment variable
RELEASE_LOCAL names (read once, when this module is imported).
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCAL = Path(os.environ.get("RELEASE_LOCAL") or ROOT / ".local").expanduser().resolve()

VENV = ROOT / ".venv"
TOOLCHAIN = LOCAL / "toolchain"
TOOLCHAIN_BIN = TOOLCHAIN / "bin"
DEBIAN = LOCAL / "debian"
CLUSTER = LOCAL / "cluster"
KUBECONFIG = CLUSTER / "kubeconfig"
IMAGES = LOCAL / "images"
PULUMI_HOME = LOCAL / "pulumi"
STATE = LOCAL / "state"
PASSPHRASE = LOCAL / "passphrase"
RELEASES = LOCAL / "releases"
STACKS = LOCAL / "stacks"
LOGS = LOCAL / "logs"
UP_LOCK = LOCAL / "up.lock"


def stack_copy(stack: str) -> Path:
    """The git-ignored configuration of a stack on the embedded cluster, whether it exists or not."""
    return STACKS / f"Pulumi.{stack}.yaml"


def stack_file(stack: str) -> Path:
    """The tracked configuration of a stack, whether it exists or not."""
    return ROOT / f"Pulumi.{stack}.yaml"


def display(path: Path) -> str:
    """A path as a person reads it: relative to the root of the clone where it lies inside."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)

"""The user's own `pulumi` and `kubectl`, where they exist in a version that works with this project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import semver

from tools import paths
from tools.toolchain.specs import KUBERNETES_VERSION, PULUMI_VERSION


@dataclass(frozen=True, kw_only=True)
class Found:
    """A command on PATH: `version` is what it says of itself, `refused` why it is not taken (None: it is taken)."""

    executable: Path
    version: str
    refused: str | None = None


def find_pulumi(environ: Mapping[str, str] = os.environ) -> Found | None:
    """The first `pulumi` on PATH that is not one of ours; None when there is none."""
    executable = _which("pulumi", environ)
    if executable is None:
        return None
    said = _ask([str(executable), "version"], {**environ, "PULUMI_SKIP_UPDATE_CHECK": "true"})
    return Found(executable=executable, version=said, refused=pulumi_refusal(said))


def find_kubectl(environ: Mapping[str, str] = os.environ) -> Found | None:
    """The first `kubectl` on PATH that is not one of ours; None when there is none."""
    executable = _which("kubectl", environ)
    if executable is None:
        return None
    said = _ask([str(executable), "version", "--client", "-o", "json"], environ)
    try:
        said = str(json.loads(said)["clientVersion"]["gitVersion"])
    except (ValueError, KeyError, TypeError):
        said = said.partition("\n")[0]
    return Found(executable=executable, version=said, refused=kubectl_refusal(said))


def pulumi_refusal(version: str) -> str | None:
    """Why a pulumi that says this version is not taken, or None: it must be at least ours, of the same major."""
    found, needed = _parse(version), semver.Version.parse(PULUMI_VERSION)
    if found is None:
        return f"gives no version ({version[:80]!r})"
    if found < needed or found.major != needed.major:
        return f"is {version}, needed is {needed} or newer, below {needed.major + 1}"
    return None


def kubectl_refusal(version: str) -> str | None:
    """Why a kubectl that says this version is not taken, or None: one minor version off the cluster's is supported."""
    found, needed = _parse(version), semver.Version.parse(KUBERNETES_VERSION)
    if found is None:
        return f"gives no version ({version[:80]!r})"
    if found.major != needed.major or abs(found.minor - needed.minor) > 1:
        return f"is {version}, needed is {needed.major}.{needed.minor - 1} to {needed.major}.{needed.minor + 1}"
    return None


def _parse(version: str) -> semver.Version | None:
    try:
        return semver.Version.parse(version.strip().removeprefix("v"))
    except ValueError:
        return None


def _which(name: str, environ: Mapping[str, str]) -> Path | None:
    folders = environ.get("PATH", os.defpath).split(os.pathsep)
    # In the project's own shell the toolchain's links come first on PATH: they are not the user's.
    others = [folder for folder in folders if folder and Path(folder) != paths.TOOLCHAIN_BIN]
    found = shutil.which(name, path=os.pathsep.join(others))
    return Path(found) if found else None


def _ask(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """What a command prints, or an empty text when it cannot say: then it is not taken either."""
    try:
        done = subprocess.run(
            command, env=dict(environ), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
    return done.stdout.strip()

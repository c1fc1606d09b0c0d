"""Builds and pushes images with the user's Docker engine, for a registry of the user's own.

The embedded node's registry is not served this way: Docker would have to be told to trust it, and where that node runs
the builder without Docker runs too.
"""

from __future__ import annotations

import os
import shutil
import subprocess

from tools.errors import ToolError
from tools.images.recipe import Recipe
from tools.images.registry import Destination
from tools.images.sandbox import stream
from tools.progress import Phase

_ANSWER_SECONDS = 20


def answers() -> bool:
    """Whether there is a Docker client on PATH with an engine that answers."""
    if shutil.which("docker") is None:
        return False
    command = ["docker", "version", "--format", "{{.Server.Version}}"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def identity() -> str:
    """What images are built from with Docker: the Dockerfiles' own default."""
    return "docker debian:12-slim"


def build(recipe: Recipe, current: Phase) -> str:
    """Build the image and give its id. Raises ToolError with the build's last lines."""
    name = f"{recipe.name}:{recipe.digest(identity())[:16]}"
    command = ["docker", "build", "--progress", "plain", "--tag", name]
    command += [part for label, value in sorted(recipe.labels.items()) for part in ("--label", f"{label}={value}")]
    current.detail("docker build")
    stream([*command, str(recipe.context)], log=f"image-{recipe.name}", environment=_environment(), line=current.detail)
    return name


def push(image: str, destination: Destination, tag: str, current: Phase) -> str:
    """Push an image with the user's credentials; gives the manifest's digest. Raises ToolError when it is refused."""
    name = f"{destination.push_name}:{tag}"
    log = f"push-{destination.name}"
    current.detail("docker push")
    stream(["docker", "tag", image, name], log=log, environment=_environment(), line=current.detail)
    output = stream(["docker", "push", name], log=log, environment=_environment(), line=current.detail)
    for line in reversed(output.splitlines()):
        if line.startswith(f"{tag}: digest: sha256:"):
            return line.split()[2]
    raise ToolError(f"`docker push {name}` named no digest; its output:\n{output.strip()}")


def has(destination: Destination, digest: str) -> bool:
    """Whether the registry still has the manifest; asked with the user's credentials."""
    command = ["docker", "manifest", "inspect", f"{destination.push_name}@{digest}"]
    return subprocess.run(command, capture_output=True, env=_environment(), check=False).returncode == 0


def _environment() -> dict[str, str]:
    # An attestation would make the pushed digest that of an index, different at each build.
    return {**os.environ, "DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}

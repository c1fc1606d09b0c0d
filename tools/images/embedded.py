"""Builds and pushes images without Docker: Debian's buildah with its storage in the folder of local state.

The Dockerfiles are the same as for Docker; what differs comes in from outside: the base image, the apt sources, the
wheels. Times in layers and configuration are zero, so that the same inputs give the same digest.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from tools.errors import ToolError
from tools.images import base, sandbox, sources, wheels
from tools.images.recipe import Recipe
from tools.images.registry import Destination
from tools.paths import IMAGES
from tools.progress import Phase

_SETTINGS = IMAGES / "settings"
_CONTEXTS = IMAGES / "contexts"
_STORAGE = IMAGES / "storage"
_DRIVER = "overlay"


def identity() -> str:
    """What images are built from here: changes when they have to be built anew, and costs one look at a file."""
    return f"embedded {base.identity() or 'none yet'}"


def build(recipe: Recipe, current: Phase) -> str:
    """Build the image and give its id in the builder's storage. Raises ToolError with the build's last lines."""
    _remove_remains()
    apt = sources.write()
    parent = _base(apt)
    context = _CONTEXTS / recipe.name
    recipe.copy_to(context)
    result = IMAGES / f"{recipe.name}.id"
    command = [*_buildah(), "build", *_policy(), "--isolation", "chroot", "--layers", "--timestamp", "0"]
    command += ["--pull-never", "--build-arg", f"BASE={parent}", "--iidfile", str(result)]
    command += ["--volume", f"{apt.lists}:/etc/apt/sources.list.d:ro"]
    # Some packages write here: into an overlay that is thrown away, since they would fail on a read-only folder.
    command += ["--volume", f"{apt.settings}:/etc/apt/apt.conf.d:O"]
    command += [part for name, value in sorted(recipe.labels.items()) for part in ("--label", f"{name}={value}")]
    if recipe.requirements is not None:
        command += [
            "--build-context",
            f"wheels={wheels.ensure(recipe.requirements, recipe.name)}",
            "--build-arg",
            "PIP_NO_INDEX=1",
        ]
    current.detail("build")
    _run([*command, str(context)], f"image-{recipe.name}", lambda line: _show(current, line))
    return result.read_text().strip()


def push(image: str, destination: Destination, tag: str, current: Phase) -> str:
    """Push an image by its id; gives the manifest's digest. Raises ToolError when the registry refuses it."""
    result = IMAGES / f"{destination.repository.replace('/', '_')}.digest"
    command = [*_buildah(), "push", *_policy(), "--digestfile", str(result), *destination.client_options()]
    current.detail("push")
    log = f"push-{destination.name}"
    _run([*command, image, f"docker://{destination.push_name}:{tag}"], log)
    return result.read_text().strip()


def has(destination: Destination, digest: str) -> bool:
    """Whether a registry that is not the embedded one still has the manifest; asked with the user's credentials."""
    name = f"docker://{destination.push_name}@{digest}"
    command = ["skopeo", "inspect", "--raw", *destination.client_options(), name]
    try:
        _run(command, "registry")
    except ToolError:
        return False
    return True


def _remove_remains() -> None:
    # Of a build that was killed: its temporary files, and containers that would pin layers for ever.
    shutil.rmtree(sandbox.SCRATCH, ignore_errors=True)
    if (_STORAGE / "overlay-containers").is_dir():
        _run([*_buildah(), "rm", "--all"], "image-remains")


def _base(apt: sources.Sources) -> str:
    known = base.identity()
    if known is not None and _in_storage(_base_name(known)):
        return _base_name(known)
    folder = IMAGES / "base"
    name = _base_name(base.make(folder, apt))
    _run([*_buildah(), "build", *_policy(), "--timestamp", "0", "--tag", name, str(folder)], "image-base-import")
    (folder / "root.tar").unlink()
    return name


def _base_name(identity: str) -> str:
    return f"localhost/base:{identity[:12]}"


def _in_storage(name: str) -> bool:
    try:
        _run([*_buildah(), "inspect", "--type", "image", "--format", "{{.FromImageID}}", name], "image-look")
    except ToolError:
        return False
    return True


def _show(current: Phase, line: str) -> None:
    if "STEP " in line:
        current.detail(line.partition("STEP ")[2][:100])


def _run(command: list[str], log: str, line: Callable[[str], None] = sandbox.silent) -> str:
    _write_settings()
    return sandbox.run(command, log=log, environment=_environment(), line=line)


def _buildah() -> list[str]:
    return ["buildah", "--storage-driver", _DRIVER, "--root", str(_STORAGE), "--runroot", str(sandbox.run_folder())]


def _policy() -> list[str]:
    return ["--signature-policy", str(_SETTINGS / "policy.json")]


def _environment() -> dict[str, str]:
    return {
        "CONTAINERS_CONF": str(_SETTINGS / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(_SETTINGS / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(_SETTINGS / "storage.conf"),
    }


def _write_settings() -> None:
    _SETTINGS.mkdir(parents=True, exist_ok=True)
    run_folder = sandbox.run_folder()
    files = {
        # The base image is made here and nothing is pulled, so there are no signatures to demand.
        "policy.json": '{"default": [{"type": "insecureAcceptAnything"}]}\n',
        "registries.conf": "unqualified-search-registries = []\n",
        "containers.conf": f'[network]\nnetwork_config_dir = "{_SETTINGS}/networks"\n',
        "storage.conf": f'[storage]\ndriver = "{_DRIVER}"\ngraphroot = "{_STORAGE}"\nrunroot = "{run_folder}"\n',
    }
    for name, text in files.items():
        path = Path(_SETTINGS / name)
        if not path.is_file() or path.read_text() != text:
            path.write_text(text)

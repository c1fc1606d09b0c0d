"""The node's own two images, put together without a builder: DNS, and the container that holds a pod's namespaces.

`ensure(node)` makes a docker-archive of them and imports it into containerd, once per content. Images that a person
builds or releases come from the registry and are none of this module's business.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.errors import ToolError

PAUSE = "embedded.local/pause:1"
DNS = "embedded.local/coredns:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64"}
_EPOCH = "2026-01-01T00:00:00Z"
# A shell as the pod's first process: ends at once on SIGTERM, and while it waits it reaps the orphans of pods that
# share their process namespace. A program of our own would need a compiler on the user's machine.
_PAUSE_SCRIPT = b"trap 'exit 0' TERM INT\nwhile :; do sleep 2147483647 & wait $!; done\n"


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of one layer: `files` maps an absolute path to content and mode, `links` a path to its target."""

    reference: str
    files: dict[str, tuple[bytes, int]]
    links: dict[str, str]
    entrypoint: tuple[str, ...]


def pause(busybox: Path) -> Image:
    """The image of the container that holds a pod's namespaces."""
    return Image(
        reference=PAUSE,
        files={"/bin/busybox": (busybox.read_bytes(), 0o755), "/pause": (_PAUSE_SCRIPT, 0o644)},
        links={"/bin/sh": "busybox", "/bin/sleep": "busybox"},
        entrypoint=("/bin/sh", "/pause"),
    )


def dns(coredns: Path) -> Image:
    """The image of the cluster's DNS server."""
    return Image(reference=DNS, files={"/coredns": (coredns.read_bytes(), 0o755)}, links={}, entrypoint=("/coredns",))


def architecture() -> str:
    """This machine's architecture as images name it."""
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise ToolError(
            f"the embedded cluster does not know the architecture {machine}; use another cluster: "
            "`kubernetes:context: NAME` in Pulumi.<stack>.yaml."
        )
    return _ARCHITECTURES[machine]


def write_archive(path: Path, images: list[Image]) -> None:
    """Write a docker-archive of the images; the same images give the same bytes."""
    manifest = []
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for image in images:
            content = layer(image)
            digest = hashlib.sha256(content).hexdigest()
            config = json.dumps(configuration(image, digest), sort_keys=True).encode()
            config_name = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, f"{digest}.tar", content, 0o644)
            _add(archive, config_name, config, 0o644)
            manifest.append({"Config": config_name, "RepoTags": [image.reference], "Layers": [f"{digest}.tar"]})
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)


def configuration(image: Image, digest: str) -> dict[str, Any]:
    """An image's configuration for its one layer, whose content has the SHA-256 `digest`."""
    return {
        "architecture": architecture(),
        "os": "linux",
        "created": _EPOCH,
        "config": {"Entrypoint": list(image.entrypoint), "Env": ["PATH=/bin"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        "history": [{"created": _EPOCH, "created_by": "embedded cluster"}],
    }


def layer(image: Image) -> bytes:
    """An image's files as an uncompressed tar with fixed times, parents before children."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        parents = {str(parent) for path in (*image.files, *image.links) for parent in Path(path).parents}
        for parent in sorted(parents - {"/"}):
            entry = tarfile.TarInfo(parent.lstrip("/"))
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for path, (content, mode) in sorted(image.files.items()):
            _add(archive, path.lstrip("/"), content, mode)
        for path, target in sorted(image.links.items()):
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))

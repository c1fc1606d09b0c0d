"""Where images are pushed to: the registry on the embedded node, or the one that RELEASE_REGISTRY names.

Starting the embedded one is left to `tools.cluster`.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tools.errors import ToolError
from tools.paths import IMAGES

VARIABLE = "RELEASE_REGISTRY"
EMBEDDED = "registry.embedded:5000"
_PLACE = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*(?::[0-9]{1,5})?(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_MANIFESTS = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True, kw_only=True)
class Destination:
    """One repository of a registry.

    `repository` is its name as the cluster pulls it, `push_name` as this machine reaches it. `authority` is the file of
    the authority that signed the registry's certificate, None for the user's own registry and its public certificate.
    """

    repository: str
    push_name: str
    authority: Path | None = None

    @property
    def name(self) -> str:
        """The repository's last part."""
        return self.repository.rpartition("/")[2]

    @property
    def embedded(self) -> bool:
        """Whether this is the registry on the embedded node."""
        return self.authority is not None

    @property
    def advice(self) -> str:
        """What to do when the registry refuses an image."""
        if self.embedded:
            return "Look at the embedded cluster: `python -m tools.cluster status`."
        host = self.push_name.partition("/")[0]
        return f"Check {VARIABLE}, and log in: `docker login {host}`."

    def reference(self, digest: str) -> str:
        """The image as a cluster pulls it."""
        return f"{self.repository}@{digest}"

    def client_options(self) -> list[str]:
        """What buildah and skopeo have to be told to trust the registry."""
        if self.authority is not None:
            folder = IMAGES / "authority"
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.authority, folder / "ca.crt")
            return ["--cert-dir", str(folder)]
        host = self.push_name.partition("/")[0].partition(":")[0]
        # As Docker does: a registry on this very machine, such as kind's, has no certificate.
        return ["--tls-verify=false"] if host in ("localhost", "127.0.0.1") else []

    def holds(self, digest: str) -> bool:
        """Whether the embedded registry still has a manifest. Raises ToolError when it does not answer."""
        host, _, path = self.push_name.partition("/")
        url = f"https://{host}/v2/{path}/manifests/{digest}"
        try:
            trust = ssl.create_default_context(cafile=self.authority)
            # Not by a proxy: the address is one of this machine.
            with httpx2.Client(verify=trust, trust_env=False, timeout=10) as client:
                answer = client.head(url, headers={"Accept": _MANIFESTS})
        except (httpx2.HTTPError, OSError) as error:
            raise ToolError(
                f"The embedded cluster's registry at {host} does not answer ({error}): start the cluster with "
                "`python -m tools.cluster up`."
            ) from error
        if answer.status_code not in (200, 404):
            raise ToolError(f"The embedded cluster's registry at {host} answers {answer.status_code} to HEAD {url}.")
        return answer.status_code == 200


def destination(name: str, *, environment: Mapping[str, str] = os.environ) -> Destination:
    """The repository for the image `name`. Raises ToolError for a RELEASE_REGISTRY that is none."""
    place = environment.get(VARIABLE, "").strip().rstrip("/")
    if place:
        if not _PLACE.fullmatch(place):
            raise ToolError(
                f"{VARIABLE}={place!r} is no registry; write host and path in lower case and without a scheme, like "
                f"`export {VARIABLE}=registry.example.com/team`"
            )
        return Destination(repository=f"{place}/{name}", push_name=f"{place}/{name}")
    from tools import cluster

    return Destination(
        repository=f"{EMBEDDED}/{name}",
        push_name=f"{cluster.registry_address()}/{name}",
        authority=Path(cluster.registry_ca()),
    )

"""The machine's own apt sources, cut down to Debian's archive, for the root file systems that are built here.

Mirrors and proxies are the machine's; other vendors' sources are left out, since their keys are not in the images.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tools.errors import ToolError
from tools.paths import IMAGES

SUITE = "bookworm"
SUITES = (SUITE, f"{SUITE}-updates", f"{SUITE}-security")
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")
# What shapes a download: everything else in the machine's settings belongs to its own package management.
_SETTINGS = re.compile(r"Acquire::(?:Check-|Retries|https?|ftp|Proxy|ForceIPv)[A-Za-z0-9:_/.-]*(?<!::) ", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Folders that stand in for /etc/apt/sources.list.d and /etc/apt/apt.conf.d while an image is built."""

    lists: Path
    settings: Path

    @property
    def list_file(self) -> Path:
        """The one file of sources, in apt's one-line format."""
        return self.lists / "machine.list"

    @property
    def settings_file(self) -> Path:
        """The machine's settings for downloads."""
        return self.settings / "50machine"


def write(folder: Path = IMAGES / "apt") -> Sources:
    """Write the sources and settings below `folder`. Raises ToolError where the machine has none of this Debian."""
    sources = Sources(lists=folder / "sources.list.d", settings=folder / "apt.conf.d")
    lines = list_lines(_output("apt-get", "indextargets", "Identifier: Packages"))
    if not any(f" {SUITE} " in line for line in lines):
        raise ToolError(
            f"apt on this machine knows no source of Debian 12 ({SUITE}), from which images are built without Docker. "
            "Add one to /etc/apt/sources.list.d and run `apt-get update`; or set RELEASE_REGISTRY to a registry of "
            "your own, on a machine with Docker."
        )
    settings = setting_lines(_output("apt-config", "dump"))
    sources.lists.mkdir(parents=True, exist_ok=True)
    sources.settings.mkdir(parents=True, exist_ok=True)
    if any(" https://" in line for line in lines) and _AUTHORITIES.is_file():
        # A new root has no authorities yet; apt ignores a file with this ending in its folder of settings.
        shutil.copyfile(_AUTHORITIES, sources.settings / "authorities.crt")
        settings.append('Acquire::https::CaInfo "/etc/apt/apt.conf.d/authorities.crt";')
    sources.list_file.write_text("".join(f"{line}\n" for line in lines))
    sources.settings_file.write_text("".join(f"{line}\n" for line in settings))
    return sources


def list_lines(targets: str) -> list[str]:
    """Lines of a sources.list from the output of `apt-get indextargets`, Debian's archive only, in a fixed order."""
    found: dict[tuple[str, str], set[str]] = {}
    for paragraph in targets.split("\n\n"):
        field = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line)
        release = field.get("Codename", field.get("Release", ""))
        if field.get("Origin", "Debian") == "Debian" and release in SUITES and field.get("Target-Of") == "deb":
            found.setdefault((field["Release"], field["Repo-URI"]), set()).add(field["Component"])
    order = sorted(found.items(), key=lambda entry: (SUITES.index(_suite(entry[0][0])), entry[0][1]))
    # Only main: nothing else is used, and the fewer indexes there are to fetch the faster is a build.
    return [f"deb [signed-by={_KEYRING}] {uri} {release} main" for (release, uri), parts in order if "main" in parts]


def setting_lines(dump: str) -> list[str]:
    """The lines of `apt-config dump` that shape a download."""
    return [line for line in dump.splitlines() if _SETTINGS.match(line) and not line.endswith(' "";')]


def architecture() -> str:
    """The machine's architecture as the kernel names it, `x86_64` or `aarch64`."""
    return platform.machine()


def _suite(release: str) -> str:
    # The security archive has also been written as bookworm/updates.
    return release if release in SUITES else f"{SUITE}-security"


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        raise ToolError(
            f"{command[0]} not found: images are built without Docker on Debian 12 only. Set RELEASE_REGISTRY to a "
            "registry of your own, on a machine with Docker."
        )
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(
            f"`{' '.join(command)}` failed: {done.stderr.strip()}. Mend it, then run the same command again."
        )
    return done.stdout

"""Runs programs of the machine (`ip`, `mount`, `nsenter`, …) and says which package has one that is missing."""

from __future__ import annotations

import os
import shutil
import subprocess

from tools import debian
from tools.errors import ToolError

_PACKAGES = {
    "ip": "iproute2",
    "mount": "mount",
    "nsenter": "util-linux",
    "setsid": "util-linux",
    "umount": "mount",
    "unshare": "util-linux",
}


def find(name: str) -> str:
    """The path of a program; `ip` is fetched when the machine has none. Raises ToolError naming the Debian package."""
    # sudo, cron and some shells leave the administrator's folders out
    folders = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    found = shutil.which(name, path=folders)
    if found is None and name == "ip":
        system = debian.ensure(debian.absent("iproute2"))
        found = shutil.which(name, path=os.pathsep.join(str(system / folder) for folder in ("bin", "sbin", "usr/sbin")))
    if found is None:
        raise ToolError(f"`{name}` is not on this machine: `apt-get install {_PACKAGES.get(name, name)}`.")
    return found


def run(name: str, *arguments: str) -> str:
    """Run a program and give what it printed; raises ToolError with its own words when it fails."""
    path = find(name)
    environment = dict(os.environ)
    if path.startswith(f"{debian.SYSTEM}/"):
        environment |= debian.environment()
    done = subprocess.run([path, *arguments], env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"`{name} {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout

"""Debian packages beside the machine: downloaded and unpacked into one folder, never installed.

`ensure(packages)` asks apt's own client for the packages, from the sources that the machine itself is set up with, so
mirrors, keys and pinning are the machine's. Maintainer scripts do not run and dependencies are not followed: a caller
names every package that it needs, libraries too, and makes what the scripts would have made (alternatives, users).
What is in the folder is never removed; a package is unpacked again only when it was not there before.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools import lock
from tools.errors import ToolError
from tools.paths import DEBIAN
from tools.progress import phase

SYSTEM = DEBIAN / "sys"
_DOWNLOAD_SECONDS = 900
_ELSEWHERE = (
    "The embedded cluster and the image builder take their programs from Debian packages. Elsewhere use a cluster and "
    "a registry of your own: `kubernetes:context: NAME` in Pulumi.<stack>.yaml with any kind, k3d or other cluster."
)


def ensure(packages: Sequence[str]) -> Path:
    """Have the packages unpacked and give the folder that stands for `/`.

    `packages` is the exact set, each a package's name as apt knows it. A set that was asked for before costs one look
    at a file. Two processes at once wait for each other. Raises ToolError when apt is missing or cannot get them.
    """
    wanted = sorted(set(packages))
    mark = DEBIAN / "sets" / hashlib.sha256("\n".join(wanted).encode()).hexdigest()[:16]
    if mark.is_file():
        return SYSTEM
    DEBIAN.mkdir(parents=True, exist_ok=True)
    with lock.hold(DEBIAN / "lock", command="unpacking Debian packages", wait=True):
        missing = [name for name in wanted if not (DEBIAN / "unpacked" / name).is_file()]
        if missing:
            _demand_apt()
            with phase(f"Debian packages: {len(missing)} of {len(wanted)} to download") as current:
                current.detail(", ".join(missing))
                _unpack(_download(missing))
        mark.parent.mkdir(exist_ok=True)
        mark.write_text("\n".join(wanted) + "\n")
    return SYSTEM


def environment(system: Path = SYSTEM) -> dict[str, str]:
    """Variables with which the unpacked programs find each other and their libraries; PATH still ends in the host's."""
    libraries = [path for path in sorted((system / "usr/lib").glob("*-linux-gnu*")) if path.is_dir()]
    programs = [system / name for name in ("usr/sbin", "usr/bin", "sbin", "bin")]
    host = os.environ.get("PATH", os.defpath).split(os.pathsep)
    # sudo, cron and some shells leave the administrator's folders out, where ip and nsenter may lie
    host += [name for name in ("/usr/sbin", "/usr/bin", "/sbin", "/bin") if name not in host]
    return {
        "PATH": os.pathsep.join([*map(str, programs), *host]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
        "XTABLES_LIBDIR": os.pathsep.join(str(path / "xtables") for path in libraries),
    }


def absent(package: str) -> list[str]:
    """A package and those that it needs and this machine lacks, as apt itself works it out; for rare cases.

    Raises ToolError when apt is missing or does not know the package.
    """
    _demand_apt()
    DEBIAN.mkdir(parents=True, exist_ok=True)
    simulated = _apt(["--simulate", "--no-install-recommends", "install", package], DEBIAN, {"Debug::NoLocking": "1"})
    installs = [line.split() for line in simulated.stdout.splitlines() if line.startswith("Inst ")]
    # with a version in brackets after the name it is here already and would only be replaced
    found = [words[1] for words in installs if not words[2].startswith("[")]
    if simulated.returncode != 0 or package not in found:
        raise ToolError(f"apt cannot say what {package} needs:\n{_tail(simulated.stdout)}\n{_ELSEWHERE}")
    return found


def _demand_apt() -> None:
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        raise ToolError(f"{' and '.join(missing)} not found: this machine is not a Debian or Ubuntu. {_ELSEWHERE}")


def _download(packages: list[str]) -> list[Path]:
    folder = DEBIAN / "download"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    first = _apt(["download", *packages], folder, _own_state() if _has_own_lists() else {})
    if first.returncode != 0:
        # the machine's package lists are missing or older than the mirror: own ones, so the host's stay as they are
        update = _apt(["update"], folder, _own_state())
        second = _apt(["download", *packages], folder, _own_state())
        if second.returncode != 0:
            raise ToolError(
                f"apt cannot download {', '.join(packages)}:\n{_tail(update.stdout)}\n{_tail(second.stdout)}\n"
                "Check `apt-get update` and the network on this machine, then run the same command again. " + _ELSEWHERE
            )
    archives = sorted(folder.glob("*.deb"))
    got = {path.name.partition("_")[0] for path in archives}
    absent = [name for name in packages if name not in got]
    if absent:
        raise ToolError(f"apt downloaded no archive for {', '.join(absent)} (into {folder}). {_ELSEWHERE}")
    return archives


def _apt(arguments: list[str], folder: Path, options: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    # apt would give up root for the download, and its own user may not write here
    settings = {"APT::Sandbox::User": "root" if os.geteuid() == 0 else "", "Acquire::Retries": "3", **options}
    command = ["apt-get", "-q", *(f"-o{key}={value}" for key, value in settings.items() if value), *arguments]
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_DOWNLOAD_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ToolError(
            f"`{' '.join(command[:2])} …` did not end within {_DOWNLOAD_SECONDS} s. {_ELSEWHERE}"
        ) from error


def _own_state() -> dict[str, str]:
    lists, cache = DEBIAN / "apt" / "lists", DEBIAN / "apt" / "cache"
    (lists / "partial").mkdir(parents=True, exist_ok=True)
    (cache / "archives" / "partial").mkdir(parents=True, exist_ok=True)
    return {"Dir::State::lists": f"{lists}/", "Dir::Cache": f"{cache}/"}


def _has_own_lists() -> bool:
    return any((DEBIAN / "apt" / "lists").glob("*_Packages*"))


def _unpack(archives: list[Path]) -> None:
    (DEBIAN / "unpacked").mkdir(exist_ok=True)
    SYSTEM.mkdir(exist_ok=True)
    for archive in archives:
        command = ["dpkg-deb", "-x", str(archive), str(SYSTEM)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ToolError(f"{archive.name} cannot be unpacked into {SYSTEM}: {_tail(done.stderr)}")
        name, version = archive.name.split("_")[:2]
        (DEBIAN / "unpacked" / name).write_text(version + "\n")
        archive.unlink()


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-6:])

"""Runs the image tools, unpacked from Debian packages, in namespaces of their own.

They see the unpacked programs and libraries merged below the machine's /usr, because they start themselves again with
an empty environment, where LD_LIBRARY_PATH is lost. They get a private /dev and a private /var/lib, so that a build can
neither damage the machine's nor leave something there, and every mount and process ends with the namespaces.
Linux and root only. What is built is left to the callers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tools import debian
from tools.errors import ToolError
from tools.paths import IMAGES, LOCAL, LOGS, display

PACKAGES = (
    "buildah",
    "golang-github-containers-common",
    "golang-github-containers-image",
    "libassuan0",
    "libdevmapper1.02.1",
    "libgpg-error0",
    "libgpgme11",
    "libperl5.36",
    "libseccomp2",
    "libsubid4",
    "mmdebstrap",
    "perl",
    "perl-modules-5.36",
    "skopeo",
)
MERGED = IMAGES / "merged"
SCRATCH = IMAGES / "tmp"

# $1 is the folder of local state, $2 buildah's run folder, $3 its notes of what lies in which registry; then the
# command. A path may hold what separates the options of an overlay, so the folder is bound to a plain name first. The
# run folder is new each time, as after a boot: buildah notes mounts there, and those end with the namespace.
_SETUP = """
set -eu
mount -n --bind "$1" /mnt
mount -n -t overlay -o ro,lowerdir=/usr:/mnt/debian/sys/usr:/mnt/images/merged/usr overlay /usr
umount -n /mnt
mount -n -t tmpfs -o mode=755,nosuid,noexec tmpfs /dev
for device in "null 1 3" "zero 1 5" "full 1 7" "random 1 8" "urandom 1 9" "tty 5 0"; do
    mknod -m 666 "/dev/${device%% *}" c ${device#* }
done
mkdir /dev/pts /dev/shm
mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts /dev/pts
mount -n -t tmpfs -o mode=1777 tmpfs /dev/shm
ln -s pts/ptmx /dev/ptmx
ln -s /proc/self/fd /dev/fd
ln -s fd/0 /dev/stdin
ln -s fd/1 /dev/stdout
ln -s fd/2 /dev/stderr
mount -n -t tmpfs -o mode=755 tmpfs /var/lib
mkdir -p /var/lib/containers/cache "$2" "$3"
mount -n --bind "$3" /var/lib/containers/cache
mount -n -t tmpfs -o mode=755 tmpfs "$2"
shift 3
exec "$@"
"""


def silent(_line: str) -> None:
    """For output that only the log file needs."""


def run(
    command: Sequence[str],
    *,
    log: str,
    environment: Mapping[str, str] | None = None,
    line: Callable[[str], None] = silent,
) -> str:
    """Run a command in the namespaces and give its standard output and error, which also go to the log file `log`.

    `environment` comes on top of a small fixed one; every line of output is passed to `line` as it comes.
    Raises ToolError with the last lines when it fails, or when this machine cannot do it.
    """
    _demand_machine()
    debian.ensure(PACKAGES)
    _merge_root_libraries()
    SCRATCH.mkdir(parents=True, exist_ok=True)
    # unshare leaves its child alone when it is interrupted, so it is killed, also when this process is.
    prefix = ["setpriv", "--pdeathsig", "KILL"]
    prefix += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]
    prefix += ["sh", "-c", _SETUP, "sandbox", str(LOCAL), str(run_folder()), str(IMAGES / "blobs")]
    return stream([*prefix, *command], log=log, environment={**_environment(), **(environment or {})}, line=line)


def run_folder() -> Path:
    """Buildah's folder for what lives no longer than one run."""
    return IMAGES / "run"


def stream(command: Sequence[str], *, log: str, environment: Mapping[str, str], line: Callable[[str], None]) -> str:
    """Run a command with exactly `environment`; output to the log file and to `line`; ToolError when it fails."""
    LOGS.mkdir(parents=True, exist_ok=True)
    file = LOGS / f"{log}.log"
    output: list[str] = []
    with (
        file.open("w", encoding="utf-8") as copy,
        subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            for text in process.stdout or ():
                copy.write(text)
                output.append(text)
                line(text.strip())
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        # A list of blobs for each attempt would push the reason out of sight.
        last = "".join([text for text in output if not text.startswith("Copying blob ")][-8:]).strip()
        program = next(part for part in command if Path(part).name in ("buildah", "skopeo", "mmdebstrap", "docker"))
        raise ToolError(
            f"{Path(program).name} failed with exit code {process.returncode}; its last lines:\n{last}\n"
            f"All of its output is in {display(file)}."
        )
    return "".join(output)


def _demand_machine() -> None:
    elsewhere = "Or set RELEASE_REGISTRY to a registry of your own, on a machine with Docker: it is built there then."
    if sys.platform != "linux":
        raise ToolError(f"Images can be built without Docker on Linux only. Install Docker. {elsewhere}")
    if os.geteuid() != 0:
        raise ToolError(f"Building images without Docker needs root: run the same command with sudo. {elsewhere}")
    for program in ("setpriv", "unshare", "mount"):
        if shutil.which(program) is None:
            raise ToolError(f"{program} is not on PATH: install util-linux. {elsewhere}")


def _merge_root_libraries() -> None:
    # Some packages keep libraries in /lib, which is a link into /usr on the machine but not where they are unpacked.
    for folder in (debian.SYSTEM / "lib").glob("*-linux-gnu*"):
        target = MERGED / "usr" / "lib" / folder.name
        target.mkdir(parents=True, exist_ok=True)
        for library in folder.glob("*.so*"):
            if not (target / library.name).exists():
                shutil.copy2(library, target / library.name, follow_symlinks=True)
    (MERGED / "usr").mkdir(parents=True, exist_ok=True)


def _environment() -> dict[str, str]:
    kept = ("HOME", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": str(SCRATCH),
    }

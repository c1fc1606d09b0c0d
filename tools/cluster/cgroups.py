"""The instance's own cgroup: made, entered and removed, in the controllers of cgroup v1 and in the tree of v2.

`/efp-<id>/node` holds the supervisor and the components, `/efp-<id>/kubepods` is kubelet's. Limits of pods are
kubelet's to set. What was tried: v1 and the hybrid layout; v2 alone was not at hand, its branches follow the kernel's
documentation.
"""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

from tools.errors import ToolError

ROOT = Path("/sys/fs/cgroup")
_V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")


def unified(root: Path = ROOT) -> bool:
    """Whether this machine has cgroup v2 alone; kubelet decides in the same way."""
    return (root / "cgroup.controllers").is_file()


def hierarchies(root: Path = ROOT) -> list[Path]:
    """The folders that are roots of a hierarchy: one per mounted v1 controller, or the one tree of v2."""
    if unified(root):
        return [root]
    if not root.is_dir():
        raise ToolError(f"{root} is not there: mount the cgroup filesystem, or use another cluster.")
    # `cpu` and `cpuacct` are often links to one mount: each is wanted once
    return sorted({path.resolve() for path in root.iterdir() if (path / "cgroup.procs").is_file()})


def create(name: str, root: Path = ROOT) -> None:
    """Make the cgroup with its part for the components, in every hierarchy; kubelet adds its own part."""
    for hierarchy in hierarchies(root):
        for folder in (hierarchy / name, hierarchy / name / "node"):
            if (hierarchy / "cgroup.subtree_control").is_file():
                _delegate(folder.parent)
            folder.mkdir(exist_ok=True)
            _inherit_cpuset(folder)
        shares = hierarchy / name / "cpu.shares"
        if shares.is_file():
            # In v1 the whole cluster would otherwise weigh as much as one thread of a build in the root group.
            shares.write_text(str(1024 * (os.cpu_count() or 1) * 4))
            (hierarchy / name / "node" / "cpu.shares").write_text(str(1024 * (os.cpu_count() or 1)))


def enter(name: str, root: Path = ROOT) -> None:
    """Move this process, and so what it starts, into the components' part; out of a login session that ends."""
    for hierarchy in hierarchies(root):
        (hierarchy / name / "node" / "cgroup.procs").write_text(str(os.getpid()))


def found(name: str, root: Path = ROOT) -> list[Path]:
    """Every folder of the cgroup that is there, the deepest first."""
    tops = [hierarchy / name for hierarchy in hierarchies(root)]
    folders = [Path(folder) for top in tops for folder, _, _ in os.walk(top)]
    return sorted(folders, key=lambda folder: len(folder.parts), reverse=True)


def processes(name: str, root: Path = ROOT) -> set[int]:
    """The processes of this machine that are in the cgroup now."""
    pids: set[int] = set()
    for folder in found(name, root):
        try:
            pids.update(map(int, (folder / "cgroup.procs").read_text().split()))
        except OSError:
            continue  # ended between listing and reading
    return pids


def remove(name: str, *, seconds: float = 5.0, root: Path = ROOT) -> list[Path]:
    """Remove the cgroup; gives the folders that stayed because a process is still in them after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        stayed = []
        for folder in found(name, root):
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                stayed.append(folder)
        # the kernel offers nothing to wait for in v1: a group stays busy until its last dead process is collected
        if not stayed or time.monotonic() > deadline:
            return stayed
        time.sleep(0.05)


def _delegate(folder: Path) -> None:
    available = (folder / "cgroup.controllers").read_text().split()
    enabled = (folder / "cgroup.subtree_control").read_text().split()
    for controller in _V2_CONTROLLERS:
        if controller in available and controller not in enabled:
            try:
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
            except OSError as error:
                raise ToolError(
                    f"the cgroup controller {controller} cannot be handed down in {folder} ({error.strerror}): this "
                    "session may not manage cgroups. Run outside of a container, or use another cluster."
                ) from error


def _inherit_cpuset(folder: Path) -> None:
    for file in ("cpuset.cpus", "cpuset.mems"):
        given = folder / file
        # in v1 a new group has no processor and no memory node, and refuses every process until it is given some
        if given.is_file() and not (folder / "cgroup.controllers").exists() and not given.read_text().strip():
            given.write_text((folder.parent / file).read_text())

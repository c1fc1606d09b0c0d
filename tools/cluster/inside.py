"""What the supervisor does first, as the first process in the node's namespaces: mounts, system settings, network.

Everything here is private to the namespaces and ends with them; nothing of it needs to be undone. Making the
namespaces is left to `outside`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

from tools.cluster.commands import run
from tools.cluster.instance import POD_NETWORK, SERVICE_NETWORK, VOLUMES_IN_NODE, Instance
from tools.errors import ToolError
from tools.paths import ROOT

# kubelet demands these machine-wide values and would write them
_DEMANDED = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
_SYSTEM_SETTINGS = Path("/proc/sys")


def enter(instance: Instance, needed: Iterable[Path]) -> str:
    """Prepare the namespaces that this process is the first of; gives the name of the snapshotter that works here.

    `needed` are folders of the machine that must stay visible although something else is mounted over their parents.
    """
    needed = [ROOT, instance.folder, Path(sys.prefix), Path(sys.base_prefix), *needed]
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "--make-rshared", "/")
    state = instance.data / "node"
    _cover(Path("/run"), None, needed)
    _cover(Path("/var/lib"), state / "lib", needed)
    _cover(Path("/var/log"), state / "log", needed)
    (Path("/run") / "lock").mkdir()
    (instance.data / "volumes").mkdir(exist_ok=True)
    VOLUMES_IN_NODE.mkdir(exist_ok=True)
    run("mount", "--bind", str(instance.data / "volumes"), str(VOLUMES_IN_NODE))
    _protect_system_settings()
    _network(instance)
    return _snapshotter(instance.data)


def _cover(target: Path, source: Path | None, needed: Iterable[Path]) -> None:
    """Mount `source`, or an empty memory filesystem, over `target`, with the needed folders visible below it again."""
    kept = [(path, os.open(path, os.O_PATH)) for path in needed if path != target and path.is_relative_to(target)]
    if source is None:
        run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", str(target))
    else:
        source.mkdir(parents=True, exist_ok=True)
        run("mount", "--bind", str(source), str(target))
    for path, handle in kept:
        path.mkdir(parents=True, exist_ok=True)
        run("mount", "--no-canonicalize", "--rbind", f"/proc/{os.getpid()}/fd/{handle}", str(path))
        os.close(handle)


def _protect_system_settings() -> None:
    """Make the machine's settings read-only in here, except those of this network namespace, which are our own."""
    settings = str(_SYSTEM_SETTINGS)
    run("mount", "--bind", settings, settings)
    run("mount", "--bind", f"{settings}/net", f"{settings}/net")
    run("mount", "-o", "remount,ro,bind", settings)
    for name, value in _DEMANDED.items():
        real = _SYSTEM_SETTINGS / name
        if real.is_file() and real.read_text().strip() != value:
            shown = Path("/run/settings") / name
            shown.parent.mkdir(parents=True, exist_ok=True)
            shown.write_text(f"{value}\n")
            run("mount", "--bind", str(shown), str(real))


def _network(instance: Instance) -> None:
    prefix = instance.subnet.prefixlen
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", f"{instance.node_address}/{prefix}", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")
    # No default route: there is no way out, and what tries fails at once instead of after a timeout. Programs of the
    # node itself need some route to a service's address before the packet filter replaces it.
    run("ip", "route", "add", SERVICE_NETWORK, "dev", "eth0")
    # A connection that a pod opens before kube-proxy knows the service would hang until its first packet is forgotten
    run("ip", "rule", "add", "from", POD_NETWORK, "to", SERVICE_NETWORK, "unreachable")
    (_SYSTEM_SETTINGS / "net/ipv4/ip_forward").write_text("1")


def _snapshotter(data: Path) -> str:
    """`overlayfs` where the data's filesystem can carry it, else `native`, which copies: slower, works anywhere."""
    folder = data / "overlay-trial"
    parts = {name: folder / name for name in ("lower", "upper", "work", "merged")}
    for path in parts.values():
        path.mkdir(parents=True, exist_ok=True)
    options = f"lowerdir={parts['lower']},upperdir={parts['upper']},workdir={parts['work']}"
    try:
        run("mount", "-t", "overlay", "-o", options, "overlay", str(parts["merged"]))
    except ToolError:
        return "native"
    run("umount", str(parts["merged"]))
    return "overlayfs"

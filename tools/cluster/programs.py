"""The programs that run in the node: from which Debian packages, links to all of them, and their environment.

The Kubernetes binaries and CoreDNS are given as folders: building or finding them is the toolchain's.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tools import debian
from tools.cluster.instance import CONTAINERD_SOCKET, Instance
from tools.errors import ToolError

# libraries by name, because apt follows no dependency here; the machine's own C library serves them
PACKAGES = (
    "busybox-static",
    "conntrack",
    "containerd",
    "containernetworking-plugins",
    "docker-registry",
    "ipset",
    "iptables",
    "libip4tc2",
    "libip6tc2",
    "libipset13",
    "libmnl0",
    "libnetfilter-conntrack3",
    "libnfnetlink0",
    "libnftnl11",
    "libseccomp2",
    "libxtables12",
    "runc",
)
_KUBERNETES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")
_DEBIAN = {
    "usr/bin": ("containerd", "containerd-shim-runc-v2", "ctr", "docker-registry"),
    "usr/sbin": ("runc", "conntrack", "ipset"),
}
_IPTABLES = tuple(f"{base}{suffix}" for base in ("iptables", "ip6tables") for suffix in ("", "-save", "-restore"))


def link(instance: Instance, kubernetes: Path, system: Path) -> None:
    """Fill the instance's `bin` folder; `kubernetes` holds hyperkube and etcd, `system` the Debian packages."""
    targets = {name: kubernetes / "hyperkube" for name in _KUBERNETES} | {"etcd": kubernetes / "etcd"}
    for folder, names in _DEBIAN.items():
        targets |= {name: system / folder / name for name in names}
    missing = sorted({str(path) for path in targets.values() if not path.is_file()})
    if missing:
        raise ToolError(f"the embedded cluster lacks {', '.join(missing)}: remove {system.parent} and run it again.")
    instance.programs.mkdir(parents=True, exist_ok=True)
    for name, target in targets.items():
        _replace(instance.programs / name, target.resolve())


def link_iptables(instance: Instance, system: Path) -> str:
    """Link the iptables that this kernel carries, tried in this network namespace; gives `nft` or `legacy`."""
    for kind in ("nft", "legacy"):
        program = system / f"usr/sbin/xtables-{kind}-multi"
        command = [str(program), "iptables", "--wait", "--table", "nat", "--list-rules"]
        done = subprocess.run(command, env=environment(instance, system), capture_output=True, text=True, check=False)
        if done.returncode == 0:
            for name in _IPTABLES:
                _replace(instance.programs / name, program)
            return kind
    raise OSError(f"iptables does not work on this kernel, neither as nft nor as legacy: {done.stderr.strip()}")


def environment(instance: Instance, system: Path) -> dict[str, str]:
    """The whole environment of a component: nothing of the caller's, whose proxies would catch cluster traffic."""
    found: Mapping[str, str] = debian.environment(system)
    folders = [str(instance.programs), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    return {
        "PATH": os.pathsep.join(folders),
        "LD_LIBRARY_PATH": found["LD_LIBRARY_PATH"],
        "XTABLES_LIBDIR": found["XTABLES_LIBDIR"],
        "CONTAINERD_ADDRESS": str(CONTAINERD_SOCKET),
        "CONTAINERD_NAMESPACE": "k8s.io",
        "KUBECONFIG": str(instance.kubeconfig),
        "HOME": "/",
        "LANG": "C.UTF-8",
    }


def _replace(link_path: Path, target: Path) -> None:
    if link_path.is_symlink() and link_path.readlink() == target:
        return
    beside = link_path.with_name(f".{link_path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    beside.rename(link_path)

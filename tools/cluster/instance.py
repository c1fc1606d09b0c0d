"""What one embedded cluster is called and where its things lie, derived from the folder of its clone.

Two clones on one machine get different names for everything that the machine shares: the network interface, the node
subnet and the cgroup. Inside the node's namespaces fixed names are fine. What is made of the names is left to others.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from tools.cluster.commands import run
from tools.errors import ToolError
from tools.paths import CLUSTER

NODE_NAME = "embedded"
STORAGE_CLASS = "embedded"
EMBEDDED_LABEL = "release.energy/embedded"
REGISTRY_HOST = "registry.embedded:5000"
REGISTRY_PORT = 5000
API_PORT = 6443
POD_NETWORK = "10.244.0.0/24"
SERVICE_NETWORK = "10.96.0.0/16"
API_SERVICE_ADDRESS = "10.96.0.1"
DNS_ADDRESS = "10.96.0.10"
NODE_NETWORKS = IPv4Network("10.199.0.0/16")

# inside the node's mount namespace: short, because a Unix socket's path may have 107 characters at most
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")
KUBELET_FOLDER = Path("/var/lib/kubelet")
VOLUMES_IN_NODE = Path("/var/lib/volumes")


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One embedded cluster: `folder` holds all that it keeps, `subnet` is the /30 between the machine and the node."""

    folder: Path
    subnet: IPv4Network

    @property
    def id(self) -> str:
        """Six hex digits that differ between clones."""
        return _digest(self.folder)[:6]

    @property
    def name(self) -> str:
        """The name of its cgroup, `efp-1a2b3c`."""
        return f"efp-{self.id}"

    @property
    def interface(self) -> str:
        """The machine's end of the link to the node; the other end is `eth0` in the node."""
        return f"efp{self.id}"

    @property
    def context(self) -> str:
        """The kube-context's name."""
        return f"embedded-{self.id}"

    @property
    def host_address(self) -> IPv4Address:
        """The machine as the node sees it."""
        return self.subnet[1]

    @property
    def node_address(self) -> IPv4Address:
        """The node as the machine sees it: API server, registry and NodePorts."""
        return self.subnet[2]

    @property
    def programs(self) -> Path:
        """Links to every program that runs in the node, the only folder of this clone on its PATH."""
        return self.folder / "bin"

    @property
    def pki(self) -> Path:
        """Keys and certificates, readable by the owner only."""
        return self.folder / "pki"

    @property
    def settings(self) -> Path:
        """Rendered configuration files of the components."""
        return self.folder / "conf"

    @property
    def logs(self) -> Path:
        """One log per component."""
        return self.folder / "logs"

    @property
    def run(self) -> Path:
        """What is true only while the node runs."""
        return self.folder / "run"

    @property
    def data(self) -> Path:
        """What survives `down`: etcd, containerd's store, the registry, the volumes."""
        return self.folder / "data"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "kubeconfig"

    @property
    def registry_ca(self) -> Path:
        """The certificate authority that signed the registry's certificate, PEM."""
        return self.folder / "ca.crt"

    @property
    def state_file(self) -> Path:
        """The supervisor's JSON about its components."""
        return self.run / "state.json"

    @property
    def complete_file(self) -> Path:
        """There when `up` came to its end since the supervisor was started."""
        return self.run / "complete"

    @property
    def process_file(self) -> Path:
        """Which process of the machine is the node's supervisor."""
        return self.run / "supervisor.json"


def load(folder: Path = CLUSTER) -> Instance:
    """The instance of a folder, with the subnet it was last given (its preferred one when it never ran)."""
    stored = folder / "subnet"
    if stored.is_file():
        return Instance(folder=folder, subnet=IPv4Network(stored.read_text().strip()))
    return Instance(folder=folder, subnet=preferred(folder)[0])


def choose(folder: Path = CLUSTER) -> Instance:
    """The instance of a folder with a subnet that nothing on this machine uses now; the choice is kept for `load`.

    Only for a node that does not run: its own link would count as a clash.
    """
    used = _used_networks()
    stored = folder / "subnet"
    before = [IPv4Network(stored.read_text().strip())] if stored.is_file() else []
    for subnet in [*before, *preferred(folder)]:
        if free(subnet, used):
            folder.mkdir(parents=True, exist_ok=True)
            stored.write_text(f"{subnet}\n")
            return Instance(folder=folder, subnet=subnet)
    raise ToolError(
        f"no free /30 in {NODE_NETWORKS} for the embedded cluster: this machine has routes over all that were tried. "
        "See `ip route`; or use another cluster: `kubernetes:context: NAME` in Pulumi.<stack>.yaml."
    )


def preferred(folder: Path) -> list[IPv4Network]:
    """Sixteen subnets in the order in which a folder tries them, spread over the whole range by its hash."""
    digest = bytes.fromhex(_digest(folder))
    return [
        IPv4Network((int(NODE_NETWORKS[0]) + (int.from_bytes(digest[i : i + 2], "big") & 0xFFFC), 30))
        for i in range(0, 32, 2)
    ]


def free(subnet: IPv4Network, used: Iterable[IPv4Network]) -> bool:
    """Whether a subnet overlaps none of the used ones; a default route is no use."""
    return not any(network.prefixlen > 0 and subnet.overlaps(network) for network in used)


def networks(addresses: str, routes: str) -> list[IPv4Network]:
    """The IPv4 networks in what `ip -json addr` and `ip -json route show table all` print."""
    found = []
    for link in json.loads(addresses or "[]"):
        for address in link.get("addr_info", ()):
            if address.get("family") == "inet":
                found.append(IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False))
    for route in json.loads(routes or "[]"):
        try:
            found.append(IPv4Network(route.get("dst", ""), strict=False))
        except ipaddress.AddressValueError:
            continue  # `default`, and IPv6
    return found


def _used_networks() -> list[IPv4Network]:
    return networks(run("ip", "-json", "addr", "show"), run("ip", "-json", "route", "show", "table", "all"))


def _digest(folder: Path) -> str:
    return hashlib.sha256(str(folder).encode()).hexdigest()

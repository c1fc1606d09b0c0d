"""The components' configuration files, as Python values that are written as YAML, JSON or TOML.

Values that differ from the components' defaults are there because the node lives in namespaces of a machine whose own
settings stay untouched, or because a test waits for them. The command lines are in `components`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.images import PAUSE
from tools.cluster.instance import (
    CONTAINERD_SOCKET,
    DNS_ADDRESS,
    NODE_NAME,
    POD_NETWORK,
    REGISTRY_HOST,
    REGISTRY_PORT,
    Instance,
)

CONTAINERD_METRICS = "127.0.0.1:1338"
_UNUSED_PLUGINS = [
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.internal.v1.tracing",
]


def write(instance: Instance, system: Path, snapshotter: str) -> None:
    """Render every file into the instance's settings folder; `system` is where the Debian packages were unpacked."""
    folder = instance.settings
    files = {
        "containerd.toml": containerd(instance, system, snapshotter),
        f"registries/{REGISTRY_HOST}/hosts.toml": registry_host(instance),
        "registry.yaml": yaml.safe_dump(registry(instance)),
        "kubelet.yaml": yaml.safe_dump(kubelet(instance)),
        "proxy.yaml": yaml.safe_dump(proxy(instance)),
        "cni/10-pods.conflist": json.dumps(pod_network(), indent=1),
        # pods get no way out: a name that the cluster does not know fails at once instead of after a timeout
        "resolv.conf": "nameserver 127.0.0.1\n",
    }
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def kubelet(instance: Instance) -> dict[str, Any]:
    """The KubeletConfiguration."""
    pki = instance.pki
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(instance.node_address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(pki / "kubelet.crt"),
        "tlsPrivateKeyFile": str(pki / "kubelet.key"),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.name}",
        "failCgroupV1": False,
        "failSwapOn": False,
        # a machine may have taken CAP_SYS_RESOURCE away, without which scores cannot be lowered
        "oomScoreAdj": 0,
        # tolerates the sysctls that are read-only in the node, so that the machine's own stay as they are
        "featureGates": {"KubeletInUserNamespace": True},
        "protectKernelDefaults": False,
        "clusterDNS": [DNS_ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": str(instance.settings / "resolv.conf"),
        "enforceNodeAllocatable": ["pods"],
        "systemReserved": {"memory": "1Gi"},
        "maxPods": 110,
        # images come from this node's registry and from imports: collecting one would strand a pod, and a disk that
        # is nearly full with other things must not evict what is being released
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
        "nodeStatusUpdateFrequency": "5s",
        "syncFrequency": "10s",
        "serializeImagePulls": False,
        "eventRecordQPS": 0,
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "shutdownGracePeriod": "0s",
        "logging": {"verbosity": 2},
    }


def proxy(instance: Instance) -> dict[str, Any]:
    """The KubeProxyConfiguration."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(instance.pki / "proxy.kubeconfig")},
        "clusterCIDR": POD_NETWORK,
        "hostnameOverride": NODE_NAME,
        "bindAddress": str(instance.node_address),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # zero leaves the machine-wide connection tracking limits alone
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"syncPeriod": "30s", "minSyncPeriod": "0.2s"},
    }


def pod_network() -> dict[str, Any]:
    """The CNI chain: a pair of interfaces per pod, routed, and host ports."""
    return {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": True,
                "ipam": {
                    "type": "host-local",
                    # leases end with the node: its pods' namespaces do too
                    "dataDir": "/run/cni",
                    "ranges": [[{"subnet": POD_NETWORK}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }


def registry(instance: Instance) -> dict[str, Any]:
    """The registry's configuration: nothing is ever deleted, so a digest that was released stays pullable."""
    return {
        "version": "0.1",
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {
            "filesystem": {"rootdirectory": str(instance.data / "registry")},
            "cache": {"blobdescriptor": "inmemory"},
            "delete": {"enabled": False},
        },
        "http": {
            "addr": f"0.0.0.0:{REGISTRY_PORT}",
            "tls": {
                "certificate": str(instance.pki / "registry.crt"),
                "key": str(instance.pki / "registry.key"),
            },
        },
    }


def registry_host(instance: Instance) -> str:
    """containerd's hosts file: the fixed name in image references stands for the registry on this node."""
    url = _quoted(f"https://{instance.node_address}:{REGISTRY_PORT}")
    authority = _quoted(str(instance.pki / "ca.crt"))
    return f'server = {url}\n[host.{url}]\n  capabilities = ["pull", "resolve"]\n  ca = {authority}\n'


def containerd(instance: Instance, system: Path, snapshotter: str) -> str:
    """containerd's TOML."""
    cri = 'plugins."io.containerd.grpc.v1.cri"'
    runc = f"{cri}.containerd.runtimes.runc"
    return f"""version = 2
root = {_quoted(str(instance.data / "containerd"))}
state = "/run/containerd"
oom_score = 0
disabled_plugins = {json.dumps(_UNUSED_PLUGINS)}
[grpc]
  address = {_quoted(str(CONTAINERD_SOCKET))}
[metrics]
  address = {_quoted(CONTAINERD_METRICS)}
[{cri}]
  sandbox_image = {_quoted(PAUSE)}
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_apparmor = true
  max_container_log_line_size = 16384
  [{cri}.registry]
    config_path = {_quoted(str(instance.settings / "registries"))}
  [{cri}.containerd]
    snapshotter = {_quoted(snapshotter)}
    default_runtime_name = "runc"
  [{runc}]
    runtime_type = "io.containerd.runc.v2"
  [{runc}.options]
    SystemdCgroup = false
    BinaryName = {_quoted(str(instance.programs / "runc"))}
  [{cri}.cni]
    bin_dir = {_quoted(str(system / "usr/lib/cni"))}
    conf_dir = {_quoted(str(instance.settings / "cni"))}
"""


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)

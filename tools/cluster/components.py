"""The node's components as data: command line, what must answer first, and how to ask whether it is well.

Starting, watching and ending them is the supervisor's; the files that they read are in `settings` and `certificates`.
"""

from __future__ import annotations

from dataclasses import dataclass

from tools.cluster import settings
from tools.cluster.instance import (
    API_PORT,
    EMBEDDED_LABEL,
    KUBELET_FOLDER,
    NODE_NAME,
    POD_NETWORK,
    REGISTRY_PORT,
    SERVICE_NETWORK,
    Instance,
)

NAMES = (
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "registry",
)

# one of each, and nobody else whom the limits would protect
_ALONE = ("--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400")
_DELEGATED = ("authentication-kubeconfig", "authorization-kubeconfig")


@dataclass(frozen=True, kw_only=True)
class Component:
    """One long-running program.

    `health` is a URL that answers 200 when all is well; any answer shows that it is not hung. `stop_seconds` is how
    long it may take to end after SIGTERM before it is killed.
    """

    name: str
    command: tuple[str, ...]
    health: str
    after: tuple[str, ...] = ()
    stop_seconds: float = 2.0


def components(instance: Instance) -> tuple[Component, ...]:
    """All components of a node, in the order in which they start and against which they stop."""
    pki, data = instance.pki, instance.data
    node = str(instance.node_address)

    def kubernetes(name: str, *flags: str) -> tuple[str, ...]:
        return (str(instance.programs / name), *flags)

    def client(name: str) -> tuple[str, ...]:
        file = pki / f"{name}.kubeconfig"
        return tuple(f"--{flag}={file}" for flag in ("kubeconfig", *_DELEGATED))

    return (
        Component(
            name="etcd",
            command=kubernetes(
                "etcd",
                f"--data-dir={data / 'etcd'}",
                # What was written survives any end of the process: the kernel's page cache has it, and records with a
                # torn tail are cut at the start. A power loss can cost the cluster's last seconds, or the whole data:
                # accepted for a cluster that lives on one machine, against several fsyncs for every object written.
                "--unsafe-no-fsync",
                "--listen-client-urls=http://127.0.0.1:2379",
                "--advertise-client-urls=http://127.0.0.1:2379",
                "--listen-peer-urls=http://127.0.0.1:2380",
                "--quota-backend-bytes=2147483648",
                "--auto-compaction-retention=1h",
                # a member without peers elects itself after one such time
                "--election-timeout=250",
                "--heartbeat-interval=50",
                "--log-level=warn",
            ),
            health="http://127.0.0.1:2379/health",
        ),
        Component(
            name="containerd",
            command=kubernetes("containerd", f"--config={instance.settings / 'containerd.toml'}"),
            health=f"http://{settings.CONTAINERD_METRICS}/v1/metrics",
        ),
        Component(
            name="registry",
            command=kubernetes("docker-registry", "serve", str(instance.settings / "registry.yaml")),
            health=f"https://127.0.0.1:{REGISTRY_PORT}/v2/",
        ),
        Component(
            name="kube-apiserver",
            command=kubernetes(
                "kube-apiserver",
                "--etcd-servers=http://127.0.0.1:2379",
                "--bind-address=0.0.0.0",
                f"--advertise-address={node}",
                f"--secure-port={API_PORT}",
                f"--tls-cert-file={pki / 'apiserver.crt'}",
                f"--tls-private-key-file={pki / 'apiserver.key'}",
                f"--client-ca-file={pki / 'ca.crt'}",
                "--authorization-mode=Node,RBAC",
                "--enable-admission-plugins=NodeRestriction",
                "--allow-privileged=true",
                f"--service-cluster-ip-range={SERVICE_NETWORK}",
                "--service-node-port-range=30000-32767",
                "--service-account-issuer=https://kubernetes.default.svc",
                f"--service-account-key-file={pki / 'sa.pub'}",
                f"--service-account-signing-key-file={pki / 'sa.key'}",
                f"--kubelet-certificate-authority={pki / 'ca.crt'}",
                f"--kubelet-client-certificate={pki / 'apiserver-kubelet.crt'}",
                f"--kubelet-client-key={pki / 'apiserver-kubelet.key'}",
                "--kubelet-preferred-address-types=InternalIP",
                "--profiling=false",
                "--v=1",
            ),
            health=f"https://127.0.0.1:{API_PORT}/readyz",
            after=("etcd",),
            stop_seconds=1.0,
        ),
        Component(
            name="kube-controller-manager",
            command=kubernetes(
                "kube-controller-manager",
                *client("controller-manager"),
                "--use-service-account-credentials=true",
                f"--service-account-private-key-file={pki / 'sa.key'}",
                f"--root-ca-file={pki / 'ca.crt'}",
                f"--cluster-signing-cert-file={pki / 'ca.crt'}",
                f"--cluster-signing-key-file={pki / 'ca.key'}",
                f"--cert-dir={data / 'controller-manager'}",
                "--allocate-node-cidrs=false",
                f"--cluster-cidr={POD_NETWORK}",
                *_ALONE,
                "--bind-address=127.0.0.1",
                "--profiling=false",
                "--v=1",
            ),
            health="https://127.0.0.1:10257/healthz",
            after=("kube-apiserver",),
        ),
        Component(
            name="kube-scheduler",
            command=kubernetes(
                "kube-scheduler",
                *client("scheduler"),
                f"--cert-dir={data / 'scheduler'}",
                *_ALONE,
                "--bind-address=127.0.0.1",
                "--profiling=false",
                "--v=1",
            ),
            health="https://127.0.0.1:10259/healthz",
            after=("kube-apiserver",),
        ),
        Component(
            name="kubelet",
            command=kubernetes(
                "kubelet",
                f"--config={instance.settings / 'kubelet.yaml'}",
                f"--kubeconfig={pki / 'kubelet.kubeconfig'}",
                f"--root-dir={KUBELET_FOLDER}",
                f"--cert-dir={data / 'kubelet-pki'}",
                f"--hostname-override={NODE_NAME}",
                f"--node-ip={node}",
                f"--node-labels={EMBEDDED_LABEL}=true",
            ),
            health="http://127.0.0.1:10248/healthz",
            after=("kube-apiserver", "containerd"),
        ),
        Component(
            name="kube-proxy",
            command=kubernetes("kube-proxy", f"--config={instance.settings / 'proxy.yaml'}", "--v=1"),
            health="http://127.0.0.1:10256/livez",
            after=("kube-apiserver",),
        ),
    )

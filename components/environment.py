"""What an environment gives to its workloads: quota, network rules, flags, configuration.

Leaves to others: the namespaces and accounts (`components.namespaces`), the database and its secrets.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, networking

from components.labels import MEMBER, labels, role


@dataclass(frozen=True, kw_only=True)
class EnvironmentArgs:
    """`flags` is the text of the release's flag file (flagd's format); `pods` bounds how many pods may exist."""

    namespace: str
    flags: str
    pods: int


class Environment(pulumi.ComponentResource):
    """Quota, network policies and the flags of the release."""

    flags: pulumi.Output[str]

    def __init__(self, name: str, args: EnvironmentArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:environment:Environment", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        core.v1.ResourceQuota(
            "quota",
            metadata=meta.v1.ObjectMetaArgs(name="quota", namespace=args.namespace, labels=labels("quota")),
            spec=core.v1.ResourceQuotaSpecArgs(
                hard={"pods": str(args.pods), "limits.memory": f"{args.pods}Gi", "persistentvolumeclaims": "8"}
            ),
            opts=child,
        )
        self._network(args.namespace)
        # Named by its content: pods of the release before keep the flags they were rolled out with.
        flags = f"flags-{hashlib.sha256(args.flags.encode()).hexdigest()[:12]}"
        core.v1.ConfigMap(
            "flags",
            metadata=meta.v1.ObjectMetaArgs(name=flags, namespace=args.namespace, labels=labels("flags")),
            data={"flags.json": args.flags},
            immutable=True,
            opts=child,
        )
        self.flags = pulumi.Output.from_input(flags)
        self.register_outputs({"flags": self.flags})

    def _network(self, namespace: str) -> None:
        """Nothing reaches a pod but what is named here: the service its users, the database its clients."""
        self._ingress("deny", namespace, selector={}, ingress=[])
        self._ingress("api", namespace, selector=role("api"), ingress=[_from(None, 8000)])
        self._ingress("database", namespace, selector=role("database"), ingress=[_from(MEMBER, 5432)])
        self._ingress("worker", namespace, selector=role("worker"), ingress=[_from(MEMBER, 8001)])

    def _ingress(
        self,
        name: str,
        namespace: str,
        *,
        selector: dict[str, str],
        ingress: list[networking.v1.NetworkPolicyIngressRuleArgs],
    ) -> None:
        networking.v1.NetworkPolicy(
            f"ingress-{name}",
            metadata=meta.v1.ObjectMetaArgs(name=f"ingress-{name}", namespace=namespace, labels=labels(name)),
            spec=networking.v1.NetworkPolicySpecArgs(
                pod_selector=meta.v1.LabelSelectorArgs(match_labels=selector),
                policy_types=["Ingress"],
                ingress=ingress,
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )


def _from(pods: dict[str, str] | None, port: int) -> networking.v1.NetworkPolicyIngressRuleArgs:
    """Allows `port` from the pods with these labels in the same namespace, or from everywhere when None."""
    return networking.v1.NetworkPolicyIngressRuleArgs(
        from_=None
        if pods is None
        else [networking.v1.NetworkPolicyPeerArgs(pod_selector=meta.v1.LabelSelectorArgs(match_labels=pods))],
        ports=[networking.v1.NetworkPolicyPortArgs(port=port, protocol="TCP")],
    )

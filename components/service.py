"""How a workload is reached, inside the cluster and from outside.

Leaves to others: the pods behind it (`components.workload`).
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta

from components.labels import labels, role


@dataclass(frozen=True, kw_only=True)
class ServiceArgs:
    """How the workload of the same name is reached: a Service of `type` in front of `port`."""

    namespace: str
    type: str
    port: int


class Service(pulumi.ComponentResource):
    """The address of a workload; `url` is the one inside the cluster."""

    url: pulumi.Output[str]

    def __init__(self, name: str, args: ServiceArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:workload:Service", name, None, opts)
        core.v1.Service(
            name,
            metadata=meta.v1.ObjectMetaArgs(
                name=name,
                namespace=args.namespace,
                labels=labels(name),
                # There is no pod behind it before the first roll-out, and waiting for one would wait forever.
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=core.v1.ServiceSpecArgs(
                type=args.type,
                selector=role(name),
                ports=[core.v1.ServicePortArgs(name="http", port=80, target_port=args.port)],
            ),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.url = pulumi.Output.from_input(f"http://{name}.{args.namespace}.svc")
        self.register_outputs({"url": self.url})

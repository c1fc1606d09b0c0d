"""The two namespaces of an environment and who may do what in them.

`<environment>` holds the workloads, the database and the step Jobs; `<environment>-records` holds the records and
outlives the stack. Leaves to others: everything inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import pulumi
from pulumi_kubernetes import core, meta, rbac

from components.labels import labels
from steps import permissions
from steps.permissions import Rule
from steps.vocabulary import Scope, Step, namespace, step_namespace

POD_SECURITY = {
    f"pod-security.kubernetes.io/{mode}{suffix}": value
    for mode in ("enforce", "audit", "warn")
    for suffix, value in (("", "restricted"), ("-version", "latest"))
}


@dataclass(frozen=True, kw_only=True)
class NamespacesArgs:
    """`environment` is the stack's name; both namespaces are derived from it, so stacks can share a cluster.

    `deployment` is the number whose results the steps may write.
    """

    environment: str
    deployment: int


class Namespaces(pulumi.ComponentResource):
    """Both namespaces at the restricted level, with one service account a step that may do what the step does."""

    def __init__(self, name: str, args: NamespacesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:environment:Namespaces", name, None, opts)
        self._args = args
        self._spaces = [
            core.v1.Namespace(
                scope,
                metadata=meta.v1.ObjectMetaArgs(
                    name=namespace(scope, args.environment),
                    labels={**labels(namespace(scope, args.environment)), **POD_SECURITY},
                ),
                # Deleting a Namespace deletes the database's claim and the records with it.
                opts=pulumi.ResourceOptions(parent=self, protect=True, retain_on_delete=True),
            )
            for scope in Scope
        ]
        for step in Step:
            self._account(step)
        self.register_outputs({})

    def _account(self, step: Step) -> None:
        environment = self._args.environment
        home = step_namespace(step, environment)
        account = core.v1.ServiceAccount(
            step,
            metadata=meta.v1.ObjectMetaArgs(name=step, namespace=home, labels=labels(step)),
            opts=pulumi.ResourceOptions(parent=self, depends_on=self._spaces),
        )
        rules = permissions.rules(step, self._args.deployment)
        for scope in dict.fromkeys(rule.scope for rule in rules):
            metadata = meta.v1.ObjectMetaArgs(name=step, namespace=namespace(scope, environment), labels=labels(step))
            role = rbac.v1.Role(
                f"{step}-{scope}",
                metadata=metadata,
                rules=[_policy_rule(rule) for rule in rules if rule.scope is scope],
                opts=pulumi.ResourceOptions(parent=self, depends_on=self._spaces),
            )
            rbac.v1.RoleBinding(
                f"{step}-{scope}",
                metadata=metadata,
                role_ref=rbac.v1.RoleRefArgs(api_group="rbac.authorization.k8s.io", kind="Role", name=step),
                subjects=[rbac.v1.SubjectArgs(kind="ServiceAccount", name=step, namespace=home)],
                opts=pulumi.ResourceOptions(parent=self, depends_on=[account, role]),
            )


def _policy_rule(rule: Rule) -> rbac.v1.PolicyRuleArgs:
    return rbac.v1.PolicyRuleArgs(
        api_groups=[rule.api_group],
        resources=[rule.resource],
        verbs=list(rule.verbs),
        resource_names=list(rule.resource_names) if rule.resource_names else None,
    )

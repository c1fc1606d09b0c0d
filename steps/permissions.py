"""Which Kubernetes verbs each step needs, as data: the program builds a Role and a binding a step from it.

What is not listed is refused with HTTP 403. RBAC cannot restrict `create` by name, so a step could create any ConfigMap
in the records' namespace, but read and change only its own result. Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from steps.vocabulary import Scope, Step, result_name

__all__ = ["PERMISSIONS", "Rule", "Scope", "Step", "rules"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One rule of a Role in the namespace `scope`.

    `own_result_of` narrows it to the result of that step; which name that is depends on the deployment: see `rules`.
    """

    scope: Scope
    api_group: str
    resource: str
    verbs: tuple[str, ...]
    own_result_of: Step | None = None
    names: tuple[str, ...] | None = None

    @property
    def resource_names(self) -> tuple[str, ...] | None:
        """The names it is narrowed to, None for all; raises ValueError while the deployment is not filled in."""
        if self.own_result_of is not None and self.names is None:
            raise ValueError(
                f"the rule of step {self.own_result_of} is for one deployment's result: "
                "take it from steps.permissions.rules(step, deployment)"
            )
        return self.names


def _own_result(step: Step) -> tuple[Rule, ...]:
    return (
        Rule(scope=Scope.RECORDS, api_group="", resource="configmaps", verbs=("create",)),
        Rule(scope=Scope.RECORDS, api_group="", resource="configmaps", verbs=("get", "patch"), own_result_of=step),
    )


_RECORDS = (Rule(scope=Scope.RECORDS, api_group="", resource="configmaps", verbs=("create", "get", "list", "patch")),)

PERMISSIONS: Mapping[Step, tuple[Rule, ...]] = {
    Step.RECORD_OPEN: (
        *_RECORDS,
        *(
            rule
            for scope in Scope
            for rule in (
                Rule(scope=scope, api_group="batch", resource="jobs", verbs=("list", "patch")),
                Rule(scope=scope, api_group="", resource="pods", verbs=("list", "watch")),
            )
        ),
    ),
    Step.ACCESS: _own_result(Step.ACCESS),
    Step.BACKUP: _own_result(Step.BACKUP),
    Step.MIGRATE: _own_result(Step.MIGRATE),
    Step.CAPACITY: (
        *_own_result(Step.CAPACITY),
        Rule(scope=Scope.ENVIRONMENT, api_group="apps", resource="deployments", verbs=("get", "list", "watch")),
        Rule(scope=Scope.ENVIRONMENT, api_group="apps", resource="deployments/scale", verbs=("patch",)),
        Rule(scope=Scope.ENVIRONMENT, api_group="", resource="pods", verbs=("list", "watch")),
        Rule(scope=Scope.ENVIRONMENT, api_group="", resource="pods/log", verbs=("get",)),
    ),
    Step.SMOKE: _own_result(Step.SMOKE),
    Step.BAKE: _own_result(Step.BAKE),
    Step.RECORD_CLOSE: _RECORDS,
}


def rules(step: Step, deployment: int) -> tuple[Rule, ...]:
    """The rules of a step while `deployment` is under way, with the names of its result filled in.

    The deployment before is allowed too: its steps may still run, and write how they were interrupted, when the Roles
    have already moved on.
    """
    numbers = [number for number in (deployment - 1, deployment) if number > 0]
    return tuple(
        rule
        if rule.own_result_of is None
        else replace(rule, names=tuple(result_name(rule.own_result_of, number) for number in numbers))
        for rule in PERMISSIONS[step]
    )

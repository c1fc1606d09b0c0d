"""What the tests of the steps share: a context without a cluster, and secrets in files."""

from __future__ import annotations

import io
from pathlib import Path

from steps.context import Context, Log, Redactor
from steps.errors import ClusterError
from steps.kube import Cluster
from steps.vocabulary import Step


class Recording:
    """A context whose log can be read."""

    def __init__(
        self, step: Step, *, deployment: int = 1, version: str = "1.0.0", environment: str = "staging"
    ) -> None:
        self.stream = io.StringIO()
        redactor = Redactor()
        self.context = Context(
            step=step,
            environment=environment,
            deployment=deployment,
            version=version,
            records_namespace=f"{environment}-records",
            namespace=environment,
            pod=f"{step}-{deployment}-pod",
            log=Log(str(step), redactor, stream=self.stream),
            redactor=redactor,
            connect_cluster=no_cluster,
        )

    @property
    def output(self) -> str:
        """Everything logged so far."""
        return self.stream.getvalue()


def no_cluster() -> Cluster:
    """Stands for a pod without a service account."""
    raise ClusterError("no access to a Kubernetes cluster from this test")


def secret(folder: Path, name: str, value: str) -> str:
    """The path of a file with a secret, as a Secret's volume has it."""
    path = folder / name
    path.write_text(value + "\n")
    return str(path)

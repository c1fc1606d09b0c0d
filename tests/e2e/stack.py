"""A stack of its own on the embedded cluster, driven as a user drives one: by `pulumi`, `release` and `kubectl`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightkube
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.batch_v1 import Job
from lightkube.resources.core_v1 import ConfigMap, Namespace

from steps.vocabulary import LABEL_DEPLOYMENT, Step, records_namespace
from tools import paths, stack
from tools.environment import environment

UPDATE_SECONDS = 300
# Short enough to test with, long enough for a busy machine; what they mean is in Pulumi.yaml.
TEST_SETTINGS = {
    "release:apiReplicas": "2",
    "release:bakeSeconds": "5",
    "release:bakeRate": "10",
    "release:maxP99Milliseconds": "5000",
    "release:stepDeadlineSeconds": "20",
    "release:lockTimeoutMilliseconds": "100",
    "release:rolloutDeadlineSeconds": "45",
}


@dataclass(frozen=True, kw_only=True)
class Stack:
    """One environment; `state` is the folder of its own file backend, `client` reaches the cluster."""

    name: str
    state: Path
    images: Mapping[str, str]
    client: lightkube.Client

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a user's shell (`make shell`) for this stack."""
        base = {**os.environ, "PULUMI_BACKEND_URL": f"file://{self.state}", "NO_COLOR": "1"}
        return {**base, **environment(self.name, base=base)}

    @property
    def records(self) -> str:
        """The namespace of the records."""
        return records_namespace(self.name)

    def configure(self, version: str, **settings: str) -> None:
        """Makes the stack and its configuration for `version`, with the tests' settings."""
        with _environ("PULUMI_BACKEND_URL", f"file://{self.state}"):
            stack.embedded_config(self.name, version, self.images)
        for key, value in {**TEST_SETTINGS, **settings}.items():
            self.pulumi("config", "set", key, value)

    def pulumi(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Plain pulumi on this stack."""
        pulumi = ["pulumi", *arguments, "--stack", self.name, "--non-interactive"]
        return self._run(pulumi, check=check)

    def up(self, version: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`release up`."""
        return self.release("up", self.name, version, check=check)

    def release(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """The command line of the project."""
        return self._run([sys.executable, "-m", "release.cli", *arguments], check=check)

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
        """Starts plain pulumi in a process group of its own, its output in `log`."""
        with log.open("wb") as output:
            return subprocess.Popen(
                ["pulumi", *arguments, "--stack", self.name, "--non-interactive"],
                cwd=paths.ROOT,
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def status(self) -> dict[str, Any]:
        """`release status --json`."""
        document: dict[str, Any] = json.loads(self.release("status", self.name, "--json").stdout)
        return document

    def history(self) -> list[dict[str, Any]]:
        """The records that `release history --json` lists, newest first or last as it gives them."""
        document = json.loads(self.release("history", self.name, "--json").stdout)
        return list(document["records"])

    def sql(self, statement: str) -> str:
        """Runs a statement as the owner inside the database's pod; the rows as psql prints them unaligned."""
        script = (
            'PGPASSWORD="$(cat /run/secrets/postgres/password)" exec psql -h 127.0.0.1 -U forecast_owner -d forecast'
        )
        kubectl = ["kubectl", "-n", self.name, "exec", "-i", "database-0", "--", "sh", "-c"]
        done = self._run([*kubectl, f"{script} -v ON_ERROR_STOP=1 -qtA"], check=True, given=statement)
        return done.stdout.strip()

    def get(self, path: str) -> Any:
        """The service's answer to GET, as JSON."""
        with urllib.request.urlopen(f"{self.status()['url']}{path}", timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    def post_readings(self, readings: list[dict[str, Any]]) -> None:
        """Stores readings through the service."""
        request = urllib.request.Request(  # noqa: S310
            f"{self.status()['url']}/v1/readings",
            data=json.dumps({"readings": readings}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            assert answer.status == 201

    def jobs(self, deployment: int) -> dict[Step, str]:
        """The uid of each step's Job of a deployment."""
        found = {}
        for namespace in (self.name, self.records):
            for job in self.client.list(Job, namespace=namespace, labels={LABEL_DEPLOYMENT: str(deployment)}):
                assert job.metadata is not None and job.metadata.labels is not None and job.metadata.uid is not None
                found[Step(job.metadata.labels["release.energy/step"])] = job.metadata.uid
        return found

    def ready(self, name: str) -> tuple[int, int]:
        """(ready, wanted) pods of a Deployment."""
        deployment = self.client.get(Deployment, name, namespace=self.name)
        assert deployment.status is not None and deployment.spec is not None
        return deployment.status.readyReplicas or 0, deployment.spec.replicas or 0

    def scale_database(self, pods: int) -> None:
        """Takes the database away (0) or brings it back (1), and waits until it is so."""
        kubectl = ["kubectl", "-n", self.name]
        self._run([*kubectl, "scale", "statefulset/database", f"--replicas={pods}"], check=True)
        wanted = "--for=condition=Ready" if pods else "--for=delete"
        if pods:
            self._run([*kubectl, "rollout", "status", "statefulset/database", "--timeout=60s"], check=True)
        self._run([*kubectl, "wait", wanted, "pod/database-0", "--timeout=60s"], check=True)

    def config_maps(self) -> list[ConfigMap]:
        """Everything in the records' namespace."""
        return list(self.client.list(ConfigMap, namespace=self.records))

    def remove(self) -> None:
        """Deletes both namespaces and the configuration; the state's folder is the test's temporary one."""
        for namespace in (self.name, self.records):
            try:
                self.client.delete(Namespace, namespace)
            except lightkube.ApiError as error:
                if error.status.code != 404:
                    raise
        for file in paths.STACKS.glob(f"*Pulumi.{self.name}.yaml*"):
            file.unlink()

    def run(self, command: list[str], *, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Any command in the project's folder, with an environment of its own."""
        return subprocess.run(
            command,
            cwd=paths.ROOT,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=UPDATE_SECONDS,
            check=False,
        )

    def _run(self, command: list[str], *, check: bool, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            command,
            cwd=paths.ROOT,
            env=self.variables,
            input=given or "",
            capture_output=True,
            text=True,
            timeout=UPDATE_SECONDS,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command[:6])} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        return done


@contextmanager
def _environ(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before

"""The way to the cluster from this machine, and the records that are there.

What a record looks like belongs to `steps.records`, what the program deploys to the Pulumi provider: both read the same
kubeconfig and the same context.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

import lightkube

from release.errors import ClusterError, RecordError
from steps import kube
from steps.records import Entry, Record
from steps.store import RecordStore
from steps.vocabulary import RecordStatus

# Somebody waits in front of a screen: an API that is just restarting is waited for, one that is gone is not.
PATIENCE_SECONDS: Final = 10.0


def connect(context: str | None) -> lightkube.Client:
    """A client for `context` of the kubeconfig (KUBECONFIG, else the user's own), None for its current context.

    Raises ClusterError when there is no such configuration; whether the cluster answers shows with the first call.
    """
    try:
        return kube.client(context=context or None)
    except ClusterError as error:
        raise ClusterError(f"{error}; {_mend(context)}") from error


def store(client: lightkube.Client, environment: str) -> RecordStore:
    """The records of `environment`, read and written with a person's patience."""
    return RecordStore(client, environment, patience=PATIENCE_SECONDS)


@dataclass(frozen=True, kw_only=True)
class Damaged:
    """A record that cannot be read. It cannot be mended either (it is immutable), so it must not stop what comes after:
    it counts as a failed deployment of nothing, and `release history --verify` says what is wrong with it.
    """

    deployment: int
    reason: str
    status: RecordStatus = RecordStatus.FAILED
    version: str = ""
    inputs: str = ""


def records(client: lightkube.Client, environment: str) -> list[Record | Damaged]:
    """All records of `environment`, oldest first; none when it was never deployed to.

    Raises ClusterError when the cluster does not answer.
    """
    try:
        entries = store(client, environment).list()
    except ClusterError as error:
        raise ClusterError(f"{error}; {_mend(client.config.context_name)}") from error
    return [_read(entry) for entry in entries]


def _read(entry: Entry) -> Record | Damaged:
    try:
        return entry.record
    except RecordError as error:
        return Damaged(deployment=entry.deployment, reason=str(error))


def _mend(context: str | None) -> str:
    file = os.environ.get("KUBECONFIG") or "~/.kube/config"
    return (
        f"looked in {file}, context {context or '(current)'}; start the embedded cluster with `make up`, or name "
        "another one with `kubernetes:context: NAME` in Pulumi.<stack>.yaml"
    )

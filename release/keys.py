"""The table of configuration keys: for each its rule, in words and as code, its default and its description.

What is required of several keys together, and the messages, belong to `release.settings`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from release.manifest import check_image
from release.plan import Flow

MINIMUM_SECRET_LENGTH: Final = 16


class DataProvider(StrEnum):
    """Where the platform's PostgreSQL is."""

    IN_CLUSTER = "in-cluster"
    URL = "url"
    AWS = "aws"


class BackupProvider(StrEnum):
    """How a backup is made."""

    DUMP = "dump"


class ServiceType(StrEnum):
    """How the API's Service is reached."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"


@dataclass(frozen=True, kw_only=True)
class Key:
    """One configuration key.

    `field` is the attribute of Settings that it fills, None for a secret.
    `read` turns the text into the attribute's value or raises ValueError; `example` goes into the mending command.
    `shapes` marks what changes a Job or a workload, so that another value makes another deployment.
    """

    name: str
    field: str | None
    rule: str
    read: Callable[[str], Any]
    example: str = ""
    description: str
    default: str | None = None
    required: bool = False
    shapes: bool = False

    @property
    def secret(self) -> bool:
        """Whether the value must be stored encrypted and never be shown."""
        return self.field is None


def _integer(name: str, field: str, low: int, high: int, default: int, description: str) -> Key:
    def read(text: str) -> int:
        # int() would also take "1_000", " 5 " and digits of other scripts.
        if not re.fullmatch(r"[0-9]{1,12}", text) or not low <= int(text) <= high:
            raise ValueError
        return int(text)

    return Key(
        name=name,
        field=field,
        rule=f"a whole number from {low} to {high}",
        read=read,
        example=str(default),
        description=description,
        default=str(default),
        shapes=True,
    )


def _number(name: str, field: str, low: float, high: float, default: float, description: str) -> Key:
    def read(text: str) -> float:
        # float() would also take "nan" and "inf", which no comparison below would stop.
        if not re.fullmatch(r"[0-9]{1,12}(?:\.[0-9]{1,12})?(?:[eE][-+]?[0-9]{1,2})?", text):
            raise ValueError
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError
        return value

    return Key(
        name=name,
        field=field,
        rule=f"a number from {low:g} to {high:g}",
        read=read,
        example=f"{default:g}",
        description=description,
        default=f"{default:g}",
        shapes=True,
    )


def _choice(name: str, field: str, words: type[StrEnum], allowed: str, default: StrEnum, description: str) -> Key:
    return Key(
        name=name,
        field=field,
        rule=f"one of {allowed}",
        read=words,
        example=default.value,
        description=description,
        default=default.value,
        shapes=True,
    )


def _image(name: str, field: str, required: bool, description: str) -> Key:
    return Key(
        name=name,
        field=field,
        rule="an image pinned by digest, registry/name@sha256:<64 hex digits>",
        read=check_image if required else _optional(check_image),
        example=f"registry.example/{field.removesuffix('_image')}@sha256:…",
        description=description,
        required=required,
        shapes=True,
    )


def _size(name: str, field: str, description: str) -> Key:
    return Key(
        name=name,
        field=field,
        rule="a quantity such as 10Gi",
        read=_matching(r"[1-9][0-9]{0,8}(?:Mi|Gi|Ti|M|G|T)"),
        example="10Gi",
        description=description,
        default="10Gi",
    )


def _password(name: str, required: bool, description: str) -> Key:
    def read(text: str) -> str:
        if len(text) < MINIMUM_SECRET_LENGTH or not text.isprintable():
            raise ValueError
        return text

    return Key(
        name=name,
        field=None,
        rule=f"at least {MINIMUM_SECRET_LENGTH} printable characters, stored with --secret",
        read=read,
        description=description,
        required=required,
    )


def _matching(pattern: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return read


def _optional(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text else None


def _folder(text: str) -> Path:
    if not text.strip() or not text.isprintable():
        raise ValueError
    return Path(text)


def _database_url(text: str) -> str:
    parts = urlsplit(text)
    complete = parts.hostname and parts.username and parts.password and parts.path.strip("/")
    # Reading the port raises ValueError when it is out of range.
    if parts.scheme not in ("postgresql", "postgres") or not complete or parts.port == 0:
        raise ValueError
    return text


KEYS: Final[tuple[Key, ...]] = (
    Key(
        name="release:folder",
        field="folder",
        rule="the folder of an assembled release",
        read=_folder,
        example=".local/releases/1.0.0",
        description="Folder of the assembled release that this stack deploys (it holds release.yaml).",
        required=True,
    ),
    _choice(
        "release:flow",
        "flow",
        Flow,
        "staging",
        Flow.STAGING,
        "Which way a release goes through this environment: staging, or production.",
    ),
    _image("release:stepsImage", "steps_image", True, "Image of the step Jobs, by digest."),
    _image(
        "release:databaseImage",
        "database_image",
        False,
        "Image of the in-cluster PostgreSQL, by digest; needed when data:provider is in-cluster.",
    ),
    Key(
        name="kubernetes:context",
        field="context",
        rule="the name of a context in the kubeconfig",
        read=_optional(_matching(r"\S{1,253}")),
        example="kind-staging",
        description="Context of the kubeconfig to deploy to; without one, the kubeconfig's current context.",
    ),
    _choice(
        "data:provider",
        "data_provider",
        DataProvider,
        "in-cluster, url",
        DataProvider.IN_CLUSTER,
        "Where PostgreSQL is: in-cluster (run by this stack) or url (an existing one, see release:databaseUrl).",
    ),
    Key(
        name="release:databaseUrl",
        field=None,
        rule="postgresql://owner:password@host:port/database, stored with --secret",
        read=_database_url,
        description="URL of an existing PostgreSQL as the schema's owner (secret); needed when data:provider is url.",
    ),
    _password(
        "release:ownerPassword",
        False,
        "Password of the in-cluster database's owner (secret); needed when data:provider is in-cluster.",
    ),
    _password("release:appPassword", True, "Password of the application's own database role (secret)."),
    _integer("release:apiReplicas", "api_replicas", 1, 100, 3, "Pods of the API at full capacity."),
    _integer("release:workerReplicas", "worker_replicas", 1, 20, 1, "Pods of the worker at full capacity."),
    _choice(
        "release:serviceType",
        "service_type",
        ServiceType,
        "ClusterIP, NodePort, LoadBalancer",
        ServiceType.CLUSTER_IP,
        "Type of the API's Service.",
    ),
    Key(
        name="release:storageClass",
        field="storage_class",
        rule="the name of a storage class, or empty for the cluster's default",
        read=_optional(_matching(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")),
        example="standard",
        description="Storage class of the claims; empty means the cluster's default.",
        default="",
    ),
    _size("release:databaseStorage", "database_storage", "Size of the in-cluster database's claim."),
    _size("release:backupStorage", "backup_storage", "Size of the claim that holds the backups."),
    _integer("release:backupKeep", "backup_keep", 1, 1000, 10, "How many complete backups are kept."),
    _choice(
        "backup:provider",
        "backup_provider",
        BackupProvider,
        "dump",
        BackupProvider.DUMP,
        "How backups are made: dump (pg_dump with a manifest of row counts and checksums).",
    ),
    _integer(
        "release:bakeSeconds", "bake_seconds", 5, 604800, 3600, "Seconds that a release bakes before it is healthy."
    ),
    _number("release:bakeRate", "bake_rate", 0.1, 200, 2, "Requests per second of the bake's synthetic client."),
    _number("release:maxErrorRate", "max_error_rate", 0, 1, 0.01, "Largest share of failed requests in the bake."),
    _integer(
        "release:maxP99Milliseconds",
        "max_p99_milliseconds",
        1,
        60000,
        500,
        "Largest 99th percentile of the response time in the bake, in milliseconds.",
    ),
    _integer(
        "release:stepDeadlineSeconds",
        "step_deadline_seconds",
        10,
        86400,
        1800,
        "Deadline of a step's Job in seconds; the bake's is its own time plus 600.",
    ),
    _integer(
        "release:rolloutDeadlineSeconds",
        "rollout_deadline_seconds",
        10,
        86400,
        600,
        "Seconds that the roll-out of a workload may take.",
    ),
    _integer(
        "release:lockTimeoutMilliseconds",
        "lock_timeout_milliseconds",
        10,
        60000,
        500,
        "Milliseconds that one attempt of a migration waits for a lock.",
    ),
    _integer("release:forecastInterval", "forecast_interval", 1, 86400, 30, "Seconds between two runs of the worker."),
)

"""The database: a PostgreSQL in the cluster with a claim of its own, or one that exists elsewhere, by its URL.

Leaves to others: roles and grants (`components.access`), backup, migrations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

import pulumi
from pulumi_kubernetes import apps, core, meta

from components.claim import Storage, protected_claim
from components.labels import labels, role
from components.postgres import NAME, OWNER, SUPERUSER_SECRET, server_pod

APPLICATION = "forecast_app"


@dataclass(frozen=True, kw_only=True)
class DatabaseArgs:
    """`url` is the owner's URL of an existing PostgreSQL; without it one is run in the cluster from `image`.

    `storage` is for the one in the cluster. The passwords are secrets.
    """

    namespace: str
    application_password: pulumi.Output[str]
    owner_password: pulumi.Output[str] | None = None
    url: pulumi.Output[str] | None = None
    image: str | None = None
    storage: Storage = field(default_factory=lambda: Storage(size="10Gi", storage_class=None))

    def __post_init__(self) -> None:
        if (self.url is None) == (self.image is None):
            raise ValueError(
                "a database is either run in the cluster (image) or elsewhere (url): give exactly one of them"
            )
        if self.image is not None and self.owner_password is None:
            raise ValueError("a database in the cluster needs owner_password: without it nobody could log in")


class Database(pulumi.ComponentResource):
    """Gives the names of the Secrets that hold the owner's and the application's URL (key `url`)."""

    owner_secret: pulumi.Output[str]
    application_secret: pulumi.Output[str]

    def __init__(self, name: str, args: DatabaseArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:data:Database", name, None, opts)
        owner_url = args.url if args.url is not None else self._in_cluster(args)
        application_url = pulumi.Output.all(owner_url, args.application_password).apply(
            lambda both: application_url_of(both[0], both[1])
        )
        owner = core.v1.Secret(
            "owner",
            metadata=meta.v1.ObjectMetaArgs(name="database-owner", namespace=args.namespace, labels=labels("database")),
            string_data={"url": owner_url},
            opts=pulumi.ResourceOptions(parent=self),
        )
        # No fixed name and immutable: a new password makes a new Secret, and the pods that use it are rolled.
        application = core.v1.Secret(
            "application",
            metadata=meta.v1.ObjectMetaArgs(namespace=args.namespace, labels=labels("database")),
            string_data={"url": application_url, "password": args.application_password},
            immutable=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.owner_secret = owner.metadata["name"]
        self.application_secret = application.metadata["name"]
        self.register_outputs({"owner_secret": self.owner_secret, "application_secret": self.application_secret})

    def _in_cluster(self, args: DatabaseArgs) -> pulumi.Output[str]:
        child = pulumi.ResourceOptions(parent=self)
        assert args.owner_password is not None  # noqa: S101 - refused by DatabaseArgs; for the type checker
        password = core.v1.Secret(
            "superuser",
            metadata=meta.v1.ObjectMetaArgs(name=SUPERUSER_SECRET, namespace=args.namespace, labels=labels("database")),
            string_data={"password": args.owner_password},
            opts=child,
        )
        claim = protected_claim(
            "database", namespace=args.namespace, role="database", storage=args.storage, parent=self
        )
        service = core.v1.Service(
            "database",
            metadata=meta.v1.ObjectMetaArgs(
                name="database",
                namespace=args.namespace,
                labels=labels("database"),
                annotations={"pulumi.com/skipAwait": "true"},
            ),
            spec=core.v1.ServiceSpecArgs(
                selector=role("database"),
                ports=[core.v1.ServicePortArgs(name="postgresql", port=5432, target_port=5432)],
            ),
            opts=child,
        )
        apps.v1.StatefulSet(
            "database",
            metadata=meta.v1.ObjectMetaArgs(name="database", namespace=args.namespace, labels=labels("database")),
            spec=apps.v1.StatefulSetSpecArgs(
                service_name="database",
                replicas=1,
                selector=meta.v1.LabelSelectorArgs(match_labels=role("database")),
                template=core.v1.PodTemplateSpecArgs(
                    metadata=meta.v1.ObjectMetaArgs(labels=labels("database")), spec=server_pod(args.image or "")
                ),
            ),
            opts=pulumi.ResourceOptions(parent=self, protect=True, depends_on=[password, claim, service]),
        )
        host = f"database.{args.namespace}.svc"
        return args.owner_password.apply(
            lambda password: f"postgresql://{OWNER}:{quote(password, safe='')}@{host}:5432/{NAME}"
        )


def application_url_of(owner_url: str, password: str) -> str:
    """The same database for the application's role: host, port, name and options of the owner's URL stay."""
    parts = urlsplit(owner_url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{APPLICATION}:{quote(password, safe='')}@{host}").geturl()

"""A whole release as a graph: the ground first, then one step after the other in the order of the plan.

Leaves to others: the plan (`release.plan`), what each part is (its own component), whether it may happen (the gate).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pulumi

from components.access import Access, AccessArgs
from components.backup import Backup, BackupArgs, BackupStorage, BackupStorageArgs
from components.bake import Bake, BakeArgs
from components.capacity import Capacity, CapacityArgs
from components.claim import Storage
from components.database import Database, DatabaseArgs
from components.environment import Environment, EnvironmentArgs
from components.migration import Migration, MigrationArgs
from components.namespaces import Namespaces, NamespacesArgs
from components.record import RecordArgs, RecordClose, RecordCloseArgs, RecordOpen
from components.service import Service, ServiceArgs
from components.step_job import StepContext
from components.verification import Verification, VerificationArgs
from components.workload import Workload, WorkloadArgs
from release.manifest import Release
from release.plan import ROLL_OUT
from release.settings import Settings
from steps.vocabulary import Step

API_PORT = 8000
WORKER_PORT = 8001
# Full capacity, one surge pod of each workload, the database, and the Jobs of two deployments side by side.
PODS_BESIDE_WORKLOADS = 12


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """The stack's secrets, as Outputs that stay encrypted in the state; None where the configuration has none."""

    application_password: pulumi.Output[str]
    owner_password: pulumi.Output[str] | None
    database_url: pulumi.Output[str] | None


@dataclass(frozen=True, kw_only=True)
class ReleaseFlowArgs:
    """What is released (`release`; `document` opens its record) where (`context`, `settings`, `secrets`), by `plan`."""

    plan: Sequence[str]
    context: StepContext
    release: Release
    settings: Settings
    secrets: Secrets
    document: str
    resumes: bool


class ReleaseFlow(pulumi.ComponentResource):
    """Namespaces, then the open record, then the infrastructure, then the rest of the plan, one after the other.

    `url` is the service's address in the cluster, `head` the head of the chain of records.
    """

    url: pulumi.Output[str]
    head: pulumi.Output[Mapping[str, str]]

    def __init__(self, name: str, args: ReleaseFlowArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("energy:release:ReleaseFlow", name, None, opts)
        self._args = args
        namespaces = Namespaces(
            "namespaces",
            NamespacesArgs(environment=args.context.environment, deployment=args.context.deployment),
            opts=pulumi.ResourceOptions(parent=self),
        )
        builders: dict[str, Callable[[pulumi.ResourceOptions], pulumi.Resource]] = {
            Step.ACCESS: self._access,
            Step.BACKUP: self._backup,
            Step.MIGRATE: self._migrate,
            ROLL_OUT: self._roll_out,
            Step.CAPACITY: self._capacity,
            Step.SMOKE: self._smoke,
            Step.BAKE: self._bake,
            Step.RECORD_CLOSE: self._close,
        }
        first, *rest = args.plan
        if first != Step.RECORD_OPEN or Step.RECORD_CLOSE not in rest:
            raise ValueError(f"a plan opens with {Step.RECORD_OPEN} and closes the record; got {', '.join(args.plan)}")
        opened = self._open(self._after(namespaces))
        before: list[pulumi.Resource] = self._infrastructure(self._after(opened))
        for step in rest:
            before = [builders[step](self._after(*before))]
        self.register_outputs({"url": self.url, "head": self.head})

    def _after(self, *resources: pulumi.Resource) -> pulumi.ResourceOptions:
        return pulumi.ResourceOptions(parent=self, depends_on=list(resources))

    def _open(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        args = self._args
        record = RecordArgs(
            context=args.context, document=args.document, manifest=args.release.text, resumes=args.resumes
        )
        return RecordOpen("open", record, opts=opts)

    def _infrastructure(self, opts: pulumi.ResourceOptions) -> list[pulumi.Resource]:
        """What is in every graph, whatever the plan: environment, database, backup storage, the service's address."""
        args, settings = self._args, self._args.settings
        namespace = args.context.namespace
        self._environment = Environment(
            "environment",
            EnvironmentArgs(
                namespace=namespace,
                flags=args.release.flags,
                pods=settings.api_replicas + settings.worker_replicas + PODS_BESIDE_WORKLOADS,
            ),
            opts=opts,
        )
        self._database = Database(
            "database",
            DatabaseArgs(
                namespace=namespace,
                image=settings.database_image if args.secrets.database_url is None else None,
                url=args.secrets.database_url,
                owner_password=args.secrets.owner_password,
                application_password=args.secrets.application_password,
                storage=Storage(size=settings.database_storage, storage_class=settings.storage_class),
            ),
            opts=opts,
        )
        storage = BackupStorage(
            "backup-storage",
            BackupStorageArgs(
                namespace=namespace,
                storage=Storage(size=settings.backup_storage, storage_class=settings.storage_class),
            ),
            opts=opts,
        )
        service = Service("api", ServiceArgs(namespace=namespace, type=settings.service_type, port=API_PORT), opts=opts)
        self.url = service.url
        self._address = f"http://api.{namespace}.svc"
        return [self._environment, self._database, storage, service]

    def _access(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        access = AccessArgs(
            context=self._args.context,
            owner_secret=self._database.owner_secret,
            application_secret=self._database.application_secret,
        )
        return Access("access", access, opts=opts)

    def _backup(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        args = self._args
        backup = BackupArgs(
            context=args.context, owner_secret=self._database.owner_secret, keep=args.settings.backup_keep
        )
        return Backup("backup", backup, opts=opts)

    def _migrate(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        args = self._args
        migration = MigrationArgs(
            context=args.context,
            image=args.release.manifest.images["forecast"],
            target=args.release.manifest.schema_.revision,
            owner_secret=self._database.owner_secret,
            lock_timeout_milliseconds=args.settings.lock_timeout_milliseconds,
        )
        return Migration("migration", migration, opts=opts)

    def _roll_out(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        """The API first: the worker's forecasts are read through it."""
        api = self._workload("api", API_PORT, {}, opts)
        interval = {"FORECAST_INTERVAL": str(self._args.settings.forecast_interval)}
        return self._workload("worker", WORKER_PORT, interval, self._after(api))

    def _workload(
        self, name: str, port: int, environment: Mapping[str, str], opts: pulumi.ResourceOptions
    ) -> pulumi.Resource:
        args = self._args
        workload = WorkloadArgs(
            namespace=args.context.namespace,
            image=args.release.manifest.images["forecast"],
            version=args.context.version,
            module=f"energy_forecast.{name}",
            port=port,
            flags=self._environment.flags,
            database_secret=self._database.application_secret,
            deadline_seconds=args.settings.rollout_deadline_seconds,
            environment=environment,
        )
        return Workload(name, workload, opts=opts)

    def _capacity(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        settings = self._args.settings
        capacity = CapacityArgs(
            context=self._args.context,
            pods={"api": settings.api_replicas, "worker": settings.worker_replicas},
            timeout_seconds=settings.rollout_deadline_seconds,
        )
        return Capacity("capacity", capacity, opts=opts)

    def _smoke(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        verification = VerificationArgs(context=self._args.context, url=self._address)
        return Verification("verification", verification, opts=opts)

    def _bake(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        settings = self._args.settings
        bake = BakeArgs(
            context=self._args.context,
            url=self._address,
            seconds=settings.bake_seconds,
            rate=settings.bake_rate,
            max_error_rate=settings.max_error_rate,
            max_p99_milliseconds=settings.max_p99_milliseconds,
            deadline_seconds=settings.bake_deadline_seconds,
        )
        return Bake("bake", bake, opts=opts)

    def _close(self, opts: pulumi.ResourceOptions) -> pulumi.Resource:
        close = RecordClose("close", RecordCloseArgs(context=self._args.context), opts=opts)
        self.head = close.head
        return close

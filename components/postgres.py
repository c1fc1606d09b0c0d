"""The pod of a PostgreSQL server, for any image that keeps the contract of the official one (POSTGRES_USER, PGDATA …).

Leaves to others: its claim, its address and its secrets (`components.database`).
"""

from __future__ import annotations

from pulumi_kubernetes import core

from components.pods import POSTGRES_UID, Size, restricted_container, restricted_pod, scratch, secret_file

NAME = "forecast"
OWNER = "forecast_owner"
SUPERUSER_SECRET = "database-superuser"  # noqa: S105 - the name of a Secret


def server_pod(image: str) -> core.v1.PodSpecArgs:
    """One PostgreSQL on the claim `database`, its owner's password from the Secret `database-superuser`."""
    run, run_mount = scratch("run", "/var/run/postgresql")
    tmp, tmp_mount = scratch("tmp", "/tmp")  # noqa: S108 - the path inside the container
    password, password_mount = secret_file("superuser", SUPERUSER_SECRET, "/run/secrets/postgres")
    ready = core.v1.ExecActionArgs(command=["pg_isready", "--username", OWNER, "--dbname", NAME, "--host", "127.0.0.1"])
    return core.v1.PodSpecArgs(
        automount_service_account_token=False,
        enable_service_links=False,
        security_context=restricted_pod(POSTGRES_UID),
        # A fast shutdown (SIGINT) ends sessions and writes a checkpoint; that may take a while on a busy server.
        termination_grace_period_seconds=60,
        containers=[
            core.v1.ContainerArgs(
                name="postgres",
                image=image,
                env=[
                    core.v1.EnvVarArgs(name="POSTGRES_USER", value=OWNER),
                    core.v1.EnvVarArgs(name="POSTGRES_DB", value=NAME),
                    core.v1.EnvVarArgs(name="POSTGRES_PASSWORD_FILE", value="/run/secrets/postgres/password"),
                    core.v1.EnvVarArgs(name="PGDATA", value="/var/lib/postgresql/data/pgdata"),
                ],
                ports=[core.v1.ContainerPortArgs(name="postgresql", container_port=5432)],
                readiness_probe=core.v1.ProbeArgs(exec_=ready, period_seconds=2, timeout_seconds=2),
                liveness_probe=core.v1.ProbeArgs(
                    exec_=ready, initial_delay_seconds=60, period_seconds=20, timeout_seconds=5, failure_threshold=6
                ),
                resources=Size(cpu="100m", memory="1Gi").requirements(),
                security_context=restricted_container(),
                volume_mounts=[
                    core.v1.VolumeMountArgs(name="data", mount_path="/var/lib/postgresql/data"),
                    run_mount,
                    tmp_mount,
                    password_mount,
                ],
            )
        ],
        volumes=[
            core.v1.VolumeArgs(
                name="data",
                persistent_volume_claim=core.v1.PersistentVolumeClaimVolumeSourceArgs(claim_name="database"),
            ),
            run,
            tmp,
            password,
        ],
    )

"""The stack's configuration: each key's rule, the rules between keys, and messages that mend without leaking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from release import settings
from release.errors import SettingsError
from release.keys import KEYS, BackupProvider, DataProvider, ServiceType
from release.plan import Flow
from release.settings import Settings

IMAGE = "registry.example/steps@sha256:" + "a" * 64
OWNER = "owner-secret-0123456789"
APP = "app-secret-0123456789"
URL = "postgresql://owner:url-secret-0123456789@db.example:5432/forecast"
SECRETS = {"release:ownerPassword", "release:appPassword", "release:databaseUrl"}


def values(**changes: Any) -> dict[str, Any]:
    """A configuration that is fine, with `release:` keys changed by their last part; None removes one."""
    base: dict[str, Any] = {
        "release:folder": ".local/releases/1.0.0",
        "release:stepsImage": IMAGE,
        "release:databaseImage": IMAGE,
        "release:ownerPassword": OWNER,
        "release:appPassword": APP,
    }
    for name, value in changes.items():
        base[name if ":" in name else f"release:{name}"] = value
    return {name: value for name, value in base.items() if value is not None}


def load(given: dict[str, Any]) -> Settings:
    return settings.load(given, SECRETS, stack="staging")


def problems(given: dict[str, Any], secrets: set[str] = SECRETS) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        settings.load(given, secrets, stack="staging")
    for secret in (OWNER, APP, URL, "url-secret-0123456789"):
        assert secret not in str(caught.value)
    return caught.value.problems


def test_the_least_that_is_needed_gets_the_defaults() -> None:
    assert load(values()) == Settings(
        folder=Path(".local/releases/1.0.0"),
        flow=Flow.STAGING,
        steps_image=IMAGE,
        database_image=IMAGE,
        context=None,
        data_provider=DataProvider.IN_CLUSTER,
        backup_provider=BackupProvider.DUMP,
        api_replicas=3,
        worker_replicas=1,
        service_type=ServiceType.CLUSTER_IP,
        storage_class=None,
        database_storage="10Gi",
        backup_storage="10Gi",
        backup_keep=10,
        bake_seconds=3600,
        bake_rate=2.0,
        max_error_rate=0.01,
        max_p99_milliseconds=500,
        step_deadline_seconds=1800,
        rollout_deadline_seconds=600,
        lock_timeout_milliseconds=500,
        forecast_interval=30,
    )


def test_the_bake_has_its_own_deadline() -> None:
    assert load(values(bakeSeconds="60")).bake_deadline_seconds == 660


def test_no_secret_is_kept() -> None:
    shown = repr(load(values()))
    assert OWNER not in shown
    assert APP not in shown


def test_a_database_elsewhere_needs_its_url_and_neither_image_nor_owner() -> None:
    given = values(databaseImage=None, ownerPassword=None, databaseUrl=URL)
    given["data:provider"] = "url"
    loaded = load(given)
    assert (loaded.data_provider, loaded.database_image) == (DataProvider.URL, None)


def test_numbers_of_a_stack_file_are_as_good_as_text() -> None:
    loaded = load(values(apiReplicas=4, bakeRate=2.5))
    assert (loaded.api_replicas, loaded.bake_rate) == (4, 2.5)


def test_everything_that_is_missing_is_listed_with_the_command_that_mends_it() -> None:
    assert problems({}) == (
        "release:folder is missing; rule: the folder of an assembled release; mend it: "
        "`pulumi config set release:folder .local/releases/1.0.0 -s staging`",
        "release:stepsImage is missing; rule: an image pinned by digest, registry/name@sha256:<64 hex digits>; "
        "mend it: `pulumi config set release:stepsImage registry.example/steps@sha256:… -s staging`",
        "release:appPassword is missing; rule: at least 16 printable characters, stored with --secret; mend it: "
        "`pulumi config set --secret release:appPassword -s staging`",
        "release:databaseImage is missing while data:provider is in-cluster; either "
        "`pulumi config set release:databaseImage registry.example/database@sha256:… -s staging`, or "
        "`pulumi config set data:provider url -s staging` and "
        "`pulumi config set --secret release:databaseUrl -s staging`",
        "release:ownerPassword is missing while data:provider is in-cluster; either "
        "`pulumi config set --secret release:ownerPassword -s staging`, or "
        "`pulumi config set data:provider url -s staging` and "
        "`pulumi config set --secret release:databaseUrl -s staging`",
    )


def test_declared_but_empty_is_missing() -> None:
    """Pulumi.yaml declares every key, and a key without a value arrives as empty text."""
    empty = {key.name: "" for key in KEYS if key.default is None}
    assert problems({**empty, "data:provider": "in-cluster"}, set()) == problems({}, set())


WRONG: list[tuple[str, Any, str]] = [
    ("release:folder", "a\nb", "is 'a\\nb', which breaks its rule"),
    ("release:stepsImage", "steps:latest", "is 'steps:latest', which breaks its rule; rule: an image pinned by digest"),
    ("release:databaseImage", "postgres", "is 'postgres', which breaks its rule; rule: an image pinned by digest"),
    ("kubernetes:context", "two words", "is 'two words'"),
    ("data:provider", "cloud", "rule: one of in-cluster, url"),
    ("data:provider", "aws", "is 'aws', which this version cannot deploy yet"),
    ("release:flow", "production", "is 'production', which this version cannot deploy yet"),
    ("backup:provider", "none", "is 'none'"),
    ("release:apiReplicas", "0", "rule: a whole number from 1 to 100"),
    ("release:apiReplicas", "-1", "is '-1'"),
    ("release:apiReplicas", "3.0", "is '3.0'"),
    ("release:apiReplicas", "1_0", "is '1_0'"),
    ("release:apiReplicas", "٣", "is '٣'"),
    ("release:apiReplicas", True, "is True"),
    ("release:apiReplicas", {"api": 3}, "is {'api': 3}"),
    ("release:workerReplicas", "21", "rule: a whole number from 1 to 20"),
    ("release:serviceType", "nodeport", "rule: one of ClusterIP, NodePort, LoadBalancer"),
    ("release:storageClass", "Fast", "is 'Fast'"),
    ("release:databaseStorage", "10GB", "rule: a quantity such as 10Gi"),
    ("release:backupStorage", "0Gi", "is '0Gi'"),
    ("release:backupKeep", "0", "is '0'"),
    ("release:bakeSeconds", "1e3", "is '1e3'"),
    ("release:bakeRate", "nan", "is 'nan'"),
    ("release:bakeRate", "inf", "is 'inf'"),
    ("release:bakeRate", "201", "rule: a number from 0.1 to 200"),
    ("release:maxErrorRate", "1.1", "rule: a number from 0 to 1"),
    ("release:maxErrorRate", "1%", "is '1%'"),
    ("release:maxP99Milliseconds", "0", "is '0'"),
    ("release:stepDeadlineSeconds", "5", "is '5'"),
    ("release:rolloutDeadlineSeconds", "", "is ''"),
    ("release:lockTimeoutMilliseconds", "5", "is '5'"),
    ("release:forecastInterval", "0", "is '0'"),
    ("release:appPassword", "fifteen-letters", "has a value, which breaks its rule; rule: at least 16"),
    ("release:ownerPassword", "line\nbreak-0123456789", "has a value, which breaks its rule"),
]


@pytest.mark.parametrize(("name", "value", "expected"), WRONG)
def test_a_wrong_value_is_named_with_its_rule_and_command(name: str, value: Any, expected: str) -> None:
    found = problems(values(**{name: value}))
    assert len(found) == 1
    assert found[0].startswith(f"{name} ")
    assert expected in found[0]
    assert "mend it: `pulumi config set " in found[0]
    assert f"{name}" in found[0].rpartition("mend it: ")[2]


@pytest.mark.parametrize("url", ["mysql://a:b@c/d", "postgresql://db/forecast", "postgresql://a:b@c:99999/d", "x"])
def test_a_wrong_url_is_refused_without_showing_it(url: str) -> None:
    given = values(databaseUrl=url, **{"data:provider": "url"})
    assert problems(given) == (
        "release:databaseUrl has a value, which breaks its rule; rule: postgresql://owner:password@host:port/database, "
        "stored with --secret; mend it: `pulumi config set --secret release:databaseUrl -s staging`",
    )


def test_a_secret_in_plain_text_is_refused_without_showing_it() -> None:
    assert problems(values(), {"release:ownerPassword"}) == (
        "release:appPassword is stored as plain text; rule: at least 16 printable characters, stored with --secret; "
        "mend it: `pulumi config set --secret release:appPassword -s staging`",
    )


def test_a_plain_value_that_was_stored_as_a_secret_is_not_shown_either() -> None:
    found = problems(values(stepsImage=OWNER), {*SECRETS, "release:stepsImage"})
    assert found[0].startswith("release:stepsImage has a value, which breaks its rule")


def test_a_misspelt_key_is_named_with_the_one_that_was_meant() -> None:
    assert problems(values(apiReplica="3")) == (
        "release:apiReplica: no such key (did you mean release:apiReplicas?); remove it: "
        "`pulumi config rm release:apiReplica -s staging`",
    )


def test_the_providers_other_keys_and_other_namespaces_are_left_alone() -> None:
    assert load(values(**{"kubernetes:namespace": "x", "aws:region": "eu-central-1"})) == load(values())


def test_a_url_that_would_be_ignored_is_refused_with_both_ways_out() -> None:
    assert problems(values(databaseUrl=URL)) == (
        "release:databaseUrl is set while data:provider is in-cluster, so it would be ignored; either "
        "`pulumi config set data:provider url -s staging`, or `pulumi config rm release:databaseUrl -s staging`",
    )


def test_a_missing_url_is_named_with_both_ways_out() -> None:
    assert problems(values(**{"data:provider": "url"})) == (
        "release:databaseUrl is missing while data:provider is url; either "
        "`pulumi config set --secret release:databaseUrl -s staging`, or "
        "`pulumi config set data:provider in-cluster -s staging`",
    )


def test_a_bake_that_can_only_be_inconclusive_is_refused_with_both_ways_out() -> None:
    found = problems(values(bakeSeconds="9", bakeRate="2"))
    assert found == (
        "release:bakeSeconds 9 with release:bakeRate 2 gives 18 samples, and fewer than 20 say nothing "
        "about errors and latency; raise the time (`pulumi config set release:bakeSeconds 10 -s staging`) or the rate "
        "(`pulumi config set release:bakeRate 3 -s staging`)",
    )
    assert load(values(bakeSeconds="10", bakeRate="2")).bake_seconds == 10
    assert load(values(bakeSeconds="9", bakeRate="3")).bake_rate == 3.0


def test_waiting_for_a_lock_ends_before_the_job_does_and_both_ways_out_are_ways_out() -> None:
    found = problems(values(lockTimeoutMilliseconds="30000"))
    assert found == (
        "release:lockTimeoutMilliseconds 30000 lets a migration wait 1800 s for a lock (60 attempts), no less than "
        "release:stepDeadlineSeconds 1800; lower the one "
        "(`pulumi config set release:lockTimeoutMilliseconds 15000 -s staging`) or raise the other "
        "(`pulumi config set release:stepDeadlineSeconds 3600 -s staging`)",
    )
    assert load(values(lockTimeoutMilliseconds="15000")).lock_timeout_milliseconds == 15000
    assert load(values(lockTimeoutMilliseconds="30000", stepDeadlineSeconds="3600")).step_deadline_seconds == 3600


def test_the_project_declares_every_key_as_the_table_has_it() -> None:
    project = yaml.safe_load((Path(__file__).parents[2] / "Pulumi.yaml").read_text(encoding="utf-8"))
    declared = project["config"]
    assert list(declared) == [key.name for key in KEYS]
    for key in KEYS:
        entry = declared[key.name]
        assert entry["description"] == f"{key.description} Rule: {key.rule}."
        # Only a key of the project's own namespace may have a type and a default; the others have a value.
        own = key.name.startswith(f"{project['name']}:")
        assert str(entry["default" if own else "value"]) == (key.default or "")
        # With any other type the engine refuses a wrong value itself: one at a time, and without what mends it.
        assert not own or entry["type"] == "string"


def _tracked(stack: str) -> dict[str, Any]:
    file = Path(__file__).parents[2] / f"Pulumi.{stack}.yaml"
    given: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["config"]
    return given


def test_the_tracked_staging_can_be_deployed() -> None:
    load({**values(), **_tracked("staging")})


def test_the_tracked_production_is_refused_for_its_flow_alone() -> None:
    with pytest.raises(SettingsError) as refused:
        load({**values(), **_tracked("prod")})
    assert [problem.split(" ")[0] for problem in refused.value.problems] == ["release:flow"]

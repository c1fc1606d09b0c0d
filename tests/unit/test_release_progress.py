"""What an update looks like: the engine's events as lines, without a secret and without an exception."""

from __future__ import annotations

import io
from typing import Any

import pytest
from pulumi.automation import EngineEvent
from rich.console import Console

from release.cli.progress import Progress

JOB = "urn:pulumi:staging::release::energy:release:StepJob$kubernetes:batch/v1:Job::migrate"
COMPONENT = "urn:pulumi:staging::release::energy:release:StepJob::migrate"
CLAIM = "urn:pulumi:staging::release::energy:data:Database$kubernetes:core/v1:PersistentVolumeClaim::data"
PROVIDER = "urn:pulumi:staging::release::pulumi:providers:kubernetes::cluster"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Shown:
    """A progress on a console that is a file (or claims to be a terminal), with a clock that is moved by hand."""

    def __init__(self, *, planning: bool = False, terminal: bool = False) -> None:
        self.file = io.StringIO()
        self.clock = Clock()
        console = Console(file=self.file, force_terminal=terminal, width=200)
        self.progress = Progress(console, planning=planning, clock=self.clock)

    def lines(self) -> list[str]:
        return self.file.getvalue().splitlines()

    def event(self, **content: Any) -> None:
        self.progress.on_event(EngineEvent.from_json({"sequence": 1, "timestamp": 1, **content}))

    def step(self, kind: str, urn: str = JOB, op: str = "create", **state: Any) -> None:
        resource = {
            "type": "t",
            "urn": urn,
            "custom": urn != COMPONENT,
            "id": "",
            "parent": "",
            "provider": "",
            **state,
        }
        types = urn.split("::")[2].split("$")[-1]
        metadata = {"op": op, "urn": urn, "type": types, "provider": "", "new": resource}
        self.event(**{kind: {"metadata": metadata}})


def test_a_resource_is_shown_when_it_begins_and_with_its_time_when_it_ends() -> None:
    shown = Shown()
    shown.clock.now += 1.5
    shown.step("resourcePreEvent")
    shown.clock.now += 2.7
    shown.step("resOutputsEvent")
    assert shown.lines() == ["    1.5 s migrate (Job): running", "    4.2 s migrate (Job): passed in 2.7 s"]


def test_what_is_no_job_is_created() -> None:
    shown = Shown()
    shown.step("resourcePreEvent", CLAIM)
    shown.step("resOutputsEvent", CLAIM)
    assert shown.lines() == [
        "    0.0 s data (PersistentVolumeClaim): creating",
        "    0.0 s data (PersistentVolumeClaim): created in 0.0 s",
    ]


def test_removing_an_earlier_job_is_shown_only_when_it_takes_its_time_or_fails() -> None:
    shown = Shown()
    shown.step("resourcePreEvent", op="delete-replaced")
    shown.clock.now += 4
    shown.step("resOutputsEvent", op="delete-replaced")
    assert shown.lines() == []
    shown.step("resourcePreEvent", op="delete-replaced")
    shown.clock.now += 6
    shown.step("resOutputsEvent", op="delete-replaced")
    shown.step("resourcePreEvent", op="delete-replaced")
    shown.step("resOpFailedEvent", op="delete-replaced")
    assert shown.lines() == [
        "     10 s migrate (Job): removed the earlier one in 6.0 s",
        "     10 s migrate (Job): FAILED after 0.0 s",
    ]


def test_a_log_that_was_shown_is_not_shown_again() -> None:
    shown = Shown()
    diagnose(shown, "error", "smoke:\n  12:00:01 alive: ok\n  not sensible")
    diagnose(shown, "error", "2 errors:\n\t* [Job] it failed\n12:00:01 alive: ok\n\n  not sensible", JOB)
    assert shown.lines() == [
        "    0.0 s error: smoke:",
        "            12:00:01 alive: ok",
        "            not sensible",
        "    0.0 s error: migrate (Job): 2 errors:",
        "            * [Job] it failed",
    ]


def test_a_failed_resource_is_shown_and_remembered() -> None:
    shown = Shown()
    shown.step("resourcePreEvent", op="update")
    shown.clock.now += 61
    shown.step("resOpFailedEvent", op="update")
    assert shown.lines()[-1] == "1 min 01 s migrate (Job): FAILED after 1 min 01 s"
    assert shown.progress.failed == ["migrate (Job)"]


@pytest.mark.parametrize(
    ("urn", "op"),
    [(JOB, "same"), (JOB, "replace"), (JOB, "refresh"), (JOB, "read"), (COMPONENT, "create"), (PROVIDER, "create")],
)
def test_what_changes_nothing_real_is_not_shown(urn: str, op: str) -> None:
    shown = Shown()
    shown.step("resourcePreEvent", urn, op)
    shown.step("resOutputsEvent", urn, op)
    assert shown.lines() == []


def test_a_preview_lists_what_would_happen() -> None:
    shown = Shown(planning=True)
    for op in ("create", "update", "delete", "delete-replaced", "create-replacement", "same"):
        shown.step("resourcePreEvent", op=op)
        shown.step("resOutputsEvent", op=op)
    assert shown.lines() == ["  + migrate (Job)", "  ~ migrate (Job)", "  - migrate (Job)", "  + migrate (Job)"]


def diagnose(shown: Shown, severity: str, message: str, urn: str = "", ephemeral: bool = False) -> None:
    shown.event(
        diagnosticEvent={
            "message": message,
            "color": "never",
            "severity": severity,
            "urn": urn,
            "ephemeral": ephemeral,
        }
    )


def test_messages_are_shown_with_their_resource_and_errors_are_remembered() -> None:
    shown = Shown()
    diagnose(shown, "info", "<{%reset%}>loaded<{%reset%}>\n")
    diagnose(shown, "info#err", "to standard error\n")
    diagnose(shown, "warning", "old", "urn:pulumi:staging::release::pulumi:pulumi:Stack::release-staging")
    diagnose(shown, "error", "Job failed\nlast line [bold]", JOB)
    diagnose(shown, "error", "  \n")
    assert shown.lines() == [
        "    0.0 s loaded",
        "    0.0 s to standard error",
        "    0.0 s warning: old",
        "    0.0 s error: migrate (Job): Job failed",
        "          last line [bold]",
    ]
    assert shown.progress.errors == ["migrate (Job): Job failed\nlast line [bold]"]


def test_debug_messages_which_quote_secrets_are_never_shown() -> None:
    shown = Shown()
    diagnose(shown, "debug", 'registered: string_value: "hush"')
    assert shown.lines() == []


def test_a_killed_updates_note_becomes_words() -> None:
    shown = Shown()
    diagnose(shown, "warning", "Attempting to deploy with 1 pending operations from previous deployment.\n * x")
    assert shown.lines() == ["    0.0 s an earlier update was killed; what it had begun is adopted"]
    assert shown.progress.pending


def test_a_policys_word_is_shown_and_a_mandatory_one_is_an_error() -> None:
    shown = Shown()
    policy = {
        "message": "no evidence",
        "color": "never",
        "policyName": "tests-passed",
        "policyPackName": "p",
        "policyPackVersion": "1",
        "policyPackVersionTag": "1",
        "enforcementLevel": "mandatory",
        "resourceUrn": JOB,
    }
    shown.event(policyEvent=policy)
    assert shown.lines() == ["    0.0 s mandatory: migrate (Job): tests-passed: no evidence"]
    assert shown.progress.errors == ["migrate (Job): tests-passed: no evidence"]


def test_without_a_terminal_what_lasts_is_repeated_every_half_minute_with_where_it_stands() -> None:
    shown = Shown()
    shown.step("resourcePreEvent")
    diagnose(shown, "info", "waiting for the pod\nmore", JOB, ephemeral=True)
    for _ in range(70):
        shown.clock.now += 1
        shown.progress.tick()
    assert shown.lines()[1:] == [
        "     30 s migrate (Job): running … 30 s (waiting for the pod)",
        "1 min 00 s migrate (Job): running … 1 min 00 s (waiting for the pod)",
    ]


def test_on_a_terminal_what_is_under_way_stands_below_the_lines() -> None:
    shown = Shown(terminal=True)
    with shown.progress.shown():
        shown.step("resourcePreEvent")
        shown.clock.now += 5
        shown.progress.tick()
        shown.step("resourcePreEvent", JOB.replace("migrate", "smoke"))
        shown.step("resOutputsEvent")
    text = shown.file.getvalue()
    assert "migrate (Job): passed in 5.0 s" in text
    assert "smoke (Job): running … " in text


def test_the_deployments_number_comes_from_the_steps_labels() -> None:
    shown = Shown()
    assert shown.progress.deployment is None
    for number in ("17", "16"):
        shown.step("resourcePreEvent", inputs={"metadata": {"labels": {"release.energy/deployment": number}}})
    for odd in (None, {}, {"metadata": "x"}, {"metadata": {"labels": {"release.energy/deployment": 18}}}):
        shown.step("resourcePreEvent", inputs=odd)
    assert shown.progress.deployment == 17


def test_an_event_that_cannot_be_understood_never_raises() -> None:
    """The Automation API would answer an exception by printing the raw event, secrets included."""
    shown = Shown()
    shown.progress.on_event(EngineEvent(1, 1, resource_pre_event="no event"))  # type: ignore[arg-type]
    assert isinstance(shown.progress.trouble, AttributeError)
    shown.event(summaryEvent={"maybeCorrupt": False, "durationSeconds": 1, "resourceChanges": {"create": 2, "same": 1}})
    assert shown.progress.changes == {"create": 2, "same": 1}

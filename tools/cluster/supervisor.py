"""The first process in the node's namespaces: starts the components, restarts what dies or hangs, ends them in order.

`python -m tools.cluster.supervisor NODE_FILE` is started by `outside`, which first gives it a network interface and
then a line on standard input. It tells its progress as JSON lines on standard output until nobody reads them, and keeps
its state in a JSON file. When it ends, however it ends, the kernel ends everything else in the namespaces.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tools.cluster import cgroups, ending, inside, node, programs, settings
from tools.cluster.components import Component, components
from tools.cluster.health import Judge, Verdict, probe
from tools.cluster.instance import Instance
from tools.cluster.journal import Journal
from tools.cluster.volumes import keep_volumes
from tools.errors import ToolError

_SIGNALS = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGUSR1}
_PROBE_STARTING_SECONDS = 0.1
_PROBE_READY_SECONDS = 3.0
_LONG_LIFE_SECONDS = 30.0
_FIRST_DELAY_SECONDS = 0.2
_LAST_DELAY_SECONDS = 10.0
_LOG_TRIM_SECONDS = 60.0

log = logging.getLogger("supervisor")


def backoff(failures: int) -> float:
    """Seconds to wait before the start that follows this many short lives in a row."""
    return 0.0 if failures == 0 else min(_LAST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2 ** (failures - 1))


@dataclass(kw_only=True)
class Life:
    """Where one component stands; changed under the supervisor's lock only."""

    component: Component
    pid: int | None = None
    started: float = 0.0
    since: str = ""
    restarts: int = -1
    failures: int = 0
    start_at: float = 0.0
    ready: bool = False
    last_exit: str = ""
    changed: threading.Condition = field(default_factory=threading.Condition)


class Supervisor:
    """Runs the components of one node until it is told to end."""

    def __init__(self, instance: Instance, environment: dict[str, str], journal: Journal) -> None:
        self._instance = instance
        self._environment = environment
        self._journal = journal
        self._lives = {component.name: Life(component=component) for component in components(instance)}
        self._lock = threading.RLock()
        self._ending = threading.Event()

    def run(self) -> None:
        """Start everything, then react to what happens until SIGTERM; returns when all components have ended."""
        main = threading.get_ident()
        for life in self._lives.values():
            threading.Thread(target=self._watch, args=(life, main), daemon=True).start()
        keeper = threading.Thread(target=self._keep_volumes, daemon=True)
        trim_at = time.monotonic() + _LOG_TRIM_SECONDS
        while True:
            wait = min(self._start_due(), trim_at - time.monotonic())
            heard = signal.sigtimedwait(_SIGNALS, max(0.0, wait))
            if heard is not None and heard.si_signo in (signal.SIGTERM, signal.SIGINT):
                break
            self._reap()
            if not keeper.is_alive() and not self._ending.is_set() and self._ready("kube-apiserver"):
                keeper = threading.Thread(target=self._keep_volumes, daemon=True)
                keeper.start()
            if time.monotonic() >= trim_at:
                self._journal.trim_logs()
                trim_at = time.monotonic() + _LOG_TRIM_SECONDS
        self._ending.set()
        log.info("told to end")
        ending.end(self._instance, self._environment, list(self._lives.values()))
        self._write()

    def _ready(self, name: str) -> bool:
        with self._lock:
            return self._lives[name].ready

    def _start_due(self) -> float:
        """Start what may start now; gives the seconds until something else may."""
        soonest = _LOG_TRIM_SECONDS
        with self._lock:
            for life in self._lives.values():
                if life.pid is not None or not all(self._lives[name].ready for name in life.component.after):
                    continue
                wait = life.start_at - time.monotonic()
                if wait > 0:
                    soonest = min(soonest, wait)
                else:
                    self._start(life)
        return soonest

    def _start(self, life: Life) -> None:
        component = life.component
        log_file = str(self._journal.log_file(component.name))
        try:
            life.pid = os.posix_spawn(
                component.command[0],
                component.command,
                self._environment,
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ],
                setpgroup=0,
                setsigmask=(),
                setsigdef=_SIGNALS,
            )
        except OSError as error:
            life.failures += 1
            life.start_at = time.monotonic() + backoff(life.failures)
            life.last_exit = f"cannot be started: {error}"
            log.error("%s %s", component.name, life.last_exit)
            self._journal.tell(component=component.name, failures=life.failures, exit=life.last_exit)
            return
        life.started, life.since, life.ready = time.monotonic(), node.now(), False
        life.restarts += 1
        log.info("%s started as %d%s", component.name, life.pid, f", restart {life.restarts}" if life.restarts else "")
        self._write()
        with life.changed:
            life.changed.notify_all()

    def _reap(self) -> None:
        """Collect every process that ended, the orphans of containers too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            with self._lock:
                for life in self._lives.values():
                    if life.pid == pid:
                        self._died(life, os.waitstatus_to_exitcode(status))

    def _died(self, life: Life, code: int) -> None:
        lived = time.monotonic() - life.started
        life.failures = 1 if lived > _LONG_LIFE_SECONDS else life.failures + 1
        life.start_at = time.monotonic() + backoff(life.failures)
        life.pid, life.ready = None, False
        life.last_exit = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        log.warning(
            "%s ended after %.1f s (%s); again in %.1f s, log: %s",
            *(life.component.name, lived, life.last_exit, backoff(life.failures)),
            self._journal.log_file(life.component.name),
        )
        self._journal.tell(component=life.component.name, failures=life.failures, exit=life.last_exit)
        self._write()

    def _watch(self, life: Life, main: int) -> None:
        """Ask one component how it is, as long as there is one; runs in a thread of its own."""
        judge = Judge(started=0.0)
        judged: tuple[int, float] | None = None
        while not self._ending.is_set():
            with life.changed:
                life.changed.wait_for(lambda: life.pid is not None, timeout=_PROBE_READY_SECONDS)
            with self._lock:
                pid, started = life.pid, life.started
            if pid is None:
                continue
            if (pid, started) != judged:
                judge, judged = Judge(started=started), (pid, started)
            answer = probe(life.component.health)
            verdict = judge.hear(answer, time.monotonic())
            with self._lock:
                if (life.pid, life.started) != judged or self._ending.is_set():
                    continue
                if verdict is Verdict.HUNG:
                    log.warning("%s is hung (%s): killed", life.component.name, answer)
                    os.kill(pid, signal.SIGKILL)
                ready = verdict is Verdict.READY
                if ready != life.ready:
                    life.ready = ready
                    log.info("%s is %s after %.1f s", life.component.name, verdict, time.monotonic() - started)
                    self._journal.tell(component=life.component.name, verdict=verdict)
                    self._write()
                    signal.pthread_kill(main, signal.SIGUSR1)
            self._ending.wait(_PROBE_READY_SECONDS if ready else _PROBE_STARTING_SECONDS)

    def _keep_volumes(self) -> None:
        keep_volumes(self._instance, self._ending)

    def _write(self) -> None:
        with self._lock:
            self._journal.write_state(
                {
                    life.component.name: {
                        "pid": life.pid,
                        "ready": life.ready,
                        "restarts": max(0, life.restarts),
                        "since": life.since,
                        "last_exit": life.last_exit,
                    }
                    for life in self._lives.values()
                }
            )


def main() -> None:
    """Run the node that the file named on the command line describes."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    described = node.read(Path(sys.argv[1]))
    instance = described.instance
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z"
    )
    # lightkube's client logs every request otherwise
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    journal = Journal(instance)
    # /proc is still the machine's, so this is the number that this process has outside
    journal.tell(pid=int(str(Path("/proc/self").readlink())))
    if not sys.stdin.readline().strip():
        sys.exit("ended before the node had a network: whoever started it is gone")
    try:
        cgroups.enter(instance.name)
        snapshotter = inside.enter(instance, described.visible)
        kind = programs.link_iptables(instance, described.system)
        settings.write(instance, described.system, snapshotter)
    except (OSError, ToolError) as error:
        journal.tell(failed=str(error))
        sys.exit(str(error))
    log.info("node %s with %s and iptables-%s", instance.name, snapshotter, kind)
    Supervisor(instance, programs.environment(instance, described.system), journal).run()
    log.info("ended")


if __name__ == "__main__":
    main()

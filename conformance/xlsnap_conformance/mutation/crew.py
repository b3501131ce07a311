# SPDX-License-Identifier: LGPL-2.1-or-later
"""Judges mutants with several processes at a time, and hands each on as soon as it is judged.

Mutants of the toolstack go to long-lived workers. One of the suite's own model spoils the worker that it is
applied in, so it gets one of its own. What a test of this project judges is left to pytest in the checkout.
"""

from __future__ import annotations

import contextlib
import queue
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar
from xml.etree import ElementTree

import msgspec

from ..clauses import specification_directory
from ..failures import HarnessError
from .choice import Reach
from .matrix import Fate, Judged, Verdict, described, judged
from .worker import Reply, Task

if TYPE_CHECKING:
    from ..drivers.reference.mutants import Mutant

REPLY_SECONDS = 900.0
"""How long the tests of one mutant may take together; each request of a test has limits of its own."""

END_SECONDS = 20.0
"""How long a worker may take to end, and again after SIGTERM."""

JUDGE_SECONDS = 1200.0
"""How long the tests of one file that judge mutants by themselves may take."""

LOG_TAIL = 2000

T = TypeVar("T")
R = TypeVar("R")


class Worker:
    """A running worker process. A context manager: leaving it ends the process."""

    def __init__(self, seed: int) -> None:
        self._log = tempfile.TemporaryFile(mode="a+b")  # noqa: SIM115 - `close` closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xlsnap_conformance.mutation.worker", str(seed)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for us; we end the workers in order
        )

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._process.pid

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(in_order=kind is None)

    def ask(self, task: Task) -> Reply:
        """Have a task done.

        :raise HarnessError: if the worker dies or does not answer in time; then it is of no use any more.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(msgspec.json.encode(task) + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise HarnessError(f"a worker has ended: {self._said()}") from None
        if not select.select([self._process.stdout], [], [], REPLY_SECONDS)[0]:
            raise HarnessError(f"no answer within {REPLY_SECONDS:.0f} s: {self._said()}")
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise HarnessError(f"a worker has ended: {self._said()}")
        return msgspec.json.decode(line, type=Reply)

    def _said(self) -> str:
        """Return the end of what it wrote to standard error."""
        with contextlib.suppress(OSError, ValueError):
            size = self._log.seek(0, 2)
            self._log.seek(max(0, size - LOG_TAIL))
            lines = self._log.read().decode(errors="replace").strip().splitlines()
            return " | ".join(line.strip() for line in lines[-3:]) or "it said nothing"
        return "it said nothing"

    def close(self, *, in_order: bool = True) -> None:
        """End the process: by closing its input, by SIGTERM, by SIGKILL."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        if not in_order:
            self._process.terminate()
        for end in (self._process.terminate, self._process.kill, None):
            try:
                self._process.wait(timeout=END_SECONDS)
                break
            except subprocess.TimeoutExpired:
                if end is not None:
                    end()
        self._process.stdout.close()
        self._log.close()


@dataclass(frozen=True, slots=True)
class Plan:
    """How mutants are judged: with which seed, which tests they meet, and which are known to survive."""

    seed: int
    reach: Reach
    known: Mapping[str, str]


class Crew:
    """Some workers, each in a thread of ours that gives it work. A context manager."""

    def __init__(self, plan: Plan, jobs: int) -> None:
        self._plan = plan
        self._jobs = jobs
        self._local = threading.local()
        self._open: list[Worker] = []
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for worker in list(self._open):
            worker.close(in_order=kind is None)

    def judge(self, mutants: Sequence[Mutant]) -> Iterator[Judged]:
        """Yield each mutant as soon as it is judged."""
        by_file: dict[str, list[Mutant]] = {}
        for mutant in mutants:
            if mutant.judge:
                by_file.setdefault(mutant.judge.partition("::")[0], []).append(mutant)
        groups = [*by_file.values(), *([mutant] for mutant in mutants if not mutant.judge)]
        for found in self._spread(groups, self._judge):
            yield from found

    def control(self, tests: Sequence[str]) -> Iterator[Verdict]:
        """Yield how tests end that run against the reference."""
        share = max(1, -(-len(tests) // (4 * self._jobs)))
        groups = [tests[start : start + share] for start in range(0, len(tests), share)]
        for reply in self._spread(groups, self._control):
            yield from reply

    def _spread(self, items: Sequence[T], work: Callable[[T], R]) -> Iterator[R]:
        """Give items to the threads in turn; yield results as they come, and raise what a thread raises."""
        waiting: queue.SimpleQueue[T] = queue.SimpleQueue()
        results: queue.SimpleQueue[R | BaseException] = queue.SimpleQueue()
        for item in items:
            waiting.put(item)

        def run() -> None:
            with contextlib.suppress(queue.Empty):
                while not self._stopped.is_set():
                    item = waiting.get_nowait()
                    try:
                        results.put(work(item))
                    except BaseException as error:  # told to the thread that waits
                        results.put(error)
                        return

        for _ in range(min(self._jobs, len(items))):
            threading.Thread(target=run, daemon=True).start()
        for _ in items:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            yield result

    # --- in the threads -------------------------------------------------------------------------------------

    def _worker(self) -> Worker:
        worker: Worker | None = getattr(self._local, "worker", None)
        if worker is None:
            worker = self._local.worker = self._start()
        return worker

    def _start(self) -> Worker:
        with self._lock:
            worker = Worker(self._plan.seed)
            self._open.append(worker)
        return worker

    def _lose(self, worker: Worker) -> None:
        worker.close(in_order=False)
        with self._lock:
            self._open.remove(worker)

    def _ask(self, task: Task) -> Reply:
        worker = self._start() if task.model else self._worker()
        try:
            return worker.ask(task)
        except HarnessError:
            if not task.model:
                self._local.worker = None
                self._lose(worker)
            raise
        finally:
            if task.model:
                self._lose(worker)

    def _control(self, tests: Sequence[str]) -> tuple[Verdict, ...]:
        return self._ask(Task(driver="reference", tests=tuple(tests))).verdicts

    def _judge(self, group: list[Mutant]) -> list[Judged]:
        first = group[0]
        if first.judge:
            return judge_elsewhere(group)
        known = self._plan.known.get(first.name)
        task = Task(
            driver=f"reference --mutant {first.name}" if first.part == "toolstack" else "reference",
            clauses=first.clauses,
            first=first.test,
            reach=self._plan.reach if known is None else Reach.PURPOSE,
            model=first.name if first.part == "model" else "",
        )
        try:
            reply = self._ask(task)
        except HarnessError as error:
            return [described(first, Fate.ERROR, message=str(error))]
        return [judged(first, reply.verdicts, seconds=reply.seconds, known=known)]


# --- mutants that a test of this project judges -------------------------------------------------------------


def checkout() -> Path | None:
    """Return the directory of the checkout that this package runs from; None when it is installed."""
    root = specification_directory().parent
    return root if (root / "pyproject.toml").is_file() and (root / "tests").is_dir() else None


def judge_elsewhere(mutants: Sequence[Mutant]) -> list[Judged]:
    """Return the mutants of one file of tests, each of which passes when it notices its mutant."""
    root = checkout()
    if root is None:
        message = "its judge is a test of the project: run this in a checkout"
        return [described(mutant, Fate.UNABLE, message=message) for mutant in mutants]
    with tempfile.TemporaryDirectory(prefix="xlsnap-run-") as scratch:
        report = Path(scratch) / "junit.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
        command += [f"--basetemp={scratch}/pytest", *(mutant.judge for mutant in mutants)]
        try:
            done = subprocess.run(
                command, cwd=root, capture_output=True, text=True, timeout=JUDGE_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            message = f"its judge took more than {JUDGE_SECONDS:.0f} s"
            return [described(mutant, Fate.ERROR, message=message) for mutant in mutants]
        try:
            cases = list(ElementTree.parse(report).iter("testcase"))
        except (OSError, ElementTree.ParseError):
            message = (done.stdout + done.stderr).strip().rpartition("\n")[2]
            return [described(mutant, Fate.ERROR, message=message) for mutant in mutants]
    by_name = {case.get("name", ""): case for case in cases}
    return [_elsewhere(mutant, by_name.get(mutant.judge.rpartition("::")[2])) for mutant in mutants]


def _elsewhere(mutant: Mutant, case: ElementTree.Element | None) -> Judged:
    if case is None:
        return described(mutant, Fate.ERROR, message="its judge did not run")
    tags = {child.tag: child for child in case}
    seconds = round(float(case.get("time", "0")), 3)
    if "skipped" in tags:
        return described(mutant, Fate.UNABLE, message=str(tags["skipped"].get("message")))
    if "error" in tags:
        return described(mutant, Fate.ERROR, message=str(tags["error"].get("message")))
    if "failure" in tags:
        message = str(tags["failure"].get("message")).partition("\n")[0]
        return described(mutant, Fate.SURVIVED, seconds=seconds, tried=1, message=message)
    return described(mutant, Fate.KILLED, test=mutant.judge, seconds=seconds, tried=1)

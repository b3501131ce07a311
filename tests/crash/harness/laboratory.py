# SPDX-License-Identifier: LGPL-2.1-or-later
"""Where operations are cut short: a world, the server in whose calls all happens to it, and the verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fork_server import ForkServer, Outcome
from kill_points import Strike, Victim, arm
from meanwhile import write_late
from scenarios import OPERATIONS, Scenario
from verdict import Aftermath, Survey, judge, observe
from world import World, build, demolish, perform, put_back, recover_only

Preparation = Callable[[], None]


@dataclass(frozen=True)
class Verdict:
    """The stage of the operation that the world was found in, and what is wrong, if anything."""

    stage: str | None
    complaint: str | None


class Laboratory:
    """One scenario, to be cut short again and again. `prepare` breaks the toolstack on purpose."""

    def __init__(
        self,
        server: ForkServer,
        directory: Path,
        scenario: Scenario,
        *,
        prepare: Iterable[Preparation] = (),
    ) -> None:
        self.server = server
        self.scenario = scenario
        self.world = World(directory, scenario.kind, scenario.disks, scenario.initial)
        self.operation = OPERATIONS[scenario.operation](self.world)
        self.prepare = tuple(prepare)
        self.survey = Survey((), {})

    def open(self) -> None:
        """Make the world, and find out what the operation does undisturbed."""
        self.server.call(build, self.world).unwrap()
        self.survey = self._survey()

    def close(self) -> None:
        """End all processes and remove all files."""
        self.server.call(demolish, self.world)

    def _survey(self) -> Survey:
        """Carry the operation out undisturbed, then cut it short between its plans."""
        self.put_back()
        old = self.server.call(observe, self.world).unwrap()
        outcome = self.armed(perform, self.operation)
        outcome.unwrap()
        events = outcome.reports
        new = self.server.call(observe, self.world).unwrap()
        assert old != new, "the operation has no effect"
        stages = {"old": old}
        ends = [number for number, name in enumerate(events) if name.startswith("after plan ")]
        for number in ends[:-1]:
            self.put_back()
            self.armed(perform, self.operation, strike=Strike(number, ("toolstack",)))
            stages[f"cut {events[number]} ({len(stages)})"] = self.server.call(observe, self.world).unwrap()
        return Survey(events, {**stages, "new": new})

    def put_back(self) -> None:
        """Put the world back as it was before the operation."""
        self.server.call(put_back, self.world).unwrap()

    def armed(
        self, function: Callable[..., None], *arguments: object, strike: Strike | None = None
    ) -> Outcome:
        """Do something to the world while its kill points are counted, or strike at one."""
        prepare: list[Preparation] = [*self.prepare, partial(arm, self.world.directory, strike)]
        return self.server.call(function, self.world, *arguments, prepare=prepare)

    def cut_short(self, at: int, victims: tuple[Victim, ...]) -> str | None:
        """Cut the operation short at an event; return what is wrong then, or None."""
        self.put_back()
        outcome = self.armed(perform, self.operation, strike=Strike(at, victims))
        return self._complaint(outcome, at, victims)

    def cut_recovery_short(self, at: int, recovery_at: int, victims: tuple[Victim, ...]) -> str | None:
        """Kill the toolstack at an event, and its recovery at one of its own; return what is wrong then."""
        self.put_back()
        self.armed(perform, self.operation, strike=Strike(at, ("toolstack",)))
        self.server.call(write_late, self.world).unwrap()
        outcome = self.armed(recover_only, strike=Strike(recovery_at, victims))
        complaint = self._complaint(outcome, recovery_at, victims)
        return complaint and f"killed {self.survey.events[at]} (event {at}), recovery {complaint}"

    def recovery_events(self, at: int) -> tuple[str, ...]:
        """Return the kill points of the recovery after the toolstack was killed at an event."""
        self.put_back()
        self.armed(perform, self.operation, strike=Strike(at, ("toolstack",)))
        return self.armed(recover_only).reports

    def _complaint(self, outcome: Outcome, at: int, victims: tuple[Victim, ...]) -> str | None:
        """Judge the world after something was cut short, and say where that was."""
        verdict = self.verdict(outcome, guest_died="qemu" in victims)
        if verdict.complaint is None:
            return None
        event = outcome.reports[0] if outcome.reports else "at no event"
        where = f"{' and '.join(victims)} killed {event} (event {at} of {len(self.survey.events)})"
        said = f" (it said: {outcome.failure})" if outcome.failure else ""
        return f"{where}{said}: {verdict.complaint}"

    def verdict(self, outcome: Outcome, *, guest_died: bool = False, disk_failed: bool = False) -> Verdict:
        """Judge the world after the operation has ended in some way."""
        failure = outcome.failure
        if failure is not None and not failure.is_clean:
            return Verdict(None, f"not a clean error: {failure}")
        aftermath = Aftermath(
            succeeded=failure is None and not outcome.killed,
            guest_died=guest_died,
            disk_failed=disk_failed,
            wrote_late=outcome.killed and self.server.call(write_late, self.world).unwrap(),
        )
        judged = self.server.call(
            judge, self.world, self.operation, self.survey, aftermath, prepare=self.prepare
        )
        if judged.failure is not None:
            violation = judged.failure.kind == "Violation"
            return Verdict(None, judged.failure.message if violation else str(judged.failure))
        stage: str = judged.unwrap()
        return Verdict(stage, None)

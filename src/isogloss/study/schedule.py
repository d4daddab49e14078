"""Which job comes next: readiness, failures and what depends on them."""

import time
from collections import deque
from collections.abc import Iterable, Mapping

from isogloss.study.steps import Step

_PAUSE = 1.0  # Seconds until a group that another runner holds is looked at again.


class Schedule:
    """The state of every step of a plan in one run.

    A group is offered once nothing in it waits any more: each of its steps is ready, or can never be, because something
    that it needs has failed. So what belongs together is done together, and a failure stops only what depends on it.

    Args:
        steps: In an order in which each comes after what it needs.
        done: Finished already.
    """

    def __init__(self, steps: Mapping[str, Step], done: Iterable[str]) -> None:
        self.steps = steps
        self.done: set[str] = set()
        self.failed: set[str] = set()
        self.blocked: dict[str, str] = {}
        self.running: set[str] = set()
        self._needs = {key: {need for need in step.needs if need in steps} for key, step in steps.items()}
        self._wanted_by: dict[str, list[str]] = {}
        for key, needs in self._needs.items():
            for need in needs:
                self._wanted_by.setdefault(need, []).append(key)
        self._members: dict[str, list[str]] = {}
        for key, step in steps.items():
            self._members.setdefault(step.group, []).append(key)
        self._order = {group: number for number, group in enumerate(self._members)}
        self._ready: dict[str, float] = {}
        self._undecided = {
            group: sum(bool(self._needs[key]) for key in members) for group, members in self._members.items()
        }
        for key in list(done):
            if key in steps:
                self._finish(key)
        for group in self._members:
            self._consider(group)

    @property
    def left(self) -> list[str]:
        """Steps that are neither finished nor out of the question."""
        return [
            key for key in self.steps if key not in self.done and key not in self.failed and key not in self.blocked
        ]

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return len(self.done) + len(self.failed) + len(self.blocked) >= len(self.steps)

    def offer(self, backbone: str | None) -> list[Step] | None:
        """Takes the steps of the next group: one of the given backbone, else the first; None while there is none."""
        now = time.monotonic()
        fitting = [group for group, after in self._ready.items() if after <= now]
        if not fitting:
            return None
        chosen = fitting[0]
        if backbone:
            same = (group for group in fitting if self._backbone(group) == backbone)
            chosen = next(same, chosen)
        del self._ready[chosen]
        members = [self.steps[key] for key in self._open(chosen)]
        self.running.update(step.key for step in members)
        return members

    def finish(self, key: str) -> None:
        """A step is in the store."""
        self.running.discard(key)
        if key in self.done:
            return
        for touched in self._finish(key):
            self._consider(touched)

    def fail(self, key: str) -> None:
        """A step has failed for good; what depends on it is out of the question."""
        self.running.discard(key)
        self.failed.add(key)
        queue = deque([key])
        touched = {self.steps[key].group}
        while queue:
            for other in self._wanted_by.get(queue.popleft(), ()):
                if other in self.blocked or other in self.done:
                    continue
                self.blocked[other] = key
                touched.add(self.steps[other].group)
                if self._needs[other]:
                    self._undecided[self.steps[other].group] -= 1
                queue.append(other)
        for group in touched:
            self._consider(group)

    def put_back(self, steps: Iterable[Step], *, wait: bool) -> None:
        """Steps that were not done after all: another runner has them, or their worker died."""
        for step in steps:
            self.running.discard(step.key)
            if self._open(step.group):
                self._ready[step.group] = time.monotonic() + (_PAUSE if wait else 0.0)

    def _finish(self, key: str) -> set[str]:
        self.done.add(key)
        self.failed.discard(key)
        self.blocked.pop(key, None)
        if self._needs[key]:
            # Finished in an earlier run although something that it needs has gone since.
            self._needs[key].clear()
            self._undecided[self.steps[key].group] -= 1
        touched = {self.steps[key].group}
        for other in self._wanted_by.get(key, ()):
            needs = self._needs[other]
            if key in needs:
                needs.discard(key)
                if not needs and other not in self.blocked:
                    self._undecided[self.steps[other].group] -= 1
                    touched.add(self.steps[other].group)
        return touched

    def _consider(self, group: str) -> None:
        open_steps = self._open(group)
        if not open_steps or self._undecided[group] > 0 or any(key in self.running for key in open_steps):
            self._ready.pop(group, None)
            return
        self._ready.setdefault(group, 0.0)

    def _open(self, group: str) -> list[str]:
        return [
            key
            for key in self._members[group]
            if key not in self.done and key not in self.failed and key not in self.blocked
        ]

    def _backbone(self, group: str) -> str:
        return str(self.steps[self._members[group][0]].inputs.get("backbone", ""))

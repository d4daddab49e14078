"""The store of a study: one folder a finished step, whole or absent, under its content key.

store.json            format and name
plan.json             the plan of the latest run
steps/ab/abcdef.../   finished steps: step.json and what the step made
work/                 unfinished steps with their checkpoints
staged/               steps that were finished together, on their way into `steps`
failures/             why a step failed, for as long as it has
claims/               lock files: who works on what; the system frees them when their process dies
runs/                 what each runner says about itself
"""

import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from isogloss.errors import IsoglossError
from isogloss.storage import new_folder, read_json, write_json
from isogloss.study.steps import Job, Plan, Step

FORMAT = 1
RECORD = "step.json"
# What steps make besides their record.
MODULE = "module"
SCORES = "scores.json"
CURVE = "curve.json"


class Store:
    """A folder of finished steps, shared by any number of runners and workers.

    Args:
        folder: Its place.
        create: Make it when it is absent.

    Raises:
        IsoglossError: It is of a newer format, or is something else.
    """

    def __init__(self, folder: str | Path, *, create: bool = False, name: str = "") -> None:
        self.folder = Path(folder)
        label = self.folder / "store.json"
        if label.is_file():
            facts = read_json(label)
            number = facts.get("format") if isinstance(facts, dict) else None
            if not isinstance(number, int) or isinstance(number, bool):
                raise IsoglossError(
                    f"The file '{label}' does not describe a study's store; name another folder as `store`."
                )
            if number > FORMAT:
                raise IsoglossError(
                    f"The store '{self.folder}' has the format {number}, but {FORMAT} is the newest known; update isogloss "
                    "or name another folder as `store`."
                )
            return
        # Hidden files are another runner's, which is making the same store at this moment.
        others = self.folder.is_dir() and any(not item.name.startswith(".store.json") for item in self.folder.iterdir())
        if self.folder.is_file() or (others and not label.is_file()):
            raise IsoglossError(
                f"The folder '{self.folder}' holds something that is no study's store; name another folder as `store`."
            )
        if not create:
            raise IsoglossError(f"There is no store in '{self.folder}' yet; start the study by `isogloss study run`.")
        # Two runners may do this at once; both write the same.
        write_json(label, {"format": FORMAT, "study": name})

    def place(self, key: str) -> Path:
        """The folder of a step, there or not."""
        return self.folder / "steps" / key[:2] / key

    def work(self, key: str) -> Path:
        """Where an unfinished step works and keeps checkpoints."""
        return self.folder / "work" / key

    def done(self, keys: Iterable[str]) -> set[str]:
        """Which of the steps are finished."""
        wanted = set(keys)
        found: set[str] = set()
        with suppress(FileNotFoundError):
            for shelf in os.scandir(self.folder / "steps"):
                if shelf.is_dir():
                    found.update(entry.name for entry in os.scandir(shelf.path))
        return wanted & found

    def is_done(self, key: str) -> bool:
        """Whether one step is finished."""
        return self.place(key).is_dir()

    def record(self, key: str) -> dict[str, Any]:
        """What a finished step says about itself."""
        found: dict[str, Any] = read_json(self.place(key) / RECORD)
        return found

    # -- writing -------------------------------------------------------------------------------------------------------

    def publish(self, group: str, made: Sequence[tuple[Step, Path]]) -> None:
        """Puts finished steps of one group into the store, all of them or none.

        Their folders are gathered in one folder, which is renamed to `staged/<group>` at one stroke; from there each moves
        to its place. A process that is killed in between leaves the rest to whoever comes next (`settle`).

        Args:
            group: Held by this process (`claim`).
            made: Steps, and the folders of what they made, records included; these are moved away.
        """
        staged = self.folder / "staged" / group
        self.settle_group(group)
        with new_folder(staged) as folder:
            for step, made_in in made:
                made_in.replace(folder / step.key)
        self.settle_group(group)
        for step, _ in made:
            shutil.rmtree(self.work(step.key), ignore_errors=True)
            self.forget_failure(step.key)

    def settle_group(self, group: str) -> None:
        """Moves staged steps of a group to their places."""
        staged = self.folder / "staged" / group
        if not staged.is_dir():
            return
        for item in sorted(staged.iterdir()):
            target = self.place(item.name)
            if target.is_dir():
                shutil.rmtree(item, ignore_errors=True)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(OSError):
                item.replace(target)
        with suppress(OSError):
            staged.rmdir()

    def settle(self) -> None:
        """Finishes what killed processes left staged, and sweeps up what they left of finished steps."""
        root = self.folder / "staged"
        for item in sorted(root.iterdir()) if root.is_dir() else []:
            if item.name.startswith("."):
                # `.GROUP.xxxx.tmp`: sweep only while nobody works on that group.
                group = item.name[1:].rsplit(".", 2)[0]
                with self.claim(group) as held:
                    if held:
                        shutil.rmtree(item, ignore_errors=True)
                continue
            with self.claim(item.name) as held:
                if held:
                    self.settle_group(item.name)
        root = self.folder / "work"
        for item in sorted(root.iterdir()) if root.is_dir() else []:
            if self.is_done(item.name):
                with self.claim(item.name) as held:
                    if held:
                        shutil.rmtree(item, ignore_errors=True)

    def fail(self, key: str, label: str, error: str, attempts: int) -> None:
        """Remembers why a step failed."""
        write_json(self.folder / "failures" / f"{key}.json", {"step": label, "error": error, "attempts": attempts})

    def forget_failure(self, key: str) -> None:
        """The step is to be tried again, or has worked."""
        (self.folder / "failures" / f"{key}.json").unlink(missing_ok=True)

    def failures(self) -> dict[str, dict[str, Any]]:
        """Failed steps by key."""
        root = self.folder / "failures"
        found = {}
        for item in sorted(root.glob("*.json")) if root.is_dir() else []:
            with suppress(IsoglossError):
                found[item.stem] = read_json(item)
        return found

    # -- who works on what ---------------------------------------------------------------------------------------------

    @contextmanager
    def claim_job(self, job: Job) -> Iterator[bool]:
        """Tries to become the one process that works on a group and on each of its steps.

        Plans may put a step into different groups (seeds together, or one by one), so its own name is what keeps two
        runners from doing it at once. Scores have one group in every plan, and may be many: theirs is enough.

        Args:
            job: The steps.

        Yields:
            Whether they are all ours.
        """
        names = {job.group, *(step.key for step in job.steps if step.kind != "evaluation")}
        with ExitStack() as held:
            yield all(held.enter_context(self.claim(name)) for name in sorted(names))

    @contextmanager
    def claim(self, group: str, wait: float = 0.0) -> Iterator[bool]:
        """Tries to become the one process that works on a group, or on a step by its key.

        The lock belongs to the operating system: it is free again the moment its process ends, however it ends, so a claim
        cannot go stale.

        Args:
            group: The group.
            wait: Seconds to wait for another process to end.

        Yields:
            Whether it is ours.
        """
        path = self.folder / "claims" / f"{group}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=wait)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    # -- plan and runs -------------------------------------------------------------------------------------------------

    @property
    def plan_file(self) -> Path:
        """The plan of the latest run."""
        return self.folder / "plan.json"

    def plan(self) -> Plan:
        """The plan of the latest run.

        Raises:
            IsoglossError: There is none.
        """
        return Plan.load(self.plan_file)

    def tell(self, name: str, facts: dict[str, Any]) -> None:
        """Writes what a runner says about itself; a full disk must not stop it from saying so elsewhere."""
        with suppress(OSError):
            write_json(self.folder / "runs" / f"{name}.json", {**facts, "heartbeat": time.time()})

    def runs(self) -> list[dict[str, Any]]:
        """What runners say, the latest last."""
        root = self.folder / "runs"
        found = []
        for item in root.glob("*.json") if root.is_dir() else []:
            with suppress(IsoglossError):
                found.append(read_json(item))
        return sorted(found, key=lambda run: run.get("started", 0))

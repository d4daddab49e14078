"""What a study names, looked up: what is not there or wrong is said with the place in the file that names it."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from isogloss.errors import IsoglossError
from isogloss.study import sources
from isogloss.study.reading import Marks, Place
from isogloss.study.spec import Study

T = TypeVar("T")


class Named:
    """Looks up the backbones and data of a study.

    Args:
        study: From `read_study`.
        marks: Where its values stand.
        ahead: Look at nothing on the Hub and allow folders that are not there yet; `unseen` names what is taken on trust.

    Attributes:
        here: Where the values of the point at hand stand; the planner sets it.
        unseen: What was not looked at, in the order of asking.
    """

    def __init__(self, study: Study, marks: Marks, ahead: bool) -> None:
        self._study, self._ahead = study, ahead
        self.here = marks
        self.unseen: dict[str, None] = {}
        self._checked: set[str] = set()

    def check_backbone(self, name: str) -> None:
        """Refuses a backbone that is not there; asks once a name."""
        if name in self._checked:
            return
        self._checked.add(name)
        path = ("grid", "backbone")
        if not self.look(path, sources.can_be_backbone, name):
            if not self._ahead:
                raise IsoglossError(
                    f"{self.here.at(path)} names the folder '{name}', which does not exist; make that backbone first."
                )
            self.unseen.setdefault(name)
        elif sources.lacks_model(name):
            # A pre-training that has not ended has a folder already.
            if not self._ahead:
                raise IsoglossError(
                    f"{self.here.at(path)} names the folder '{name}', which has no config.json and so is no backbone; make that "
                    "backbone first, or name another folder."
                )
            self.unseen.setdefault(name)

    def look(self, path: Place, call: Callable[..., T], *asked: Any) -> T:
        """Looks something up; what is wrong with it is said with the place that names it."""
        try:
            return call(*asked)
        except IsoglossError as problem:
            reason = re.sub(r"^--data (.*?): ", r"the data set '\1': ", str(problem))
            raise IsoglossError(f"{self.here.at(path)} is wrong: {reason}") from problem

    def data_path(self, task: str, data: sources.Data) -> Place:
        """The place in the file that names a task's data set."""
        section = self._study.tasks[task]
        own = section.data if isinstance(section.data, Mapping) else {"": section.data}
        return ("tasks", task, "data" if data == section.data or data in own.values() or not section.test else "test")

    def identity(self, path: Place, data: str, code: str, split: str) -> str | None:
        """What tells a split of a language from others, None when it does not exist; unseen ones are taken on trust."""
        if not self._ahead or sources.data_is_here(data):
            return self.look(path, sources.data_identity, data, code, split)
        self.unseen.setdefault(data)
        return sources.unseen_identity(data, code, split)

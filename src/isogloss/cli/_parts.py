"""The module folders of a command: what they say about themselves before any model is loaded."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isogloss.cli._inputs import split_list
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.backbones import Backbone
    from isogloss.formats import SavedModule
    from isogloss.modules import TransferModule
    from isogloss.tasks import Task


@dataclass(frozen=True)
class Parts:
    """One task module and the language modules beside it, as their folders describe them.

    Attributes:
        folders: In the order given.
        task: What the task module does, with the columns that the user named.
        saved: The task module's record.
        languages: Codes of the language modules.
    """

    folders: tuple[str, ...]
    task: "Task"
    saved: "SavedModule"
    languages: tuple[str, ...]

    @property
    def backbone(self) -> str:
        """Name of the backbone that the task module was trained on."""
        return self.saved.info.backbone

    @property
    def sources(self) -> tuple[str, ...]:
        """Codes of the languages that the task module was trained on."""
        return tuple(self.saved.info.training.get("source", ()))

    def check_languages(self, wanted: Sequence[str], missing: str) -> None:
        """Refuses a language that has no module while others have one.

        Raises:
            IsoglossError: Names the languages and the way out.
        """
        over = self.saved.info.training.get("language_method", "none")
        if over != "none" and not self.languages and missing == "error":
            raise IsoglossError(
                f"--modules: the task module in '{self.saved.folder}' was trained over a language {over}; add the "
                "language modules of the targets, or go without them by --missing none."
            )
        lacking = [code for code in wanted if code not in self.languages]
        if lacking and self.languages and missing == "error":
            raise IsoglossError(
                f"--modules: there is no language module for {', '.join(lacking)} among those given "
                f"({', '.join(self.languages)}); add theirs, or go without them by --missing none."
            )

    def load(self, backbone: "Backbone") -> "tuple[TransferModule, dict[str, TransferModule]]":
        """Loads all of them on their backbone."""
        from isogloss.training.evaluation import load_parts

        task, languages = load_parts(self.folders, backbone)
        assert task is not None  # read_parts has seen it
        task.info.head["task"] = self.task.to_dict()
        return task, languages


def read_parts(values: Sequence[str], *, task: str | None = None, fields: Mapping[str, str] | None = None) -> Parts:
    """Reads the records of module folders and checks that they belong together.

    Args:
        values: Of `--modules`, commas and all.
        task: Name that the user expects.
        fields: Columns that the user named, by field.

    Raises:
        IsoglossError: A folder is no module, there is no task module or there are two, two modules of one language,
            modules of different backbones, or another task than expected.
    """
    from isogloss.formats import read_info

    folders = split_list(values)
    tasks: list[SavedModule] = []
    languages: dict[str, SavedModule] = {}
    shared: list[SavedModule] = []
    for folder in folders:
        saved = read_info(folder)
        if saved.info.role == "task":
            tasks.append(saved)
        elif saved.info.role == "shared":
            shared.append(saved)
        elif not saved.info.language:
            raise IsoglossError(
                f"--modules {folder}: this language module names no language; import it with --language."
            )
        elif saved.info.language in languages:
            other = languages[saved.info.language].folder
            raise IsoglossError(
                f"--modules: '{other}' and '{saved.folder}' are both for {saved.info.language}; give one of them."
            )
        else:
            languages[saved.info.language] = saved
    if len(tasks) != 1:
        named = " and ".join(repr(str(saved.folder)) for saved in tasks)
        raise IsoglossError(
            f"--modules: {f'{named} are task modules' if tasks else 'there is no task module among them'}; give exactly "
            "one, with any number of language modules."
        )
    first = tasks[0]
    for saved in [*languages.values(), *shared]:
        if saved.info.fingerprint != first.info.fingerprint:
            raise IsoglossError(
                f"--modules: '{saved.folder}' was trained on {saved.info.backbone} (fingerprint "
                f"{saved.info.fingerprint}), but '{first.folder}' on {first.info.backbone} (fingerprint "
                f"{first.info.fingerprint}); give modules of one backbone."
            )
    return Parts(tuple(folders), _task_of(first, task, fields or {}), first, tuple(languages))


def _task_of(saved: "SavedModule", name: str | None, fields: Mapping[str, str]) -> "Task":
    from isogloss.tasks import Task, get_task

    described: Any = saved.info.head.get("task")
    if not described:
        raise IsoglossError(
            f"--modules {saved.folder}: this task module has no task head; train one with `isogloss train task`."
        )
    task = Task.from_dict(described)
    if name is not None and name != task.name:
        get_task(name)
        raise IsoglossError(
            f"--task {name}: the task module in '{saved.folder}' was trained for {task.name}; leave --task out or "
            "give another module."
        )
    for logical in fields:
        if logical not in task.fields:
            raise IsoglossError(
                f"--field {logical}={fields[logical]}: {task.name} has no field {logical!r}, it has {', '.join(task.fields)}."
            )
    named = {logical: (column,) for logical, column in fields.items()}
    return dataclasses.replace(task, fields={**task.fields, **named})

"""The language modules of the quickstart: those that travel with the package, and some trained from raw text."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from isogloss.backbones import Backbone
from isogloss.formats import list_modules, load_module
from isogloss.languages import Language, resolve
from isogloss.modules import ModuleConfig, TransferModule, format_module, parse_module
from isogloss.tasks import Example
from isogloss.training.language_stage import LanguageStage, train_language
from isogloss.training.progress import Progress

SPECS = {"none": "none", "adapter": "adapter:16", "prompt": "prompt:20"}
_FIRST_TO_TRAIN = "slk_Latn"
_FROM_TEXT = 3  # Where no language modules are bundled: so many are trained besides the source's.


class _Brief(Progress):
    """Without a line for every measurement on dev data: seven cells would fill the screen with them."""

    def note(self, text: str) -> None:
        if not text.startswith("step "):
            super().note(text)


@dataclass
class Shelf:
    """Language modules of one method, by language.

    Attributes:
        modules: One a language.
        trained_now: Further ones, trained here to be compared with those in `modules`.
    """

    modules: dict[str, TransferModule] = field(default_factory=dict)
    trained_now: dict[str, TransferModule] = field(default_factory=dict)


@dataclass
class Run:
    """What stays the same through a quickstart."""

    backbone: Backbone
    data: str
    source: Language
    folder: Path
    progress: bool
    seeds: Sequence[int]
    task_steps: int
    language_steps: int
    texts: Mapping[str, Path]
    test: Mapping[str, Sequence[Example]]
    records: list[dict[str, Any]] = field(default_factory=list)

    def shown(self, title: str) -> Progress | None:
        """Where a training shows its progress."""
        return _Brief(title) if self.progress else None

    def say(self, text: str) -> None:
        """Tells on stderr what comes now."""
        if self.progress:
            Console(stderr=True, highlight=False).print(Text(text, style="bold"))


def language_modules(run: Run, bundled: Path) -> tuple[dict[str, Shelf], list[str]]:
    """Loads and trains what can be had.

    Args:
        run: The quickstart; what is found goes to its folder and its records.
        bundled: Bundled modules, `<kind>/<method>/<language>/`.

    Returns:
        Shelves by method, without methods of which the source or every target lacks a module; and sentences on what was
        done.
    """
    shelves: dict[str, Shelf] = {}
    done = []
    for method in ("adapter", "prompt"):
        shelf = _bundled(run, bundled / run.backbone.kind / method)
        targets = [code for code in run.texts if code != run.source.code]
        if shelf.modules:
            done.append(f"Loaded {len(shelf.modules)} bundled language {method}s.")
            fitting = [code for code in targets if code in shelf.modules]
            # One more is trained before the reader's eyes, built as the bundled one is, so that it fits in its place.
            for code in sorted(fitting, key=lambda code: code != _FIRST_TO_TRAIN)[:1]:
                shelf.trained_now[code] = _train_language(
                    run, code, shelf.modules[code].config, f"{method}-trained-now"
                )
        elif run.source.code in run.texts and targets:
            # The source needs one too: the task module is trained over it.
            for code in [run.source.code, *sorted(targets, key=lambda code: code != _FIRST_TO_TRAIN)[:_FROM_TEXT]]:
                shelf.modules[code] = _train_language(run, code, parse_module(SPECS[method]), method)
        trained = [run.test[code][0].language for code in (shelf.trained_now or shelf.modules)]
        if trained and (shelf.trained_now or not done):
            names = ", ".join(resolve(code).name for code in trained)
            done.append(f"Trained a language {method} from raw text for {names} ({run.language_steps} steps).")
        if shelf.modules:
            shelves[method] = shelf
    if not shelves:
        done.append(
            "No language modules are bundled for this backbone and there is no raw text to train them on, so only cells "
            "without a language module were run."
        )
    return shelves, done


def _bundled(run: Run, folder: Path) -> Shelf:
    shelf = Shelf()
    # One made for another backbone (an older bundled one, say) is of no use here and no reason to stop.
    found = list_modules(folder, problems=[]) if folder.is_dir() else []
    usable = {
        saved.info.language: saved
        for saved in found
        if saved.info.role == "language" and saved.info.fingerprint == run.backbone.fingerprint
    }
    codes = [code for code in run.test if code in usable]
    if run.source.code not in codes or len(codes) < 2:
        return shelf
    for code in codes:
        saved = usable[code]
        place = run.folder / "languages" / saved.method / code
        shutil.copytree(saved.folder, place)
        shelf.modules[code] = load_module(place, run.backbone)
        _record(run, code, shelf.modules[code], place, "bundled", saved.parameters)
    return shelf


def _train_language(run: Run, code: str, config: ModuleConfig, shelf: str) -> TransferModule:
    language = resolve(code)
    run.say(f"A language module from raw text: {language.name}, {format_module(config)}")
    place = run.folder / "languages" / shelf / code
    stage = LanguageStage(steps=run.language_steps, length=64, batch_size=16, seed=run.seeds[0])
    made = train_language(
        run.backbone,
        language,
        [run.texts[code]],
        config,
        stage,
        place,
        progress=run.shown(f"{language.name} {config.method}"),
    )
    module = load_module(place, run.backbone)
    _record(run, code, module, place, "trained now", made["parameters"])
    return module


def _record(run: Run, code: str, module: TransferModule, place: Path, origin: str, parameters: int) -> None:
    held_out = module.info.scores.get("held_out", {})
    facts = {key: held_out[key] for key in ("loss", "loss_without") if isinstance(held_out.get(key), int | float)}
    run.records.append(
        {
            "language": code,
            "method": module.method,
            "spec": format_module(module.config),
            "origin": origin,
            "module": place.relative_to(run.folder).as_posix(),
            "parameters": parameters,
            "steps": module.info.training.get("steps"),
            "seconds": module.info.training.get("seconds"),
            **(facts if all(math.isfinite(value) for value in facts.values()) else {}),
        }
    )

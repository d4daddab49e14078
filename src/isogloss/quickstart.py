"""`isogloss quickstart`: the whole way once, in a few minutes on a laptop, with nothing but what is bundled.

Language modules come with the package; one of each kind is also trained from raw text where the package holds some. Task
modules are trained on the source language only, then every language is scored with its own language module swapped in.
"""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.text import Text

from isogloss._quickstart_modules import SPECS, Run, Shelf, language_modules
from isogloss.backbones import Backbone, load_backbone
from isogloss.errors import IsoglossError
from isogloss.formats.saved import isogloss_version
from isogloss.languages import Language, resolve
from isogloss.modules import TransferModule, parse_module
from isogloss.report import to_rich, write_page
from isogloss.report import transfer_words as words
from isogloss.report.aggregate import differences, mean_and_interval
from isogloss.report.tables import without_columns
from isogloss.report.transfer import score_table, transfer_page
from isogloss.storage import new_folder, package_data, read_json, write_json
from isogloss.tasks import Example, available, evaluate_predictions, get_task, read, splits
from isogloss.training._interrupts import Interrupted
from isogloss.training.evaluation import load_parts, make_predictor, mean_scores
from isogloss.training.task_stage import TaskStage, train_task

# Cell -> method of the language module, method of the task module; in the order in which time is given to them.
CELLS: Mapping[str, tuple[str, str]] = {
    "head only": ("none", "none"),
    "TA": ("none", "adapter"),
    "LA+TA": ("adapter", "adapter"),
    "LP+TA": ("prompt", "adapter"),
    "TP": ("none", "prompt"),
    "LA+TP": ("adapter", "prompt"),
    "LP+TP": ("prompt", "prompt"),
}
_TASK = get_task("topic")
_ALWAYS = 4  # So many cells are run however slow the machine is.
_WRITTEN = {"languages", "tasks", "report.html", "results.json"}


def run_quickstart(
    out: str | Path = "quickstart",
    *,
    progress: bool = True,
    seeds: Sequence[int] = (42,),
    backbone: str | Path | Backbone = "bundled:encoder",
    data: str | Path = "bundled:parallel",
    source: str = "eng_Latn",
    task_steps: int = 160,
    language_steps: int = 60,
    minutes: float = 4.0,
    modules_folder: str | Path | None = None,
    text_folder: str | Path | None = None,
    overwrite: bool = False,
    console: Console | None = None,
    command: str = "isogloss quickstart",
) -> dict[str, Any]:
    """Trains, transfers, scores, prints the table and writes modules, `results.json` and `report.html`.

    Args:
        out: Folder to make; an earlier quickstart in it is replaced. Written whole at the end or not at all.
        progress: Show on stderr what happens.
        seeds: Task modules are trained once with each.
        backbone: Name, folder or a loaded one.
        data: A topic data set with train and dev of the source language and test of all languages.
        source: The language with labels.
        task_steps: Optimiser steps of each task module.
        language_steps: Optimiser steps of each language module that is trained here.
        minutes: After the first four cells, another one starts only if it should end within this time.
        modules_folder: Bundled language modules, `<kind>/<method>/<language>/`.
        text_folder: Bundled raw text, `<language>.txt`.
        overwrite: Replace whatever `out` holds.
        console: Where the table goes; stdout by default.
        command: How the report says it was called.

    Returns:
        What `results.json` holds.

    Raises:
        IsoglossError: `out` is occupied, or something cannot be loaded.
        Interrupted: Ctrl-C; nothing is kept.
    """
    began = time.monotonic()
    if not seeds:
        raise IsoglossError("The quickstart needs at least one seed.")
    bundled = package_data()
    target = Path(out)
    try:
        with new_folder(target, overwrite=overwrite or _is_earlier(target)) as folder:
            loaded = backbone if isinstance(backbone, Backbone) else load_backbone(backbone)
            languages = _languages(data, resolve(source))
            run = Run(
                backbone=loaded,
                data=str(data),
                source=resolve(source),
                folder=folder,
                progress=progress,
                seeds=seeds,
                task_steps=task_steps,
                language_steps=language_steps,
                texts=_texts(Path(text_folder or bundled / "text"), languages),
                test={code: read(data, code, "test", _TASK).examples for code in languages},
            )
            shelves, done = language_modules(run, Path(modules_folder or bundled / "modules"))
            cells, left_out = _cells(run, shelves, began, minutes)
            results = _results(run, languages, cells, target)
            if left_out:
                done.append(f"Left out to stay within {minutes:g} minutes: {', '.join(left_out)}.")
            results |= {"done": [*done, _what_was_trained(run, cells)], "command": command}
            results["seconds"] = round(time.monotonic() - began, 1)
            write_json(folder / "results.json", results)
            write_page(folder / "report.html", transfer_page(results))
    except Interrupted as problem:
        raise Interrupted("The quickstart was stopped and kept nothing; start it again when you like.") from problem
    _print(console or Console(highlight=False), results, target)
    return results


def _is_earlier(target: Path) -> bool:
    """Whether the folder holds an earlier quickstart and nothing else."""
    if not (target / "results.json").is_file() or {item.name for item in target.iterdir()} - _WRITTEN:
        return False
    found = read_json(target / "results.json")
    return isinstance(found, dict) and found.get("kind") == "quickstart"


def _languages(data: str | Path, source: Language) -> dict[str, Language]:
    """Languages with a test split, the source first, the others by name."""
    found = [resolve(code) for code in available(data) if "test" in splits(data, code)]
    if source not in found or len(found) < 2:
        raise IsoglossError(
            f"The quickstart needs a test split of {source.name} and of another language in '{data}'; "
            f"it has {', '.join(language.code for language in found) or 'none'}."
        )
    found.sort(key=lambda language: (language != source, language.name))
    return {language.code: language for language in found}


def _texts(folder: Path, languages: Mapping[str, Language]) -> dict[str, Path]:
    """Raw text files by language, of languages that the data have."""
    by_code = {resolve(path.stem).code: path for path in sorted(folder.glob("*.txt"))}
    return {code: path for code, path in by_code.items() if code in languages}


def _cells(
    run: Run, shelves: Mapping[str, Shelf], began: float, minutes: float
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Trains and scores the cells whose parts are there, as far as the time goes."""
    possible = [name for name, (language, _) in CELLS.items() if language == "none" or language in shelves]
    cells: dict[str, dict[str, Any]] = {}
    longest = 0.0
    for number, name in enumerate(possible):
        now = time.monotonic()
        if number >= _ALWAYS and now - began + longest > 60 * minutes:
            return cells, possible[number:]
        run.say(f"Cell {number + 1} of {len(possible)}: {name}")
        language, task = CELLS[name]
        runs = [_train_and_score(run, name, task, shelves.get(language), seed) for seed in run.seeds]
        scores = {
            code: mean_scores([one["scores"][code] for one in runs]) | {"n": len(run.test[code])}
            for code in runs[0]["scores"]
        }
        cells[name] = {
            "language_module": language,
            "task_module": task,
            "spec": SPECS[task],
            "scores": scores,
            # One value an example: how many of the seeds were right.
            "correct": {code: np.mean([one["correct"][code] for one in runs], axis=0) for code in runs[0]["correct"]},
            "runs": [{key: value for key, value in one.items() if key != "correct"} for one in runs],
        }
        longest = max(longest, time.monotonic() - now)
    return cells, []


def _train_and_score(run: Run, cell: str, method: str, shelf: Shelf | None, seed: int) -> dict[str, Any]:
    languages = shelf.modules if shelf else {}
    label = cell.replace(" ", "-") + ("" if len(run.seeds) == 1 else f"-seed{seed}")
    place = run.folder / "tasks" / label
    made = train_task(
        run.backbone,
        _TASK,
        read(run.data, run.source.code, "train", _TASK).examples,
        read(run.data, run.source.code, "dev", _TASK).examples,
        parse_module(SPECS[method]),
        TaskStage(
            steps=run.task_steps,
            # 35 sentences choose better by their loss than by how many are right.
            select="loss",
            seed=seed,
            head_options={"seed": seed} if run.backbone.kind == "encoder" else {},
        ),
        place,
        language_modules=[languages[run.source.code]] if languages else [],
        data_name=run.data,
        progress=run.shown(label),
    )
    module, _ = load_parts([place], run.backbone)
    assert module is not None
    scored = score(run.backbone, module, languages, run.test)
    for code, trained in (shelf.trained_now if shelf else {}).items():
        fresh = score(run.backbone, module, {code: trained}, {code: run.test[code]})
        scored["with_trained_now"] = fresh["scores"]
    return {
        "seed": seed,
        "module": place.relative_to(run.folder).as_posix(),
        **{key: made[key] for key in ("notation", "steps", "seconds", "parameters")},
        "dev": made["metrics"],
        **scored,
    }


def score(
    backbone: Backbone,
    task_module: TransferModule,
    languages: Mapping[str, TransferModule],
    test: Mapping[str, Sequence[Example]],
) -> dict[str, Any]:
    """Scores languages in mixed-language batches.

    Args:
        backbone: The backbone.
        task_module: With its head.
        languages: Language modules; with any, languages without one are left out.
        test: Examples by language.

    Returns:
        `scores` as `evaluate` gives them, and `correct`: right or wrong by example.
    """
    wanted = [code for code in test if not languages or code in languages]
    predictor = make_predictor(backbone, task_module, languages, wanted)
    examples = [example for code in wanted for example in test[code]]
    answers, _, _ = predictor.predict(examples)
    scores, correct, first = {}, {}, 0
    for code in wanted:
        part, decoded = test[code], answers[first : first + len(test[code])]
        first += len(part)
        scores[code] = evaluate_predictions(_TASK, part, decoded)
        correct[code] = [float(one.label == answer) for one, answer in zip(part, decoded, strict=True)]
    return {"scores": scores, "correct": correct}


def _what_was_trained(run: Run, cells: Mapping[str, Any]) -> str:
    seeds = "" if len(run.seeds) == 1 else f" with each of {len(run.seeds)} seeds"
    return (
        f"Trained {len(cells)} task modules on {run.source.name}{seeds} ({run.task_steps} steps each) over the frozen "
        f"backbone, and scored {len(run.test)} languages in mixed-language batches."
    )


def _results(
    run: Run, languages: Mapping[str, Language], cells: dict[str, dict[str, Any]], target: Path
) -> dict[str, Any]:
    zero_shot = [
        code for code in languages if code != run.source.code and all(code in cell["scores"] for cell in cells.values())
    ]
    paired = _is_parallel([run.test[code] for code in zero_shot])
    correct = {name: cell.pop("correct") for name, cell in cells.items()}
    for name, cell in cells.items():
        cell["mean"], cell["interval"] = mean_and_interval(correct[name], zero_shot, paired=paired)
    plain = {task: name for name, (language, task) in CELLS.items() if language == "none"}
    against = {name: plain[task] for name, (language, task) in CELLS.items() if language != "none"}
    majority, count = _majority(run)
    results: dict[str, Any] = {
        "kind": "quickstart",
        "format": 1,
        "isogloss": isogloss_version(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "task": "topic",
        "metric": "accuracy",
        "data": run.data,
        "split": "test",
        "source": run.source.code,
        "source_name": run.source.name,
        "train_count": count,
        "seeds": list(run.seeds),
        "backbone": {
            "name": run.backbone.name,
            "kind": run.backbone.kind,
            "fingerprint": run.backbone.fingerprint,
            "parameters": sum(parameter.numel() for parameter in run.backbone.model.parameters()),
        },
        "languages": {code: {"name": found.name, "family": found.family} for code, found in languages.items()},
        "zero_shot": zero_shot,
        "majority": {"scores": majority, "mean": float(np.mean([majority[code] for code in zero_shot]))},
        "cells": cells,
        "differences": differences(correct, against, zero_shot, paired=paired),
        "language_modules": run.records,
    }
    return results | {
        "summary": words.summary(results),
        "limits": words.limits(results),
        "language_notes": words.language_notes(results),
        "next": words.next_commands(results, target.as_posix()),
    }


def _is_parallel(test: Sequence[Sequence[Example]]) -> bool:
    first = [example.id for example in test[0]]
    return all([example.id for example in other] == first for other in test)


def _majority(run: Run) -> tuple[dict[str, float], int]:
    """Accuracy of the most frequent training label, and the number of training sentences."""
    labels = [str(example.label) for example in read(run.data, run.source.code, "train", _TASK).examples]
    usual = max(sorted(set(labels)), key=labels.count)
    scores = {
        code: evaluate_predictions(_TASK, examples, [usual] * len(examples))["accuracy"]
        for code, examples in run.test.items()
    }
    return scores, len(labels)


def _print(console: Console, results: Mapping[str, Any], out: Path) -> None:
    console.print(to_rich(without_columns(score_table(results), ["code"])))
    for text in (*results["done"], *results["language_notes"], results["summary"], *results["limits"]):
        console.print(Text(text))
    folders = " and ".join(f"{out}/{name}" for name in ("languages", "tasks") if (out / name).is_dir())
    console.print(Text(f"\n{out}/report.html has the plot; modules are in {folders}."))
    console.print(Text(f"It took {results['seconds']:.0f} seconds. What to try next:"))
    for line, meaning in results["next"]:
        console.print(Text(f"\n# {meaning}", style="dim"))
        # Not wrapped, so that it can be copied.
        console.print(Text(line), soft_wrap=True)

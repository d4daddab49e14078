"""Evaluating and predicting with saved modules: one backbone, every language in the same batches."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module
from isogloss.modules import TransferModule
from isogloss.tasks import Example, Task, canonical_split, evaluate_predictions, read
from isogloss.tasks.heads import Encoded, Head, Prediction, head_from_json, truncation
from isogloss.training.inference import Missing, Predictor
from isogloss.training.language_stage import EVERY, language_of
from isogloss.training.trained_rows import rows_in_training, same_data


def load_parts(
    folders: Sequence[str | Path], backbone: Backbone
) -> tuple[TransferModule | None, dict[str, TransferModule]]:
    """Loads module folders and sorts them.

    Returns:
        The task module (None when there is none), and language modules by code; one that serves every language under EVERY.

    Raises:
        IsoglossError: Two task modules, two modules of one language, or a folder that cannot be loaded.
    """
    task: TransferModule | None = None
    languages: dict[str, TransferModule] = {}
    for folder in folders:
        module = load_module(folder, backbone)
        if module.info.role == "task":
            if task is not None:
                raise IsoglossError(
                    f"Two task modules are given ({task.info.label} and {module.info.label}); give one."
                )
            task = module
            continue
        code = language_of(module)
        if code in languages:
            what = "modules that serve every language" if code == EVERY else f"language modules for {code}"
            raise IsoglossError(f"Two {what} are given; give one of them.")
        languages[code] = module
    return task, languages


def rebuild_head(module: TransferModule, backbone: Backbone) -> Head:
    """The head that was saved with a task module, with its weights.

    Raises:
        IsoglossError: The module has none (an imported adapter, say).
    """
    if not module.info.head:
        raise IsoglossError(
            f"The module '{module.method}:{module.info.label}' has no task head; train one with `isogloss train task`."
        )
    head = head_from_json(module.info.head, backbone)
    expected = head.state_dict()
    if set(expected) != set(module.head_state):
        raise IsoglossError(
            f"The head of '{module.method}:{module.info.label}' is incomplete; copy or train the module again."
        )
    if expected:
        head.load_state_dict(module.head_state)
    head.to(backbone.device).eval()
    module.head = head
    return head


def make_predictor(
    backbone: Backbone,
    task_module: TransferModule,
    languages: Mapping[str, TransferModule],
    wanted: Sequence[str],
    *,
    missing: Missing = "error",
) -> Predictor:
    """A predictor for the languages wanted, with the stack options that the task module was trained with.

    Raises:
        IsoglossError: The task module was trained over a language part of another method, or without one.
    """
    trained_over = task_module.info.training.get("language_method", "none")
    own = {code: module for code, module in languages.items() if code != EVERY}
    methods = {module.method for module in own.values()}
    _check_shared(task_module, languages.get(EVERY))
    if trained_over != "none" and not own and missing == "error":
        raise IsoglossError(
            f"The task module was trained over a language {trained_over}; give --modules with the targets' language modules, "
            "or allow --missing none."
        )
    if own and methods != {trained_over}:
        raise IsoglossError(
            f"The task module was trained over a language part of method '{trained_over}', but the language modules are {', '.join(sorted(methods))}; "
            "give modules of the same method."
        )
    return Predictor(
        backbone,
        task_module,
        rebuild_head(task_module, backbone),
        languages,
        wanted,
        missing=missing,
        stack_options=task_module.info.training.get("stack"),
    )


def _check_shared(task_module: TransferModule, shared: TransferModule | None) -> None:
    """A module that serves every language is part of what the task was learned on: the same one, or none."""
    wanted = task_module.info.training.get("language_modules", {}).get(EVERY)
    if wanted is None and shared is not None:
        raise IsoglossError(
            f"The task module was trained without the {shared.method} that serves every language; leave that out, or train the task over it."
        )
    if wanted is not None and (shared is None or wanted not in (shared.digest, shared.method)):
        raise IsoglossError(
            "The task module was trained over a module that serves every language (a prompt pool, say); give that very one with --modules."
        )


def evaluate(
    backbone: Backbone,
    task_module: TransferModule,
    languages: Mapping[str, TransferModule],
    data: str | Path,
    targets: Sequence[str],
    *,
    split: str = "test",
    missing: Missing = "error",
    limit: int | None = None,
    bad_rows: str = "error",
    tokens_per_batch: int | None = None,
) -> dict[str, Any]:
    """Scores a task module on target languages.

    Args:
        backbone: The backbone.
        task_module: Its task and head say what is asked.
        languages: Language modules by code; empty when the task was trained without.
        data: Folder, bundled set or Hub id.
        targets: Language codes.
        split: Which split to score.
        missing: See `Predictor`.
        limit: At most this many examples a language.
        bad_rows: `error`, or `skip` malformed rows and count them.
        tokens_per_batch: Size of the mixed-language batches; None takes what suits the device.

    Returns:
        `{"scores": {code: {metric: value, "n": count}}, "mean": {metric: value}, "task", "split", "source", "seen", "mean_over"}`;
        `mean` is over the targets whose labels took no part in the training, neither as a source nor in meta-learning
        (`seen`). `in_training` counts by language the rows that stand in the training data too, `cut` those that were too long
        and lost their end; absent where there are none.
    """
    _refuse_training_split(task_module, data, split)
    predictor = make_predictor(backbone, task_module, languages, targets, missing=missing)
    task = predictor.head.task
    examples: list[Example] = []
    spans: dict[str, tuple[int, int]] = {}
    dropped: dict[str, Any] = {}
    for code in targets:
        found = read(data, code, split, task, limit=limit, bad_rows=bad_rows)  # type: ignore[arg-type]
        spans[code] = (len(examples), len(examples) + len(found.examples))
        examples += found.examples
        if found.dropped:
            dropped[code] = found.dropped
    known = rows_in_training(task_module.info.training, task, data, examples)
    decoded, rows, predictions = predictor.predict(examples, tokens_per_batch=tokens_per_batch)
    by_language: dict[str, list[Encoded]] = {}
    for row in rows:
        by_language.setdefault(examples[row.example].language, []).append(row)
    cut = {code: count for code, own in by_language.items() if (count := truncation(own).cut)}
    certainty = positive_scores(task, len(examples), rows, predictions)
    scores = {
        code: evaluate_predictions(task, examples[first:last], decoded[first:last], certainty and certainty[first:last])
        for code, (first, last) in spans.items()
    }
    sources = list(task_module.info.training.get("source", []))
    seen = sorted({*sources, *task_module.info.training.get("seen", [])})
    zero_shot = [code for code in scores if code not in seen]
    return {
        "task": task.name,
        "split": split,
        "source": sources,
        "seen": seen,
        "scores": scores,
        "mean": mean_scores([scores[code] for code in (zero_shot or scores)]),
        "mean_over": zero_shot or list(scores),
        **({"dropped": dropped} if dropped else {}),
        **({"in_training": known} if known else {}),
        **({"cut": cut} if cut else {}),
    }


def mean_scores(scores: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Unweighted mean over languages of every metric that all of them have."""
    if not scores:
        return {}
    shared = [key for key in scores[0] if key != "n" and all(key in other for other in scores)]
    return {key: sum(other[key] for other in scores) / len(scores) for key in shared}


def positive_scores(
    task: Task, count: int, rows: Sequence[Encoded], predictions: Sequence[Prediction]
) -> list[float] | None:
    """How sure each of `count` examples is positive, for ranking metrics; None when the task or head does not say."""
    if task.positive is None or not predictions or not all(prediction.scores for prediction in predictions):
        return None
    place = task.label_index(task.positive)
    found = [0.0] * count
    for row, prediction in zip(rows, predictions, strict=True):
        found[row.example] = prediction.scores[place]
    return found


def _refuse_training_split(task_module: TransferModule, data: str | Path, split: str) -> None:
    """Translations share an item across languages, so no language's training split is a test (house rule)."""
    training = task_module.info.training
    if same_data(str(training.get("data", "")), data) and canonical_split(split) == canonical_split(
        str(training.get("split") or "train")
    ):
        raise IsoglossError(
            f"The split '{split}' of '{data}' was trained on, and in parallel data every language's rows are translations of those; "
            "evaluate on another split."
        )
    meta = training.get("meta") or training.get("update") or {}
    same = same_data(str(meta.get("data", training.get("data", ""))), data)
    if same and "split" in meta and canonical_split(split) == canonical_split(str(meta["split"])):
        raise IsoglossError(
            f"The split '{split}' of '{data}' served the auxiliary languages of the meta-training, and in parallel data every "
            "language's rows are translations of those; evaluate on another split."
        )

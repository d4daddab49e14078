"""Learning a start: plain fine-tuning on the source, then a meta-initialisation over the auxiliaries; a task module comes out.

X-MAML (Nooralahzadeh et al. 2020, https://arxiv.org/abs/2003.02739; papers.md 4.4), and FOMAML, Reptile and plain auxiliary
fine-tuning in its place. The rates default to those of the authors in relation to plain fine-tuning: inner SGD at 5 times
its rate (1e-4 for 2e-5), outer Adam at half of it (1e-5).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats import load_module, save_module
from isogloss.meta.applied import set_weights
from isogloss.meta.beginning import begin, check_smooth, last_loss
from isogloss.meta.episodes import LanguageDraws, by_language
from isogloss.meta.initialisations import auxiliary as auxiliary_step
from isogloss.meta.initialisations import fomaml, reptile, xmaml
from isogloss.meta.learn import identity
from isogloss.meta.memory import Estimate
from isogloss.meta.objective import twice_differentiable
from isogloss.meta.stage import STARTS, MetaStage, Parts, build_parts, check_memory
from isogloss.modules import ModuleConfig, TransferModule, format_module
from isogloss.storage import content_key, read_json
from isogloss.tasks import Example, Task
from isogloss.tasks.heads import Encoded, Head, make_head
from isogloss.training.config import FitConfig, LossResult, TrainedPart
from isogloss.training.evaluation import rebuild_head
from isogloss.training.fit import fit
from isogloss.training.language_stage import EVERY
from isogloss.training.new_module import new_module
from isogloss.training.progress import Progress
from isogloss.training.task_stage import TaskStage, lent, train_task

_INNER, _OUTER = 5.0, 0.5
# Reptile's eps: how far one outer step goes to where the inner steps led.
_REPTILE = 0.3


def learn_start(
    backbone: Backbone,
    task: Task,
    source: Sequence[Example],
    auxiliary: Sequence[Example],
    config: ModuleConfig,
    stage: MetaStage,
    out: str | Path,
    *,
    start: str | Path | None = None,
    targets: Sequence[str] = (),
    language_modules: Sequence[TransferModule] = (),
    data_name: str = "",
    split: str = "train",
    auxiliary_split: str = "train",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Learns initial weights and saves them as a task module, ready to be evaluated or fine-tuned further.

    Args:
        backbone: Given back as it was.
        task: With or without its label set.
        source: Labelled examples for the plain fine-tuning in front.
        auxiliary: Labelled examples of other languages, for the meta-training.
        config: Of the module.
        stage: How.
        out: Output folder; the same one continues an interrupted run.
        start: Task module of a finished plain fine-tuning, instead of one made here.
        targets: Codes that will be scored as zero-shot, refused among the auxiliaries and recorded.
        language_modules: Frozen modules of every language, or none.
        data_name: For the record.
        split: Split of `source`, for the record.
        auxiliary_split: Split of `auxiliary`, for the record; evaluation refuses it.
        overwrite: Replace what is there.
        progress: Where to show progress.

    Returns:
        `{"module", "method", "steps", "seconds", ...}`.

    Raises:
        IsoglossError: Languages that do not fit, no data, too little memory, an occupied output folder.
    """
    if stage.method not in STARTS:
        raise IsoglossError(f"The method '{stage.method}' learns no start; use one of {', '.join(STARTS)}.")
    given = begin(task, source, auxiliary, targets, language_modules, out, overwrite=overwrite)
    task, target, sources = given.task, given.target, given.sources
    if start is not None:
        first = Path(start)
    else:
        # Inside the folder of checkpoints, so that it goes with them when the result is saved; named by what it is made
        # from, as an interrupted run may be started again with other options.
        key = _tuning_key(backbone, task, source, config, stage, language_modules, data_name, split)
        first = target / ".checkpoint" / f"start-{key[:16]}"
    untuned = start is None and not (first / "module.json").is_file()
    if untuned:
        needed = _refuse_early(backbone, task, auxiliary, config, stage, language_modules)
        if progress:
            progress.note(str(needed))
        own = [module for module in language_modules if module.info.language in sources]
        _fine_tune(backbone, task, source, config, stage, first, own, data_name, split, progress)
    saved = load_module(first, backbone)
    _check_start(saved, task, stage, config)
    _check_languages_of_start(saved, sources, targets, language_modules)
    module = new_module(config, backbone, seed=stage.seed, labels=task.labels or ())
    module.info.role, module.info.task, module.info.language = "task", task.name, ",".join(sources)
    head = rebuild_head(saved, backbone)
    with lent(backbone):
        head.requires_grad_(True)
        set_weights(saved, backbone, module, head, full=stage.train == "all")
        stack = saved.info.training.get("stack")
        parts = build_parts(backbone, module, head, stage, language_modules, stack_options=stack)
        run, rows, draws, memory = _ready(parts, head, auxiliary, stage)
        if progress and not untuned:
            progress.note(str(memory))
        roots: dict[str, nn.Module] = {"module": module, "head": head}
        if stage.train == "all":
            roots["backbone"] = backbone.model
        result = fit(
            run.config(),
            parts=[TrainedPart("start", list(parts.weights.parameters))],
            batches=draws,
            loss=run.loss,
            modules=roots,
            computing=[parts.stack],
            folder=target,
            progress=progress,
            identity=identity(parts, [rows], stage, data_name) | {"start": saved.digest},
        )
        if stage.train == "all":
            module.backbone_state = {name: p.detach().clone() for name, p in backbone.model.named_parameters()}
        elif saved.backbone_state:
            module.backbone_state = dict(saved.backbone_state)
    module.head = head if list(head.state_dict()) else None
    module.info.head = head.to_json()
    # A start from elsewhere has a history of its own: what it was learned from stays on the record.
    before = saved.info.training
    learned = before.get("data", data_name)
    module.info.training = {
        **before,
        "data": learned,
        "split": before.get("split", split),
        "source": sources,
        "seen": sorted({*sources, *given.auxiliaries, *before.get("seen", ())}),
        "train": stage.train,
        "seed": stage.seed,
        "meta": {
            "method": stage.method,
            "auxiliary": given.auxiliaries,
            **({} if data_name == learned else {"data": data_name}),
            "split": auxiliary_split,
            "examples": len(auxiliary),
            "targets": list(targets),
            "inner_steps": stage.inner_steps,
            "inner_rate": run.inner_rate,
            "outer_rate": run.outer_rate,
            "outer_steps": result.steps,
            "batch_size": stage.batch_size,
            "seconds": round(result.seconds, 1),
            "outer_loss": last_loss(result),
        },
    }
    save_module(module, target, overwrite=True)
    return {
        "module": str(target),
        "method": stage.method,
        **given.outcome(result, memory.total),
        "parameters": parts.weights.size,
    }


def _ready(
    parts: Parts, head: Head, auxiliary: Sequence[Example], stage: MetaStage
) -> tuple["_Run", dict[str, list[Encoded]], LanguageDraws, Estimate]:
    """How to step, the rows, their draws and the memory; refuses what cannot be run."""
    second = stage.method == "xmaml"
    if second:
        check_smooth(head, "--method xmaml", "--method fomaml")
    run = _Run(parts, stage)
    rows = by_language(auxiliary, partial(head.encode, budget=parts.stack.text_budget))
    draws = LanguageDraws(rows, batches=run.batches, size=stage.batch_size, seed=stage.seed)
    everything = [row for part in rows.values() for row in part]
    return run, rows, draws, check_memory(parts, stage, everything, second_order=second, copies=4)


def _refuse_early(
    backbone: Backbone,
    task: Task,
    auxiliary: Sequence[Example],
    config: ModuleConfig,
    stage: MetaStage,
    language_modules: Sequence[TransferModule],
) -> Estimate:
    """Refuses what cannot be run before the fine-tuning that stands in front of it, with parts like those to come.

    Returns:
        The memory of the outer steps.
    """
    module = new_module(config, backbone, seed=stage.seed, labels=task.labels or ())
    head = make_head(stage.head, task, backbone, default_seed=stage.seed, **dict(stage.head_options))
    try:
        return _ready(build_parts(backbone, module, head, stage, language_modules), head, auxiliary, stage)[-1]
    finally:
        backbone.freeze()


def _fine_tune(
    backbone: Backbone,
    task: Task,
    source: Sequence[Example],
    config: ModuleConfig,
    stage: MetaStage,
    out: Path,
    language_modules: Sequence[TransferModule],
    data_name: str,
    split: str,
    progress: Progress | None,
) -> None:
    if progress:
        progress.note("plain fine-tuning on the source first")
    train_task(
        backbone,
        task,
        source,
        [],
        config,
        TaskStage(
            epochs=stage.start_epochs,
            batch_size=stage.batch_size,
            train=stage.train,
            select="last",
            head=stage.head,
            head_options=stage.head_options,
            seed=stage.seed,
        ),
        out,
        language_modules=language_modules,
        data_name=data_name,
        split=split,
        progress=progress,
    )


def _tuning_key(
    backbone: Backbone,
    task: Task,
    source: Sequence[Example],
    config: ModuleConfig,
    stage: MetaStage,
    language_modules: Sequence[TransferModule],
    data_name: str,
    split: str,
) -> str:
    """Of everything that the fine-tuning in front depends on."""
    return content_key(
        {
            "backbone": backbone.fingerprint,
            "task": [task.name, list(task.labels or ())],
            "rows": [repr(example) for example in source],
            "data": [data_name, split],
            "module": format_module(config),
            "languages": [module.digest or module.method for module in language_modules],
            "head": [stage.head, dict(stage.head_options)],
            "stage": [stage.train, stage.batch_size, stage.start_epochs, stage.seed],
        }
    )


def _check_start(saved: TransferModule, task: Task, stage: MetaStage, config: ModuleConfig) -> None:
    if saved.info.role != "task" or saved.info.task != task.name:
        raise IsoglossError(
            f"--start: the folder holds '{saved.method}:{saved.info.label}', not a module for the task {task.name}; give one "
            "that `isogloss train task` made for it."
        )
    if format_module(saved.config) != format_module(config):
        raise IsoglossError(
            f"--start: the module was trained with --module {format_module(saved.config)}, not {format_module(config)}; give that one."
        )
    if stage.train == "modules" and saved.backbone_state:
        raise IsoglossError("--start: the module carries a changed backbone; give --train all as it was trained with.")


def _check_languages_of_start(
    saved: TransferModule, sources: Sequence[str], targets: Sequence[str], language_modules: Sequence[TransferModule]
) -> None:
    """Refuses a start of other languages, or over another language part, than the meta-training is told of."""
    training = saved.info.training
    taught = list(training.get("source", ()))
    if taught and set(taught) != set(sources):
        raise IsoglossError(
            f"--start: the module was fine-tuned on {', '.join(taught)}, not on {', '.join(sources)}; give its languages by --source."
        )
    lent = [code for code in targets if code in training.get("seen", ())]
    if lent:
        raise IsoglossError(
            f"--start: labels of {lent[0]} took part in making the module, so its score would not be zero-shot; take it out of "
            "--targets, or give another start."
        )
    if EVERY in training.get("language_modules", {}):
        raise IsoglossError(
            "--start: the module was trained over a module that serves every language (a prompt pool, say), which meta-training "
            "does not take; give a start without."
        )
    over = str(training.get("language_method", "none"))
    there = {module.method for module in language_modules} or {"none"}
    if there != {over}:
        raise IsoglossError(
            f"--start: the module was trained over a language part of method '{over}', but --language-module gives "
            f"{', '.join(sorted(there))}; give the same ones, or none where it had none."
        )


class _Run:
    """The loss of one outer step for `fit`: gradients are left in the weights."""

    def __init__(self, parts: Parts, stage: MetaStage) -> None:
        self.parts, self.stage = parts, stage
        usual = parts.how.learning_rate
        # `parts.how` holds what is given for the inner steps, or the usual rate of plain fine-tuning.
        self.inner_rate = usual if stage.learning_rate is not None else _INNER * usual
        self.outer_rate = stage.outer_learning_rate or (
            _REPTILE if stage.method == "reptile" else _OUTER * usual if stage.learning_rate is None else usual / 10.0
        )
        # Reptile and plain fine-tuning have no query batch.
        self.batches = {"reptile": stage.inner_steps, "auxiliary": 2}.get(stage.method, stage.inner_steps + 1)
        self._names = parts.objective.names_of(parts.weights)

    def config(self) -> FitConfig:
        """Outer Adam without decay or schedule, as X-MAML's authors have it; Reptile's own outer step."""
        return FitConfig(
            steps=self.stage.outer_steps,
            optimiser="sgd" if self.stage.method == "reptile" else "adamw",
            learning_rate=self.outer_rate,
            schedule="constant",
            clip=None,
            keep_best=False,
            seed=self.stage.seed,
            checkpoint_seconds=self.stage.checkpoint_seconds,
            tracker=self.stage.tracker,
        )

    def loss(self, draws: Mapping[str, Sequence[Sequence[Encoded]]]) -> LossResult:
        """Mean query loss over the languages, without a graph."""
        objective = self.parts.objective
        objective.tokens = 0
        parameters = self.parts.weights.parameters
        rate = self.inner_rate
        match self.stage.method:
            case "xmaml":
                with twice_differentiable(self.parts.backbone.model):
                    value = xmaml(parameters, self._at, draws, rate=rate)
            case "fomaml":
                value = fomaml(parameters, objective, draws, rate=rate)
            case "reptile":
                value = reptile(parameters, objective, draws, rate=rate)
            case _:
                value = auxiliary_step(parameters, objective, draws, rate=rate)
        return LossResult(value, 1, objective.tokens)

    def _at(self, values: Sequence[Tensor], rows: Sequence[Encoded]) -> Tensor:
        return self.parts.objective.at(dict(zip(self._names, values, strict=True)), rows)


def start_facts(folder: str | Path) -> dict[str, Any]:
    """What a learned start says about its meta-training."""
    training: Any = read_json(Path(folder) / "module.json")["training"]
    return {"source": training["source"], "seen": training["seen"], **training["meta"]}


__all__ = ["learn_start", "start_facts"]

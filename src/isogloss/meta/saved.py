"""Saved update rules: a folder with `rule.json`, `rule.safetensors` and a card, refused on other backbones and tasks."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from isogloss.errors import IsoglossError
from isogloss.formats.saved import isogloss_version
from isogloss.languages import resolve
from isogloss.meta.rules import RULES, Rule, make_rule
from isogloss.storage import file_digest, load_tensors, new_folder, read_json, save_tensors, write_json, write_text

FORMAT = 1
RULE_FILE, TENSOR_FILE, CARD_FILE = "rule.json", "rule.safetensors", "README.md"


@dataclass(frozen=True)
class RuleRecord:
    """What a saved rule says about itself.

    Attributes:
        method: Key of `RULES`.
        options: Its keyword arguments.
        groups: Labels, from the lowest layer up.
        layers: Layer number of each group.
        by: How weights were grouped.
        base: Base step, as `BaseStep.to_json`.
        learning_rate: Of the base step.
        head_learning_rate: Of the base step, for the head's weights.
        clip: Largest norm of the inner gradients, or None.
        backbone: Name.
        fingerprint: Of the backbone.
        task: Name.
        labels: Label set of the task, or empty.
        module: Spec of the module among the fast weights.
        train: `modules` or `all`.
        source: Codes that supported.
        auxiliary: Codes that queried.
        gates: Mean gates [part of the fine-tuning][group]: those of the learned rule, or those met late in meta-training
            where they depend on gradients.
        training: Further facts; JSON.
    """

    method: str
    options: dict[str, Any]
    groups: list[str]
    layers: list[int]
    by: str
    base: dict[str, Any]
    learning_rate: float
    head_learning_rate: float
    clip: float | None
    backbone: str
    fingerprint: str
    task: str
    labels: list[str]
    module: str
    train: str
    source: list[str]
    auxiliary: list[str]
    gates: list[list[float]] = field(default_factory=list)
    training: dict[str, Any] = field(default_factory=dict)

    @property
    def seen(self) -> list[str]:
        """Every language whose labels took part, so that its scores are not zero-shot."""
        return sorted({*self.source, *self.auxiliary})

    @property
    def mean_gate(self) -> float:
        """Mean over groups and parts of the fine-tuning."""
        values = [value for row in self.gates for value in row]
        return sum(values) / len(values) if values else 1.0

    def refuse_other(self, *, fingerprint: str, backbone: str, task: str, module: str, train: str) -> None:
        """Raises when the rule was learned for something else.

        Args:
            fingerprint: Of the backbone at hand.
            backbone: Its name.
            task: Name of the task at hand.
            module: Spec of the module at hand.
            train: `modules` or `all`.
        """
        if fingerprint != self.fingerprint:
            raise IsoglossError(
                f"--update: the rule was learned on {self.backbone} (fingerprint {self.fingerprint}), but the backbone is "
                f"{backbone} (fingerprint {fingerprint}); load the backbone that it names or learn a rule on this one."
            )
        if task != self.task:
            raise IsoglossError(
                f"--update: the rule was learned for the task {self.task}, not {task}; learn one by "
                f"`isogloss meta learn --task {task}`."
            )
        if (module, train) != (self.module, self.train):
            raise IsoglossError(
                f"--update: the rule moves --module {self.module} with --train {self.train}, not {module} with {train}; "
                "give the same ones."
            )


def save_rule(rule: Rule, record: RuleRecord, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Writes a rule as a folder, whole or not at all.

    Args:
        rule: The learned rule.
        record: What it says about itself.
        folder: The folder to make.
        overwrite: Replace what is there.

    Raises:
        IsoglossError: The folder is occupied or cannot be written.
    """
    try:
        with new_folder(folder, overwrite=overwrite) as temporary:
            save_tensors(temporary / TENSOR_FILE, rule.state_dict())
            digest = file_digest(temporary / TENSOR_FILE)
            described = {"format": FORMAT, "isogloss": isogloss_version(), **asdict(record), "sha256": digest}
            write_json(temporary / RULE_FILE, described)
            write_text(temporary / CARD_FILE, rule_card(record, Path(folder).name))
    except OSError as problem:
        raise IsoglossError(
            f"The rule cannot be saved in '{folder}' ({problem.strerror or problem}); free disk space or choose another folder."
        ) from problem
    return Path(folder)


def is_rule(folder: str | Path) -> bool:
    """Whether a folder holds a saved rule."""
    return (Path(folder) / RULE_FILE).is_file()


def read_rule(folder: str | Path) -> RuleRecord:
    """What a saved rule says about itself.

    Raises:
        IsoglossError: No rule, a newer format, or a damaged file.
    """
    source = Path(folder) / RULE_FILE
    if not source.is_file():
        raise IsoglossError(f"The folder '{folder}' is no saved update rule: it has no {RULE_FILE}.")
    content = read_json(source)
    number = content.get("format") if isinstance(content, dict) else None
    if not isinstance(number, int) or isinstance(number, bool):
        raise IsoglossError(f"The file '{source}' does not describe an update rule: it has no format number.")
    if number > FORMAT:
        raise IsoglossError(
            f"The rule in '{folder}' has format {number}, but {FORMAT} is the newest known; update isogloss."
        )
    names = [item.name for item in fields(RuleRecord)]
    missing = [name for name in (*names, "sha256") if name not in content]
    if missing:
        raise IsoglossError(f"The file '{source}' lacks the key '{missing[0]}'; copy or learn the rule again.")
    if content["method"] not in RULES:
        raise IsoglossError(f"The file '{source}' names the unknown method '{content['method']}'; update isogloss.")
    return RuleRecord(**{name: content[name] for name in names})


def load_rule(folder: str | Path) -> tuple[Rule, RuleRecord]:
    """A saved rule, frozen, and what it says about itself.

    Raises:
        IsoglossError: What `read_rule` refuses, or a tensor file that is not the saved one.
    """
    record = read_rule(folder)
    path = Path(folder) / TENSOR_FILE
    if not path.is_file() or file_digest(path) != read_json(Path(folder) / RULE_FILE)["sha256"]:
        raise IsoglossError(
            f"The file '{path}' is missing, truncated or altered: its digest is not the recorded one; copy it again."
        )
    rule = make_rule(record.method, record.groups, record.layers, **record.options)
    try:
        rule.load_state_dict(load_tensors(path))
    except RuntimeError as problem:
        raise IsoglossError(f"The file '{path}' does not hold the weights of a '{record.method}' rule.") from problem
    rule.requires_grad_(False)
    return rule, record


def rule_digest(folder: str | Path) -> str:
    """Digest of a saved rule's weights."""
    return str(read_json(Path(folder) / RULE_FILE)["sha256"])


def parameters_of(rule: torch.nn.Module) -> int:
    """Numbers that were learned."""
    return sum(parameter.numel() for parameter in rule.parameters())


def rule_card(record: RuleRecord, name: str) -> str:
    """The card of a rule, as Markdown."""
    facts = {
        "method": record.method,
        "backbone": f"{record.backbone} (fingerprint {record.fingerprint})",
        "task": record.task,
        "moves": f"--module {record.module}, --train {record.train}, grouped by {record.by}",
        "base step": f"{record.base['name']}, learning rate {record.learning_rate:g}, head {record.head_learning_rate:g}",
        "source languages": ", ".join(map(_named, record.source)),
        "auxiliary languages": ", ".join(map(_named, record.auxiliary)),
        **{key: str(value) for key, value in record.training.items() if not isinstance(value, list | Mapping)},
    }
    lines = [
        "---",
        f"base_model: {record.backbone}",
        "library_name: isogloss",
        "tags: [isogloss, cross-lingual-transfer, meta-learning, update-rule]",
        "---",
        "",
        f"# Update rule `{record.method}` for {record.task}",
        "",
        "How far each group of weights moves in fine-tuning, learned by simulating transfer from the source to the auxiliary "
        "languages (Xu et al. 2021, https://arxiv.org/abs/2107.09840; the published text leaves the form open, so this "
        "is a reconstruction). Labels of the languages named below took part: their scores are not zero-shot.",
        "",
        "| | |",
        "|---|---|",
        *(f"| {key} | {_cell(value)} |" for key, value in facts.items()),
        "",
        "## Mean gates",
        "",
        "| group | " + " | ".join(f"part {number + 1}" for number in range(len(record.gates))) + " |",
        "|---|" + "---|" * len(record.gates),
        *(
            f"| {_cell(group)} | " + " | ".join(f"{row[place]:.3f}" for row in record.gates) + " |"
            for place, group in enumerate(record.groups)
        ),
        "",
        "## How to use it",
        "",
        "```",
        f"isogloss train task --backbone {record.backbone} --task {record.task} --data DIR --source {record.source[0]} "
        f"--module {record.module} --train {record.train} --update {name or 'RULE'} --out OUT",
        "```",
        "",
    ]
    return "\n".join(lines)


def _named(code: str) -> str:
    try:
        return f"{resolve(code).name} ({code})"
    except IsoglossError:
        return code


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

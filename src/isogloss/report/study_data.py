"""What a study hands to its report: scores with their per-example parts, curves, gates, attention, published numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

Factor = str | int | float | bool | None
# What the mean of a published number may be called: over all languages, or over those without the source.
MEAN_OF_ALL = frozenset({"", "mean", "average", "avg", "all"})
MEAN_ZERO_SHOT = frozenset({"zero-shot", "zero_shot"})


def board_name(task: str, test: str) -> str:
    """The task, with its test set where there are several."""
    return f"{task}: {test}" if test else task


@dataclass(frozen=True)
class StudyScore:
    """One model on one language: the smallest thing that a report counts.

    Attributes:
        step: Content key of the evaluation step, which leads to its folder in the store.
        factors: The study's choices for this model, for example {"cell": "LP+TA", "task_module": "adapter:8"}.
        task: Task name.
        source: Language code that the task module was trained on.
        language: Language code that it was scored on.
        seed: Seed of the task training.
        metric: Name of the task's main metric.
        value: Its value over all `n` examples, in percent.
        n: Examples.
        items: Names of the examples, in order; models scored on the same data have the same names. None where unknown.
        parts: Per example the numbers from which the metric is computed: (correct,) for accuracy, exact match and F1 of
            questions; (hits, predicted, gold) for span F1 and for F1 over tags; (predicted label, gold label) indices for
            macro F1. None where unknown.
        seen: Whether the language took part in choosing or training anything (source, meta-learner's auxiliary);
            such scores are not zero-shot.
        trained_parameters: Parameters that the task stage trained.
        stored_bytes: Bytes of the task module on disk.
        seconds: Time of the training step that made the model.
        command: Command that ran the step.
        commit: Version control commit of the code, or its version.
        test: Name of the test set, where the task has several; each is looked at on its own.
    """

    step: str
    factors: Mapping[str, Factor]
    task: str
    source: str
    language: str
    seed: int
    metric: str
    value: float
    n: int
    items: Sequence[str] | None = None
    parts: Sequence[Sequence[float]] | None = None
    seen: bool = False
    trained_parameters: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    command: str = ""
    commit: str = ""
    test: str = ""

    @property
    def board(self) -> str:
        """What it is compared within: the task, or one test set of it."""
        return board_name(self.task, self.test)


@dataclass(frozen=True)
class PlannedScore:
    """A test set that a study asks for, in whatever setting, whether or not there are data for it.

    Attributes:
        task: Task name.
        source: Language code that task modules are trained on.
        language: Language code that they are to be scored on.
        seen: Whether the language takes part in choosing or training anything in some setting.
        test: Name of the test set, where the task has several.
    """

    task: str
    source: str
    language: str
    seen: bool = False
    test: str = ""

    @property
    def board(self) -> str:
        """What it would be compared within."""
        return board_name(self.task, self.test)


@dataclass(frozen=True)
class LearningCurve:
    """A training's loss or validation score by step."""

    step: str
    label: str
    kind: str
    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class GateTable:
    """Learned gates: values[group][inner step], groups from the lowest layer up."""

    step: str
    label: str
    groups: Sequence[str]
    values: Sequence[Sequence[float]]


@dataclass(frozen=True)
class PoolAttention:
    """Mean attention of each language over the keys of a prompt pool.

    Attributes:
        step: Content key of the step that trained it; empty where no step did.
        label: What a person reads.
        languages: Codes, L of them.
        attention: [L][M]; rows sum to 1.
        source: Which texts it was measured on, one sentence.
    """

    step: str
    label: str
    languages: Sequence[str]
    attention: Sequence[Sequence[float]]
    source: str = ""


@dataclass(frozen=True)
class PublishedScore:
    """A number from a paper, shown beside ours with where it stands.

    Attributes:
        task: Task name of this study.
        cell: What the source calls the method.
        language: A language; `mean` or `all` for the mean over all languages, `zero-shot` for that over all but those trained
            on, or the name of a group of the study.
        metric: Its metric; ours stands beside it only if it is the task's main one.
        value: In percent.
        backbone: Theirs.
        source: Where the number stands.
        setting: Factors of this study's settings that correspond; without it, those whose cell, or whole name, is `cell`.
        test: The test set; empty for all of the task's.
    """

    task: str
    cell: str
    language: str
    metric: str
    value: float
    backbone: str
    source: str
    setting: Mapping[str, Factor] | None = None
    test: str = ""


@dataclass(frozen=True)
class StudyData:
    """Everything that a report is made of.

    Attributes:
        name: The study's name.
        description: What it asks, one sentence.
        scores: All finished evaluations.
        curves: Learning curves.
        gates: Learned update rules.
        pools: Prompt pools.
        published: Numbers from papers.
        missing: Steps that failed or have not run: (label, reason).
        planned: What was to be scored; groups name the languages of it that no setting has a score on.
        notes: What the plan says of languages that it leaves out, and why, in sentences.
        shares: Share of each language in the pre-training text, by backbone name (empty for settings without a factor
            `backbone`) and language, where it is known; None for a language that is in the text with an unknown share.
        command: Command that made the report.
        commit: Commit of the code that made it.
        groups: Named groups of languages of the study file; one named `low-resource` or `unseen` takes the place of the rule's.
        backbones: Fingerprint by backbone name.
        reference: The setting (a cell's name or a whole label) that per-language differences are taken against; empty
            takes the cell `TA` or, without one, the best setting.
        date: When it was made, ISO 8601, UTC.
        version: Of isogloss.
    """

    name: str
    description: str
    scores: Sequence[StudyScore]
    curves: Sequence[LearningCurve] = ()
    gates: Sequence[GateTable] = ()
    pools: Sequence[PoolAttention] = ()
    published: Sequence[PublishedScore] = ()
    missing: Sequence[tuple[str, str]] = ()
    planned: Sequence[PlannedScore] = ()
    notes: Sequence[str] = ()
    shares: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    command: str = ""
    commit: str = ""
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    backbones: Mapping[str, str] = field(default_factory=dict)
    reference: str = ""
    date: str = ""
    version: str = ""

"""What a study file may say: plain frozen data, checked when it is made."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Scalar = str | int | float | bool | None


def _listed(value: Any) -> Any:
    """A single value where a list belongs is a list of one."""
    return value if isinstance(value, list) else [value]


Texts = Annotated[list[str], BeforeValidator(_listed), Field(min_length=1)]
# Generators take no others.
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**63)]], BeforeValidator(_listed), Field(min_length=1)]
Lengths = Annotated[list[Annotated[int, Field(ge=1)] | None], BeforeValidator(_listed), Field(min_length=1)]
Maybe = Annotated[list[str | None], BeforeValidator(_listed), Field(min_length=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Switches = Annotated[list[bool], BeforeValidator(_listed), Field(min_length=1)]


class Strict(BaseModel):
    """Base of all parts of a study file: no unknown keys, no changes afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Grid(Strict):
    """The choices; a study is their product, less what `exclude` takes out.

    An axis that a cell does not use (the length of a task prompt in a cell without one) does not multiply it.

    Attributes:
        backbone: Bundled names, folders or Hub ids.
        cell: `head` (or `base`), `full`, or a language part and a task part, `LA+TA`: A adapter, P prompt, R LoRA, C the spec in
            `language_custom` or `task_custom`; either part may be missing (`TA`, `LP`).
        language_adapter, language_prompt, language_lora, language_custom: Module specs of the language part.
        task_adapter, task_prompt, task_lora, task_custom: Module specs of the task part.
        placement, length, reparameterisation: Of task prompts; null takes what the spec says.
        freeze: Whether the backbone stays as it is.
        pool: `none`, or the folder of a module that serves every language (a prompt pool) and stands before all others.
        update: `none`, or a name under `updates`: a learned update rule or start.
        task: Names under `tasks`.
        source: Languages with labels; several at once as `en+de`.
        shots: Examples a class; null takes all.
        seed: Of the task training.
        language_seed: Of the language training.
    """

    backbone: Texts
    cell: Texts
    language_adapter: Texts = ["adapter:16"]
    language_prompt: Texts = ["prompt:50"]
    language_lora: Texts = ["lora:8"]
    language_custom: Texts = ["none"]
    task_adapter: Texts = ["adapter:16"]
    task_prompt: Texts = ["prompt:50"]
    task_lora: Texts = ["lora:8"]
    task_custom: Texts = ["none"]
    placement: Maybe = [None]
    length: Lengths = [None]
    reparameterisation: Maybe = [None]
    freeze: Switches = [True]
    pool: Texts = ["none"]
    update: Texts = ["none"]
    task: Texts
    source: Texts
    shots: Lengths = [None]
    seed: Seeds = [42]
    language_seed: Seeds = [42]


class LanguageStageSpec(Strict):
    """How language modules are trained; see `training.language_stage.LanguageStage`."""

    steps: int | None = Field(default=None, ge=1)
    length: int | None = Field(default=None, ge=8)
    batch_size: int | None = Field(default=None, ge=1)
    accumulation: int | None = Field(default=None, ge=1)
    objective: Literal["masked", "spans", "causal", "prefix"] | None = None
    rate: float | None = Field(default=None, gt=0, lt=1)
    optimiser: str | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    schedule: str | None = None
    warmup: float | None = Field(default=None, ge=0)
    validation_documents: int | None = Field(default=None, ge=1)
    limit: int | None = Field(default=None, ge=1)
    field: str | None = None
    licence: str | None = None
    precision: Literal["fp32", "bf16"] | None = None


class TaskStageSpec(Strict):
    """How task modules are trained; see `training.task_stage.TaskStage`."""

    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    batch_size: int | None = Field(default=None, ge=1)
    tokens_per_batch: int | None = Field(default=None, ge=1)
    accumulation: int | None = Field(default=None, ge=1)
    optimiser: str | None = None
    learning_rate: float | None = Field(default=None, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)
    schedule: str | None = None
    warmup: float | None = Field(default=None, ge=0)
    head_learning_rate: float | None = Field(default=None, ge=0)
    backbone_learning_rate: float | None = Field(default=None, ge=0)
    clip: float | None = Field(default=None, ge=0)
    head: Literal["linear", "span", "verbaliser", "text"] | None = None
    head_options: dict[str, Any] | None = None
    select: Literal["metric", "loss", "last"] | None = None
    patience: int | None = Field(default=None, ge=1)
    precision: Literal["fp32", "bf16"] | None = None
    prompt_fusion: Literal["concatenate", "average"] | None = None


class LanguageSection(Strict):
    """Where language modules come from.

    Attributes:
        text: Folders with `<language>.{txt,jsonl}[.gz]`, `bundled:text`, or a pattern with `{iso639_1}`, `{iso639_3}`, `{code}`
            or `{name}` in it, such as `hub:wikimedia/wikipedia:20231101.{iso639_1}`; the first that has a language counts.
        ready: Folders with `<method>/<language>/module.json`, or `bundled:modules`; a module there is taken as it is when its
            spec is the one asked for.
        stage: Training of all of them.
        adapter, prompt, lora, invertible: What differs for one method.
        init_text: Text that language prompts start from, with `{name}` for the language (S1).
    """

    text: Annotated[list[str], BeforeValidator(_listed)] = []
    ready: Annotated[list[str], BeforeValidator(_listed)] = []
    stage: LanguageStageSpec = LanguageStageSpec()
    adapter: LanguageStageSpec = LanguageStageSpec()
    prompt: LanguageStageSpec = LanguageStageSpec()
    lora: LanguageStageSpec = LanguageStageSpec()
    invertible: LanguageStageSpec = LanguageStageSpec()
    init_text: str | None = None


class TestSet(Strict):
    """What is scored: a data set and its split."""

    data: str | dict[str, str]
    split: str = "test"
    name: str | None = None


class TaskSection(Strict):
    """One task: what it trains on and what it is scored on.

    Attributes:
        task: Name of the task; the key in `tasks` by default.
        data: Data set, or one by source language with `default` for the others.
        train, dev: Splits. Without a dev split the last tenth of the training rows (50 at least) is held out.
        test: Data sets to score; the training data's `test` split by default.
        metric: The metric of the report; the task's own by default.
        fields, labels, label_map: See `tasks.get_task`.
        limit_train, limit_test: At most so many rows.
        bad_rows: What malformed rows do.
        init_text: Text that task prompts start from, with `{name}` for the source language (S1).
        stage: What differs in training for this task.
    """

    task: str | None = None
    data: str | dict[str, str]
    train: str = "train"
    dev: str | None = "dev"
    test: Annotated[list[TestSet], BeforeValidator(_listed)] = []
    metric: str | None = None
    fields: dict[str, str] = {}
    labels: list[str] | None = None
    label_map: dict[str, str] = {}
    limit_train: int | None = Field(default=None, ge=1)
    limit_test: int | None = Field(default=None, ge=1)
    bad_rows: Literal["error", "skip"] = "error"
    init_text: str | None = None
    stage: TaskStageSpec = TaskStageSpec()


class UpdateSection(Strict):
    """A rule of updating, or a start, that is learned by simulating transfer (`isogloss meta learn`), or a fixed one.

    Attributes:
        method: gates, step-gates, lstm-gates, recurrent, meta-sgd (rules); xmaml, fomaml, reptile, auxiliary (starts).
        auxiliary: Labelled languages that simulated transfer is scored on; their scores are not zero-shot.
        split: Of the auxiliary rows.
        data: Of the auxiliary rows; the task's own by default.
        stage: Fields of `meta.MetaStage`.
        control: Instead of all that, what `train task --update` takes for a fixed rule.
    """

    method: str | None = None
    auxiliary: Annotated[list[str], BeforeValidator(_listed)] = []
    split: str = "dev"
    data: str | dict[str, str] | None = None
    stage: dict[str, Any] = {}
    control: str | None = None


class Quirks(Strict):
    """What the published code of S1 and S2 did and the papers did not mean (papers.md 1.5, 2.3); off by default.

    Attributes:
        double_language_prompt: LP+TP feeds the language prompt twice in training and once in generation.
        generate_20_tokens: Generation stops after 20 tokens.
        cut_targets: Targets are cut to a fixed length.
        last_window: A text that is too long is read in pieces, and the last one's answer counts.
        source_dev_loss: The best step is chosen by the loss on source dev data.
    """

    double_language_prompt: bool = False
    generate_20_tokens: bool = False
    cut_targets: bool = False
    last_window: bool = False
    source_dev_loss: bool = False


class Published(Strict):
    """A number from a paper, with where it stands.

    Attributes:
        task: Name under `tasks`.
        cell: What the source calls the method.
        language: A language; `mean` or `all` for a mean over all languages, `zero-shot` for one over all but those trained on,
            or a group.
        metric: Its metric; ours stands beside it if it is that of the report.
        value: In percent.
        backbone: Theirs, in words.
        source: Where the number stands.
        setting: Which of this study's settings correspond, by values of the grid, `{update: none}`; without it, those of the
            cell that `cell` names, and where there is no such cell, none.
        test: Name of the test set, where the task has several.
    """

    task: str
    cell: str
    language: str
    metric: str
    value: float
    backbone: str
    source: str
    setting: dict[str, Scalar] | None = Field(default=None, min_length=1)
    test: str = ""


class Study(Strict):
    """A whole study.

    Attributes:
        name: Short name; of the store's folder too.
        description: What it asks, one sentence.
        store: Folder of the finished steps; `runs/study/<name>` by default.
        groups: Named groups of languages, or of other groups.
        grid: The choices.
        add: Further points: each is the grid with some axes replaced.
        exclude: Points to leave out: each names values of factors that must all fit.
        targets: Languages to score, or groups; sources are scored as well.
        lacking: What a target without text or test data means: `skip` (the plan says so) or `error`.
        tasks: Data by task.
        language: Language modules.
        stage: Training of all task modules.
        cells: What differs in training, by cell.
        updates: Learned update rules.
        quirks: Published quirks.
        seeds_together: Train the seeds of one shape in one pass where that is possible: fewer passes over a large backbone,
            but one job where there were several.
        tokens_per_batch: Of evaluation; left out, what suits the device.
        retries: How often a step is tried again after a crash.
        published: Numbers from papers for the report.
        shares: By backbone, the share of each language in its pre-training text, or just the languages in it (or groups); for
            backbones whose card does not say. The report's seen, unseen and low-resource languages rest on it.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    description: str = ""
    store: str | None = None
    groups: dict[str, Texts] = {}
    grid: Grid
    add: list[dict[str, Any]] = []
    exclude: list[dict[str, Any]] = []
    targets: Texts
    lacking: Literal["skip", "error"] = "skip"
    tasks: dict[str, TaskSection] = Field(min_length=1)
    language: LanguageSection = LanguageSection()
    stage: TaskStageSpec = TaskStageSpec()
    cells: dict[str, TaskStageSpec] = {}
    updates: dict[str, UpdateSection] = {}
    quirks: Quirks = Quirks()
    seeds_together: bool = False
    tokens_per_batch: int | None = Field(default=None, ge=1)
    retries: int = Field(default=1, ge=0)
    published: list[Published] = []
    shares: dict[str, dict[str, Share] | Texts] = {}

    @property
    def folder(self) -> str:
        """The store's folder."""
        return self.store or f"runs/study/{self.name}"

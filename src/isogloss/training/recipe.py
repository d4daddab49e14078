"""Pre-training recipes: one YAML file says everything about a backbone's training."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.storage.plain_yaml import PlainLoader

# In front of a data set of the Hub.
HUB = "hub:"
# In front of the name of the model that first embeddings are taken from.
FROM_MODEL = "from:"
# What each kind of model can learn from, its usual one first. Another objective would show it the labels (an encoder sees the next
# token) or ask for what it never saw (a decoder's mask hides nothing of what follows).
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "encoder": ("masked", "translation", "contrast"),
    "decoder": ("causal", "prefix", "contrast"),
    "encoder-decoder": ("spans", "prefix", "contrast"),
}
_VARIABLE = re.compile(r"\$\{(\w+)(?::([^}]*))?\}")


class _Loader(PlainLoader):
    """YAML that takes no key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """Refuses what would be lost without a word: of two lists of texts, say, the first one."""
        seen = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in seen:
                raise yaml.MarkedYAMLError(problem=f"the key '{name}' stands there twice", problem_mark=key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TokenizerRecipe(_Strict):
    """The vocabulary: its size in tokens, and how languages are smoothed when it is learned."""

    vocabulary: int = Field(default=12000, ge=300)
    alpha: float = Field(default=0.3, ge=0, le=1)
    sentinels: int = Field(default=0, ge=0)
    max_characters: int = Field(default=12_000_000, ge=1000)


class ModelRecipe(_Strict):
    """The shape of the transformer; `layers` of a decoder side as `decoder_layers`."""

    hidden: int = Field(default=256, ge=8)
    layers: int = Field(default=4, ge=1)
    decoder_layers: int | None = Field(default=None, ge=1)
    heads: int = Field(default=8, ge=1)
    ffn: int = Field(default=512, ge=8)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    max_length: int = Field(default=512, ge=16)


class ObjectiveRecipe(_Strict):
    """One objective and how often a step uses it."""

    name: Literal["masked", "translation", "contrast", "causal", "spans", "prefix"]
    weight: float = Field(gt=0)
    text: Literal["raw", "parallel"] = "raw"
    rate: float = Field(default=0.15, gt=0, lt=1)
    temperature: float = Field(default=0.05, gt=0)
    batch: int | None = Field(default=None, ge=1)


class StageRecipe(_Strict):
    """A stretch of steps with one row length and batch size."""

    steps: int = Field(ge=1)
    length: int = Field(ge=8)
    batch: int = Field(ge=1)


class TextFolder(_Strict):
    """A folder of text, or a pattern for Hub data; how many times each row counts (a small good text among large ones)."""

    folder: str
    times: int = Field(default=1, ge=1)
    documents: int | None = Field(default=None, ge=1)

    @field_validator("documents")
    @classmethod
    def _of_the_hub(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not str(info.data.get("folder", HUB)).startswith(HUB):
            raise ValueError("documents is for hub: text only, a folder is read whole")
        return value


class Recipe(_Strict):
    """A whole pre-training.

    Attributes:
        name: Name of the backbone.
        kind: What to build.
        languages: Any names the language table knows; file stems of the text folders after resolution.
        text: Folders with `<language>.jsonl[.gz]` or `.txt[.gz]`; `${NAME:default}` reads the environment. A folder that
            counts several times is written `{folder: F, times: N}`. Hub data: a pattern such as
            `hub:wikimedia/wikipedia:20231101.{iso639_1}`, of which `documents: N` takes the first so many a language.
        parallel: Folders with aligned text, `<language>.jsonl[.gz]` with `key` and `text`; likewise.
        pivot: Only pairs with this language.
        start_from: A backbone to continue (its tokenizer and weights) instead of a fresh one.
        embeddings: How input embeddings start: `random`, `cooccurrence` (counted from the text), or `from:NAME`, the vectors of
            another model for the pieces that both know.
        embedding_rate: Their learning rate as a multiple of the others'; 0 keeps them as they start.
        pool: A prompt pool that is trained with the model, as a module spec (`pool:256x4`).
        pool_rate: Its learning rate as a multiple of the others'. Prompts, as in prompt tuning, want a higher one than weights.
        accumulation: Batches (per process) in one optimiser step; on one GPU N of them make the step that N GPUs make.
        alpha: Smoothing exponent of the mixture of languages.
        precision: Of the forward pass; `auto` is bf16 where the machine multiplies in it, else fp32.
        text_seed: Seed of what is learned from the text before the first step (vocabulary, counted embeddings); `seed` when not
            given. Runs that differ in `seed` alone then share both, which cost minutes.
        validation_documents: Documents at the end of each language's text kept for validation.
        advice: How to train on this backbone, by method (`adapter`, `prompt`, `lora`, `none`, `full`): fields of `Optimisation`.
        licence: For the model card.
        sources: Lines for the model card: where the text is from, under which licence.
    """

    name: str
    kind: Literal["encoder", "decoder", "encoder-decoder"]
    languages: list[str] = Field(min_length=1)
    text: list[TextFolder] = Field(min_length=1)
    parallel: list[TextFolder] = []
    pivot: str | None = None
    start_from: str | None = None
    tokenizer: TokenizerRecipe = TokenizerRecipe()
    model: ModelRecipe = ModelRecipe()
    embeddings: str = "random"
    pool: str | None = None
    pool_rate: float = Field(default=1.0, gt=0)
    embedding_rate: float = Field(default=1.0, ge=0)
    objectives: list[ObjectiveRecipe] = Field(min_length=1)
    stages: list[StageRecipe] = Field(min_length=1)
    accumulation: int = Field(default=1, ge=1)
    alpha: float = Field(default=0.3, ge=0, le=1)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup: float = Field(default=0.05, ge=0)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    validation_documents: int = Field(default=20, ge=1)
    seed: int = 42
    text_seed: int | None = None
    advice: dict[str, dict[str, float | str]] = {}
    licence: str = "see sources"
    sources: list[str] = []

    @field_validator("text", "parallel", mode="before")
    @classmethod
    def _folders(cls, value: Any) -> Any:
        if isinstance(value, list):
            return [{"folder": item} if isinstance(item, str) else item for item in value]
        return value

    @field_validator("embeddings")
    @classmethod
    def _first(cls, value: str) -> str:
        borrowed = value.startswith(FROM_MODEL) and value != FROM_MODEL
        if not borrowed and value not in ("random", "cooccurrence"):
            raise ValueError("expected random, cooccurrence or from:NAME")
        return value

    @field_validator("objectives")
    @classmethod
    def _of_the_kind(cls, value: list[ObjectiveRecipe], info: ValidationInfo) -> list[ObjectiveRecipe]:
        kind = info.data.get("kind", "")
        wrong = next((item.name for item in value if item.name not in OBJECTIVES.get(kind, (item.name,))), None)
        if wrong is not None:
            raise ValueError(f"{wrong} teaches no model of kind {kind}; use {', '.join(OBJECTIVES[kind])}")
        return value

    @field_validator("parallel")
    @classmethod
    def _no_hub(cls, value: list[TextFolder]) -> list[TextFolder]:
        if any(source.folder.startswith(HUB) for source in value):
            raise ValueError("parallel text is read from folders, not from the Hub")
        return value

    @property
    def seed_of_text(self) -> int:
        """Seed of the vocabulary's sample and of counted embeddings."""
        return self.seed if self.text_seed is None else self.text_seed

    @property
    def steps(self) -> int:
        """Steps of all stages."""
        return sum(stage.steps for stage in self.stages)

    @property
    def codes(self) -> list[str]:
        """Language codes, `iso639-3_Script`."""
        return [resolve(name).code for name in self.languages]

    def record(self) -> dict[str, Any]:
        """Plain data of it, by which a run knows its checkpoints: what is not used is left out, so that old ones stay known."""
        unused = {
            *(() if self.pool else ("pool",)),
            *(("pool_rate",) if self.pool_rate == 1 else ()),
            *(("accumulation",) if self.accumulation == 1 else ()),
            *(("text_seed",) if self.text_seed is None else ()),
        }
        return self.model_dump(exclude=unused)


def read_recipe(path: str | Path) -> Recipe:
    """Reads and checks a recipe.

    Raises:
        IsoglossError: Not YAML, an unknown key (the nearest valid one is named), a bad value, an unknown language.
    """
    source = Path(path)
    try:
        text = source.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as problem:
        raise IsoglossError(f"The recipe '{source}' does not exist; see the folder recipes/ for examples.") from problem
    except UnicodeDecodeError as problem:
        raise IsoglossError(f"The recipe '{source}' is not UTF-8 text.") from problem
    try:
        content = yaml.load(text, Loader=_Loader)  # a safe one
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f", line {mark.line + 1}," if mark else ""
        raise IsoglossError(
            f"The recipe '{source}'{line} is not YAML: {getattr(problem, 'problem', problem)}."
        ) from problem
    if not isinstance(content, dict):
        raise IsoglossError(f"The recipe '{source}' must be a mapping of keys to values.")
    try:
        recipe = Recipe.model_validate(_expand(content))
    except ValidationError as problem:
        raise IsoglossError(_explain(source, text, problem)) from problem
    try:
        codes = recipe.codes
    except IsoglossError as problem:
        raise IsoglossError(f"The recipe '{source}' has a wrong value for 'languages': {problem}") from problem
    again = next((name for name, code in zip(recipe.languages, codes, strict=True) if codes.count(code) > 1), None)
    if again is not None:
        raise IsoglossError(
            f"The recipe '{source}' names {resolve(again).code} twice under 'languages'; leave '{again}' out once."
        )
    if recipe.pool:
        # Only here, as it brings torch along.
        from isogloss.training.pool_setup import pool_config

        try:
            pool_config(recipe.pool)
        except IsoglossError as problem:
            raise IsoglossError(f"The recipe '{source}' has a wrong value for 'pool': {problem}") from problem
    return recipe


def _expand(value: Any) -> Any:
    if isinstance(value, str):
        return _VARIABLE.sub(lambda match: os.environ.get(match[1], match[2] or ""), value)
    if isinstance(value, list):
        return [_expand(item) for item in value]
    if isinstance(value, dict):
        return {key: _expand(item) for key, item in value.items()}
    return value


def _explain(source: Path, text: str, problem: ValidationError) -> str:
    found = problem.errors()
    # A misspelt key is missing, too, under its right name.
    first = next((item for item in found if item["type"] == "extra_forbidden"), found[0])
    path = [str(part) for part in first["loc"]]
    key = path[-1]
    line = _line(text, first["loc"])
    where = f"The recipe '{source}'" + (f", line {line}," if line else "")
    if first["type"] == "extra_forbidden":
        known = _known_keys(path[:-1])
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"did you mean '{near[0]}'" if near else f"the keys here are {', '.join(known)}"
        return f"{where} has the unknown key '{'.'.join(path)}'; {hint}."
    return f"{where} has a wrong value for '{'.'.join(path)}': {first['msg'].lower().removeprefix('value error, ')}."


def _line(text: str, path: Sequence[str | int]) -> int | None:
    """Line of the value at a path, or of what it is missing from; None at the top."""
    node, line = yaml.compose(text, Loader=_Loader), None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            key, node = next((pair for pair in node.value if pair[0].value == str(part)), (None, None))
            line = line if key is None else key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line


def _known_keys(path: list[str]) -> list[str]:
    if not path:
        return list(Recipe.model_fields)
    models: dict[str, type[BaseModel]] = {
        "tokenizer": TokenizerRecipe,
        "model": ModelRecipe,
        "objectives": ObjectiveRecipe,
        "stages": StageRecipe,
        "text": TextFolder,
        "parallel": TextFolder,
    }
    return list(models[path[0]].model_fields) if path[0] in models else []

"""The tasks of XTREME with the settings of its public scripts (papers.md 5.5).

Train on English, select on English dev, score every language, average languages, then tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Category = Literal["sentence", "structured", "qa", "retrieval"]


@dataclass(frozen=True)
class TrainData:
    """Where English training rows may be: a folder of the suite and a split.

    Attributes:
        folder: Below the suite's data folder.
        split: Its training rows.
        note: How this departs from XTREME; empty when it does not.
        dev: Folder whose English `dev` split selects the weights; empty is `folder` itself.
    """

    folder: str
    split: str = "train"
    note: str = ""
    dev: str = ""


@dataclass(frozen=True)
class SuiteTask:
    """One task of the suite.

    Attributes:
        name: In tables.
        task: The isogloss task.
        category: XTREME's group of tasks.
        folders: Names of its folder below the suite's data folder; the first one that is there.
        metrics: Keys of the scores whose mean is the task's score: QA has two, F1 and exact match.
        languages: XTREME's languages, ISO 639-1 (or 639-3) codes.
        train: Where training rows may be, best first; empty for what is not trained.
        epochs: Passes over the training data.
        learning_rate: Of plain fine-tuning, base models.
        learning_rate_large: The same for large models (24 blocks and more); XTREME raises it for XNLI alone.
        batch: Rows of an optimiser step.
        max_length: Most tokens of a row.
        warmup: Share of all steps, or steps from 1 on.
        weight_decay: Decoupled.
        splits: Splits to test on, the first one that is there.
        head_options: Of the task head.
        layers: Of retrieval: the block that is pooled, counted from 1, by the number of blocks.
    """

    name: str
    task: str
    category: Category
    folders: tuple[str, ...]
    metrics: tuple[str, ...]
    languages: tuple[str, ...]
    train: tuple[TrainData, ...] = ()
    epochs: float = 5
    learning_rate: float = 2e-5
    learning_rate_large: float = 2e-5
    batch: int = 32
    max_length: int = 128
    warmup: float = 0.0
    weight_decay: float = 0.0
    splits: tuple[str, ...] = ("test",)
    head_options: Mapping[str, int] = field(default_factory=dict, hash=False)
    layers: Mapping[int, int] = field(default_factory=dict, hash=False)


def _codes(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ALL = _codes(
    "af ar bg bn de el en es et eu fa fi fr he hi hu id it ja jv ka kk ko ml mr ms my nl pt ru sw ta te th tl tr ur vi yo zh"
)
_QA_TRAIN = (
    TrainData("squad"),
    TrainData("tydiqa-goldp", note="trained on TyDiQA-GoldP English, as SQuAD v1.1 is not there"),
    TrainData("tydiqa", note="trained on TyDiQA-GoldP English, as SQuAD v1.1 is not there"),
)
_PAWS_DEV = "trained on nine tenths of PAWS-X' English dev split, as its training split is not there"


def _qa(
    name: str,
    folders: tuple[str, ...],
    metrics: tuple[str, ...],
    languages: str,
    train: tuple[TrainData, ...],
    splits: tuple[str, ...],
) -> SuiteTask:
    return SuiteTask(
        name,
        "qa",
        "qa",
        folders,
        metrics,
        _codes(languages),
        train,
        epochs=3,
        learning_rate=3e-5,
        learning_rate_large=3e-5,
        max_length=384,
        warmup=500,
        weight_decay=1e-4,
        splits=splits,
        head_options={"stride": 128},
    )


SUITE: Mapping[str, SuiteTask] = {
    task.name: task
    for task in (
        SuiteTask(
            "xnli", "nli", "sentence", ("xnli",), ("accuracy",),
            _codes("ar bg de el en es fr hi ru sw th tr ur vi zh"),
            (
                TrainData("xnli"),
                # XTREME's own copy of MultiNLI comes with XNLI's development rows.
                TrainData("mnli", dev="xnli"),
                TrainData("xnli", "dev", "trained on nine tenths of XNLI's English dev split, as MultiNLI is not there"),
            ),
            learning_rate_large=3e-5,
        ),
        SuiteTask(
            "paws-x", "paraphrase", "sentence", ("paws-x", "pawsx"), ("accuracy",),
            _codes("de en es fr ja ko zh"),
            (
                TrainData("paws-x"),
                TrainData("pawsx"),
                TrainData("paws-x", "dev", _PAWS_DEV),
                TrainData("pawsx", "dev", _PAWS_DEV),
            ),
        ),
        SuiteTask(
            # Not accuracy: XTREME scores tags with seqeval, every run of one tag as a span.
            "udpos", "pos", "structured", ("udpos", "ud-pos"), ("xtreme_f1",),
            _codes("af ar bg de el en es et eu fa fi fr he hi hu id it ja kk ko mr nl pt ru ta te th tl tr ur vi yo zh"),
            (TrainData("udpos"), TrainData("ud-pos")), epochs=10,
        ),
        SuiteTask(
            "panx", "ner", "structured", ("panx", "wikiann", "ner", "uner"), ("f1",), _ALL,
            (
                TrainData("panx"),
                TrainData("wikiann"),
                TrainData("ner", note="another data set than WikiANN"),
                TrainData("uner", note="UNER in place of WikiANN"),
            ),
            epochs=10,
        ),
        _qa("xquad", ("xquad",), ("f1", "em"), "ar de el en es hi ru th tr vi zh", _QA_TRAIN, ("test",)),
        # MLQA has a scorer of its own, which strips the articles and punctuation of each language.
        _qa("mlqa", ("mlqa",), ("mlqa_f1", "mlqa_em"), "ar de en es hi vi zh", _QA_TRAIN, ("test", "dev")),
        # XTREME scores its development split, as TyDi QA's test split is hidden.
        _qa(
            "tydiqa", ("tydiqa-goldp", "tydiqa"), ("f1", "em"), "ar bn en fi id ko ru sw te",
            (TrainData("tydiqa-goldp"), TrainData("tydiqa")), ("test", "dev"),
        ),
        # The scripts' `--specific_layer 7` counts blocks from 0 (the embeddings are dropped), and BUCC's is 7 for large models too.
        SuiteTask(
            "bucc", "retrieval", "retrieval", ("bucc", "bucc2018"), ("f1",), _codes("de fr ru zh"), layers={12: 8, 24: 8},
        ),
        SuiteTask(
            # XTREME searches the other side for each English sentence (its labels are rows of that side): one direction, and not
            # the mean of both.
            "tatoeba", "retrieval", "retrieval", ("tatoeba",), ("from_english",),
            tuple(code for code in _ALL if code not in ("en", "ms", "my", "yo")),
            layers={12: 8, 24: 14},
        ),
    )
}  # fmt: skip


def middle_layer(item: SuiteTask, blocks: int) -> int:
    """The block that XTREME's scripts pool for a retrieval task; a little above the middle for depths that they do not have."""
    return item.layers.get(blocks, max(1, round(blocks * 7 / 12)))

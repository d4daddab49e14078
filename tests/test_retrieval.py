"""Sentence retrieval against a plain loop, one sentence at a time, and against what must be so."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from _heads_tools import TEXTS, load, save
from _stack_tools import make

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import TransferModule
from isogloss.stack import Stack
from isogloss.training.retrieval import evaluate_retrieval, sentence_vectors
from isogloss.training.search import best_matches

GERMAN = [f"{text} {TEXTS[(number + 3) % 8]}" for number, text in enumerate(TEXTS)]
CZECH = [" ".join(reversed(text.split())) for text in TEXTS]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load(save("encoder", tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for code, texts in (("eng_Latn", TEXTS), ("deu_Latn", GERMAN), ("ces_Latn", CZECH), ("nld_Latn", TEXTS)):
        _write(root, code, [{"id": f"s{number}", "text": text} for number, text in enumerate(texts)])
    return root


def _write(root: Path, code: str, rows: list[dict[str, Any]]) -> None:
    (root / code).mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (root / code / "test.jsonl").write_text(text, encoding="utf-8")


def _modules(backbone: Backbone, *codes: str, spec: str = "adapter:4") -> dict[str, TransferModule]:
    return {
        code: make(backbone, spec, seed=number, role="language", label=code, noise=0.8)
        for number, code in enumerate(codes)
    }


@torch.no_grad()
def _plainly(backbone: Backbone, text: str, module: TransferModule | None = None) -> torch.Tensor:
    """One sentence, no batch, no padding: the model itself, or a stack of one module."""
    ids = torch.tensor([backbone.tokenizer(text)["input_ids"]])
    if module is None:
        states = backbone.model.base_model(input_ids=ids).last_hidden_state
    else:
        states = Stack(backbone, [module]).hidden(ids, torch.ones_like(ids))
    return states[0].mean(0)


def _loop(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    hits = 0
    for number, query in enumerate(one):
        cosines = [float(torch.nn.functional.cosine_similarity(query, vector, dim=0)) for vector in other]
        hits += max(range(len(cosines)), key=cosines.__getitem__) == number
    return 100 * hits / len(one)


@pytest.mark.parametrize("budget", [1, 40, 4096])
def test_vectors_are_those_of_each_sentence_alone(backbone: Backbone, budget: int) -> None:
    found = sentence_vectors(Stack(backbone), GERMAN + TEXTS, tokens_per_batch=budget)
    for vector, text in zip(found, GERMAN + TEXTS, strict=True):
        torch.testing.assert_close(vector, _plainly(backbone, text), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("spec", ["adapter:4", "prompt:3"])
def test_scores_are_those_of_a_plain_loop_with_and_without_modules(backbone: Backbone, data: Path, spec: str) -> None:
    own = _modules(backbone, "deu_Latn", "ces_Latn", "eng_Latn", spec=spec)
    seen = set()
    for modules in ({}, own):
        result = evaluate_retrieval(backbone, modules, data, ["deu_Latn", "ces_Latn"])
        english = [_plainly(backbone, text, modules.get("eng_Latn")) for text in TEXTS]
        for code, texts in (("deu_Latn", GERMAN), ("ces_Latn", CZECH)):
            here = [_plainly(backbone, text, modules.get(code)) for text in texts]
            score = result["scores"][code]
            assert score["to_english"] == _loop(here, english)
            assert score["from_english"] == _loop(english, here)
            assert score["accuracy"] == (score["to_english"] + score["from_english"]) / 2
            assert score["n"] == 8
            seen |= {score["to_english"], score["from_english"]}
        both = [score["accuracy"] for score in result["scores"].values()]
        assert result["mean"]["accuracy"] == pytest.approx(sum(both) / 2)
        assert result["mean_over"] == ["deu_Latn", "ces_Latn"]
    # Were every score 0 or every one 100, the loop would prove little.
    assert len(seen) > 2


def test_identical_sentences_are_all_found(backbone: Backbone, data: Path, tmp_path: Path) -> None:
    assert evaluate_retrieval(backbone, {}, data, ["nld_Latn"])["mean"]["accuracy"] == 100
    # Tatoeba's layout, with a sentence that stands there three times and one that no vocabulary knows.
    twice = [*TEXTS, TEXTS[0], TEXTS[0], "中中"]
    _write(tmp_path, "nld", [{"idx": number, "nld": text, "eng": text} for number, text in enumerate(twice)])
    result = evaluate_retrieval(backbone, {}, tmp_path, ["nld_Latn"])
    assert result["scores"]["nld_Latn"] == {"accuracy": 100, "to_english": 100, "from_english": 100, "n": 11}


def test_nearest_is_by_angle_and_not_by_length() -> None:
    queries = torch.tensor([[1.0, 0.1], [0.0, 5.0], [-1.0, 0.0]])
    candidates = torch.tensor([[0.01, 0.0], [50.0, 60.0], [0.0, 0.2], [-3.0, 0.1]])
    assert best_matches(queries, candidates).tolist() == [0, 2, 3]


def test_modules_of_two_shapes_and_languages_without_one(backbone: Backbone, data: Path) -> None:
    modules = _modules(backbone, "deu_Latn", "eng_Latn") | _modules(backbone, "ces_Latn", spec="prompt:2")
    codes = ["ces_Latn", "nld_Latn", "deu_Latn"]
    with pytest.raises(IsoglossError, match=r"No language module for nld_Latn .*--missing none"):
        evaluate_retrieval(backbone, modules, data, codes)
    result = evaluate_retrieval(backbone, modules, data, codes, missing="none", limit=5)
    english = [_plainly(backbone, text, modules["eng_Latn"]) for text in TEXTS[:5]]
    for code, texts in (("ces_Latn", CZECH), ("nld_Latn", TEXTS), ("deu_Latn", GERMAN)):
        here = [_plainly(backbone, text, modules.get(code)) for text in texts[:5]]
        assert result["scores"][code]["to_english"] == _loop(here, english)
        assert result["scores"][code]["n"] == 5


@pytest.mark.parametrize("kind", ["decoder", "encoder-decoder"])
def test_other_kinds_of_backbone_and_long_texts(data: Path, tmp_path: Path, kind: str) -> None:
    other = load(save(kind, tmp_path / kind))
    assert evaluate_retrieval(other, {}, data, ["nld_Latn"])["mean"]["accuracy"] == 100
    stack = Stack(other, [make(other, "prompt:4")])
    long = " ".join(TEXTS * 6)
    vectors = sentence_vectors(stack, [long, TEXTS[0]])
    assert vectors.shape == (2, other.hidden_size)
    assert vectors.isfinite().all()
    alone = sentence_vectors(stack, [TEXTS[0]])
    torch.testing.assert_close(vectors[1], alone[0], atol=2e-5, rtol=1e-4)


def test_what_cannot_be_compared_is_refused(backbone: Backbone, data: Path) -> None:
    with pytest.raises(IsoglossError, match="English cannot be a target"):
        evaluate_retrieval(backbone, {}, data, ["eng_Latn"])
    with pytest.raises(IsoglossError, match="2 indices for 8 texts"):
        sentence_vectors(Stack(backbone), TEXTS, {"language": [0, 1]})
    assert sentence_vectors(Stack(backbone), []).shape == (0, 32)

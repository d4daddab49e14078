"""Neighbours, margins and mining against plain loops; FAISS against blocks."""

import pytest
import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.training import search
from isogloss.training.search import (
    MinedPairs,
    best_matches,
    best_threshold,
    margin_neighbours,
    mine,
    mining_scores,
    neighbours,
)


def vectors(count: int, seed: int) -> Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b) / (a.norm() * b.norm()))


def test_blocks_are_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "_BLOCK", 3)
    first, second = vectors(10, 0), vectors(7, 1)
    cosines, rows = neighbours(first, second, 3, search="blocks")
    for place, query in enumerate(first):
        wanted = sorted((-cosine(query, other), number) for number, other in enumerate(second))[:3]
        assert rows[place].tolist() == [number for _, number in wanted]
        assert cosines[place].tolist() == pytest.approx([-value for value, _ in wanted], abs=1e-5)


def test_margins_by_hand() -> None:
    first, second, k = vectors(6, 0), vectors(8, 1), 4
    forward, rows, backward, back_rows = margin_neighbours(first, second, k=k, search="blocks")
    near_first = [sum(sorted((cosine(x, y) for y in second), reverse=True)[:k]) / k for x in first]
    near_second = [sum(sorted((cosine(x, y) for x in first), reverse=True)[:k]) / k for y in second]
    for place in range(6):
        for column in range(k):
            other = int(rows[place, column])
            wanted = cosine(first[place], second[other]) / ((near_first[place] + near_second[other]) / 2)
            assert float(forward[place, column]) == pytest.approx(wanted, rel=1e-4)
    assert float(backward[0, 0]) == pytest.approx(
        cosine(second[0], first[int(back_rows[0, 0])]) / ((near_second[0] + near_first[int(back_rows[0, 0])]) / 2),
        rel=1e-4,
    )


def test_margin_punishes_a_hub() -> None:
    """A candidate that is near to everything loses against one that is near to this query only."""
    hub = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])
    queries = torch.eye(5)[:4] * 2 + 1.2 * hub
    candidates = torch.cat([hub.unsqueeze(0), torch.eye(5)[:4] * 2 + 0.05 * hub])
    assert best_matches(queries, candidates).tolist() == [0] * 4
    assert best_matches(queries, candidates, scoring="margin").tolist() == [1, 2, 3, 4]


def test_mining_finds_the_pairs_and_uses_no_row_twice() -> None:
    english = vectors(40, 0)
    other = torch.cat([english[:25] + 0.1 * vectors(25, 2), vectors(15, 3)])[
        torch.randperm(40, generator=torch.Generator().manual_seed(0))
    ]
    pairs = mine(other, english, search="blocks")
    assert len(set(pairs.first.tolist())) == len(pairs.first) and len(set(pairs.second.tolist())) == len(pairs.second)
    assert pairs.scores.tolist() == sorted(pairs.scores.tolist(), reverse=True)
    gold = {(row, place) for row in range(40) for place in range(25) if cosine(other[row], english[place]) > 0.9}
    assert len(gold) == 25
    threshold = best_threshold(pairs, gold)
    assert mining_scores(pairs, gold, threshold)["f1"] == 100


def test_the_threshold_is_the_best_of_all() -> None:
    draw = torch.Generator().manual_seed(5)
    scores = (torch.rand(30, generator=draw) * 10).round().sort(descending=True).values / 10
    pairs = MinedPairs(torch.arange(30), torch.arange(30), scores)
    gold = {(number, number) for number in range(30) if float(torch.rand(1, generator=draw)) < 0.8 - number / 40} | {
        (99, 1)
    }
    found = mining_scores(pairs, gold, best_threshold(pairs, gold))["f1"]
    assert found == pytest.approx(max(mining_scores(pairs, gold, float(value))["f1"] for value in scores))
    with pytest.raises(IsoglossError, match="no gold pair"):
        best_threshold(pairs, set())


def test_faiss_is_the_same() -> None:
    pytest.importorskip("faiss", reason="FAISS is an extra")
    first, second = vectors(50, 0), vectors(60, 1)
    one, other = (neighbours(first, second, 4, search=kind) for kind in ("blocks", "faiss"))
    assert torch.equal(one[1], other[1])
    torch.testing.assert_close(one[0], other[0], atol=1e-5, rtol=1e-5)


def test_bad_wishes() -> None:
    with pytest.raises(IsoglossError, match="1 to 3"):
        neighbours(vectors(2, 0), vectors(3, 1), 4)
    with pytest.raises(IsoglossError, match="auto, blocks or faiss"):
        neighbours(vectors(2, 0), vectors(3, 1), 1, search="tree")  # type: ignore[arg-type]
    with pytest.raises(IsoglossError, match="cosine or margin"):
        best_matches(vectors(2, 0), vectors(3, 1), scoring="dot")

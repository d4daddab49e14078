"""Nearest sentence vectors, and translation pairs mined by margin; exact, by FAISS where asked for, else in blocks.

Margin scoring: Artetxe and Schwenk 2019, https://arxiv.org/abs/1811.01136, section 3.2 (the ratio variant, k = 4, as XTREME
uses for BUCC).
"""

from collections.abc import Set
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from isogloss.errors import IsoglossError

Search = Literal["auto", "blocks", "faiss"]
_BLOCK = 1024


@dataclass(frozen=True)
class MinedPairs:
    """Pairs in falling order of score.

    Attributes:
        first: [P] rows of the first side.
        second: [P] rows of the second side.
        scores: [P] margins.
    """

    first: Tensor
    second: Tensor
    scores: Tensor


def neighbours(queries: Tensor, candidates: Tensor, k: int, *, search: Search = "auto") -> tuple[Tensor, Tensor]:
    """The k candidates with the greatest cosine to each query.

    Args:
        queries: [N, d] of any scale.
        candidates: [M, d].
        k: At most M.
        search: `blocks` (plain products of 1,024 queries with all candidates), `faiss`, or `auto` (FAISS if installed and there
            is enough to search).

    Returns:
        Cosines [N, k] and rows [N, k], best first.

    Raises:
        IsoglossError: FAISS is asked for and not installed, or k is out of range.
    """
    if not 1 <= k <= len(candidates):
        raise IsoglossError(
            f"The search wants {k} neighbours among {len(candidates)} sentences; ask for 1 to {len(candidates)}."
        )
    here, there = F.normalize(queries.float(), dim=1), F.normalize(candidates.float(), dim=1)
    faiss = _faiss(search, len(queries) * len(candidates))
    if faiss is not None:
        index = faiss.IndexFlatIP(there.shape[1])
        index.add(there.cpu().numpy())
        cosines, rows = index.search(here.cpu().numpy(), k)
        return torch.from_numpy(cosines), torch.from_numpy(rows)
    values, rows = [], []
    for start in range(0, len(here), _BLOCK):
        part = here[start : start + _BLOCK]
        products = part @ there.T
        # The first one of equals, which `topk` does not promise.
        best = products.max(1, keepdim=True) if k == 1 else products.topk(k, dim=1)
        values.append(best.values)
        rows.append(best.indices)
    return torch.cat(values), torch.cat(rows)


def _faiss(search: Search, products: int) -> Any:
    if search not in ("auto", "blocks", "faiss"):
        raise IsoglossError(f"The search '{search}' is unknown; use auto, blocks or faiss.")
    if search == "blocks" or (search == "auto" and products < 10**8):
        return None
    try:
        import faiss
    except ImportError as problem:
        if search == "auto":
            return None
        raise IsoglossError("FAISS is not installed; install isogloss[faiss], or search in blocks.") from problem
    return faiss


def margin_neighbours(
    first: Tensor, second: Tensor, *, k: int = 4, search: Search = "auto"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Margin ratios of each row's k nearest rows on the other side, in both directions.

    The ratio of a pair is its cosine over the mean of the two sides' mean cosines to their k nearest neighbours.

    Returns:
        Scores [N, k] and rows [N, k] of the second side for each of the first, then [M, k] and [M, k] the other way round.
    """
    k = min(k, len(first), len(second))
    forward, to_second = neighbours(first, second, k, search=search)
    backward, to_first = neighbours(second, first, k, search=search)
    mean_first, mean_second = forward.mean(1), backward.mean(1)
    ratio_forward = forward / ((mean_first.unsqueeze(1) + mean_second[to_second]) / 2)
    ratio_backward = backward / ((mean_second.unsqueeze(1) + mean_first[to_first]) / 2)
    return ratio_forward, to_second, ratio_backward, to_first


def best_matches(
    queries: Tensor, candidates: Tensor, *, scoring: str = "cosine", k: int = 4, search: Search = "auto"
) -> Tensor:
    """The best candidate of each query, [N], by cosine or by margin ratio.

    Raises:
        IsoglossError: Unknown scoring.
    """
    if scoring == "cosine":
        return neighbours(queries, candidates, 1, search=search)[1][:, 0]
    if scoring != "margin":
        raise IsoglossError(f"The scoring '{scoring}' is unknown; use cosine or margin.")
    scores, rows, _, _ = margin_neighbours(queries, candidates, k=k, search=search)
    return rows.gather(1, scores.argmax(1, keepdim=True))[:, 0]


def mine(first: Tensor, second: Tensor, *, k: int = 4, search: Search = "auto") -> MinedPairs:
    """Translation pairs: the best candidate of each row in both directions, greedily, no row twice.

    Args:
        first: [N, d] sentence vectors of one language.
        second: [M, d] of the other.
        k: Neighbourhood of the margin.
        search: See `neighbours`.
    """
    forward, to_second, backward, to_first = margin_neighbours(first, second, k=k, search=search)
    best_forward, best_backward = forward.max(1), backward.max(1)
    rows_first = torch.cat([torch.arange(len(first)), to_first.gather(1, best_backward.indices.unsqueeze(1))[:, 0]])
    rows_second = torch.cat([to_second.gather(1, best_forward.indices.unsqueeze(1))[:, 0], torch.arange(len(second))])
    scores = torch.cat([best_forward.values, best_backward.values])
    order = scores.argsort(descending=True, stable=True)
    seen_first, seen_second, kept = set(), set(), []
    for place, one, other in zip(order.tolist(), rows_first[order].tolist(), rows_second[order].tolist(), strict=True):
        if one not in seen_first and other not in seen_second:
            seen_first.add(one)
            seen_second.add(other)
            kept.append(place)
    return MinedPairs(rows_first[kept], rows_second[kept], scores[kept])


def best_threshold(pairs: MinedPairs, gold: Set[tuple[int, int]]) -> float:
    """The score above which pairs are extracted so that their F1 is best; half-way to the next lower score.

    Raises:
        IsoglossError: No gold pair.
    """
    if not gold:
        raise IsoglossError("There is no gold pair to choose the threshold by.")
    scores = pairs.scores.tolist()
    best, threshold, right = 0.0, float("inf"), 0
    for count, pair in enumerate(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True), start=1):
        right += pair in gold
        # Pairs of one score can only be taken together.
        if count < len(scores) and scores[count] == scores[count - 1]:
            continue
        f1 = 2 * right / (count + len(gold))
        if f1 > best:
            following = scores[count] if count < len(scores) else scores[count - 1]
            best, threshold = f1, (scores[count - 1] + following) / 2
    return threshold


def mining_scores(pairs: MinedPairs, gold: Set[tuple[int, int]], threshold: float) -> dict[str, float]:
    """`f1`, `precision`, `recall` in percent of the pairs at or above a threshold, and `n`, the gold pairs."""
    kept = pairs.scores >= threshold
    found = set(zip(pairs.first[kept].tolist(), pairs.second[kept].tolist(), strict=True))
    right = len(found & gold)
    return {
        "f1": 200 * right / max(1, len(found) + len(gold)),
        "precision": 100 * right / max(1, len(found)),
        "recall": 100 * right / max(1, len(gold)),
        "n": len(gold),
    }

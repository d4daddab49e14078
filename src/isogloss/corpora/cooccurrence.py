"""Input embeddings from counts: shifted PPMI of windows and of translated segments, truncated SVD.

PPMI and its factorisation as in Levy, Goldberg and Dagan (TACL 2015, sections 2 and 3); whole aligned
segments as contexts across languages as in Levy, Søgaard and Goldberg (EACL 2017).
"""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor

from isogloss.corpora.mixture import stream_generator
from isogloss.corpora.parallel import ParallelCorpus
from isogloss.corpora.token_store import TokenStore
from isogloss.errors import IsoglossError

_CHUNK_TOKENS = 2_000_000
_CHUNK_PAIRS = 20_000


def cooccurrence_embeddings(
    stores: Sequence[TokenStore],
    parallel: ParallelCorpus | None,
    vocabulary_size: int,
    dim: int,
    *,
    window: int = 5,
    window_weight: float = 0.03,
    shift: float = 1.0,
    power: float = 0.0,
    std: float = 0.02,
    max_tokens: int | None = None,
    max_pairs: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Returns embeddings [vocabulary_size, dim] in which words that translate each other lie close.

    M = PPMI(segments) + window_weight * PPMI(windows), M ~ U S U^T, rows U S^power, scaled so that all
    entries together have standard deviation `std`. Tokens that were not seen get normal noise of that size.

    Args:
        stores: Token stores of single languages.
        parallel: Aligned segments; None for windows only.
        vocabulary_size: Rows of the result, at least the tokenizer's size.
        dim: Columns.
        window: Tokens to either side that count as context.
        window_weight: Weight of the windows against the segments.
        shift: k of the shifted PPMI, max(PMI - log k, 0); 1 is plain PPMI.
        power: Exponent of the eigenvalues; 0 lets all directions count alike, which aligned best.
        std: Standard deviation of the entries.
        max_tokens: At most this many tokens of each store.
        max_pairs: At most this many segment pairs of each language pair.
        seed: Of the SVD's start and of the noise.

    Raises:
        IsoglossError: Impossible sizes, or text of another tokenizer.
    """
    if dim < 1 or dim >= vocabulary_size:
        raise IsoglossError(
            f"The embedding width {dim} must be at least 1 and below the vocabulary size {vocabulary_size}."
        )
    if window < 1 or shift <= 0:
        raise IsoglossError(f"Co-occurrence needs a window >= 1 and a shift > 0, not {window} and {shift}.")
    matrix = shifted_ppmi(window_counts(stores, vocabulary_size, window, max_tokens), shift)
    if parallel is not None:
        segments = shifted_ppmi(segment_counts(parallel, vocabulary_size, max_pairs), shift)
        matrix = segments + window_weight * matrix
    generator = stream_generator("cooccurrence", seed)
    vectors, values = leading_eigenpairs(matrix, dim, generator)
    rows = vectors * torch.where(values > 0, values**power, 0.0)
    seen = torch.from_numpy(np.diff(matrix.tocsr().indptr) > 0)
    if not bool(seen.any()):
        raise IsoglossError("The text is too short for co-occurrence counts; give more text.")
    rows = rows * (std / rows[seen].std().clamp(min=1e-12))
    noise = torch.randn(vocabulary_size, dim, generator=generator) * std
    return torch.where(seen[:, None], rows, noise).to(torch.float32)


def window_counts(
    stores: Iterable[TokenStore], vocabulary_size: int, window: int, max_tokens: int | None = None
) -> "sparse.csr_matrix":
    """Returns the symmetric counts [V, V] of tokens at most `window` apart in one document."""
    total = sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.float32)
    for store in stores:
        tokens = store.tokens[:max_tokens]
        for begin in range(0, len(tokens), _CHUNK_TOKENS):
            # The overlap lets a window reach into the next chunk; pairs that begin there are counted there.
            part = np.asarray(tokens[begin : begin + _CHUNK_TOKENS + window], dtype=np.int64)
            _check_ids(part, vocabulary_size)
            total = total + _window_part(part, store.separator, vocabulary_size, window)
    return (total + total.T).tocsr()


def _window_part(part: npt.NDArray[np.int64], separator: int | None, size: int, window: int) -> "sparse.csr_matrix":
    ends = part == (-1 if separator is None else separator)
    document = ends.cumsum()
    codes = []
    firsts = min(_CHUNK_TOKENS, len(part))
    for distance in range(1, window + 1):
        last = min(firsts, len(part) - distance)
        if last <= 0:
            break
        a, b = part[:last], part[distance : distance + last]
        # A separator closes its own document: equal numbers on both sides mean that none lies between, and
        # a first token that is itself a separator must not reach into the next document.
        inside = (document[:last] == document[distance : distance + last]) & ~ends[:last]
        codes.append(a[inside] * size + b[inside])
    pairs, counts = np.unique(np.concatenate(codes) if codes else np.empty(0, np.int64), return_counts=True)
    shape = (size, size)
    return sparse.csr_matrix((counts.astype(np.float32), (pairs // size, pairs % size)), shape=shape)


def segment_counts(parallel: ParallelCorpus, vocabulary_size: int, max_pairs: int | None = None) -> "sparse.csr_matrix":
    """Returns the symmetric counts [V, V] of tokens on the two sides of a pair of aligned segments.

    A token counts once per segment, and segments of m and n distinct tokens count each of their m n token
    pairs 1 / sqrt(m n), so that long paragraphs do not outweigh short ones. Pairs within one side are left
    out: they drew each language together and worsened sentence retrieval on the shared data. The matrix is
    nearly bipartite, so its spectrum comes in pairs +s, -s; `leading_eigenpairs` keeps the positive half, in
    which a word and its translation agree.
    """
    total = sparse.csr_matrix((vocabulary_size, vocabulary_size), dtype=np.float32)
    for batch in parallel.iterate(per_pair=max_pairs, batch_size=_CHUNK_PAIRS):
        total = total + _incidence(batch.first, vocabulary_size).T @ _incidence(batch.second, vocabulary_size)
    return (total + total.T).tocsr()


def _incidence(segments: Sequence[Tensor], size: int) -> "sparse.csr_matrix":
    distinct = [np.unique(segment.numpy()) for segment in segments]
    lengths = np.array([len(ids) for ids in distinct])
    columns = np.concatenate(distinct)
    _check_ids(columns, size)
    values = np.repeat(1.0 / np.sqrt(np.maximum(lengths, 1)), lengths).astype(np.float32)
    pointers = np.concatenate([[0], lengths.cumsum()])
    return sparse.csr_matrix((values, columns, pointers), shape=(len(segments), size))


def shifted_ppmi(counts: Any, shift: float = 1.0) -> "sparse.csr_matrix":
    """Returns max(log(n_ij N / (n_i n_j)) - log(shift), 0) of a sparse count matrix, zeros left out."""
    table = counts.tocoo()
    rows = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    columns = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel()
    total = rows.sum()
    if total == 0:
        return counts.tocsr()
    value = np.log(table.data * total / (rows[table.row] * columns[table.col])) - np.log(shift)
    keep = value > 0
    kept = (value[keep].astype(np.float32), (table.row[keep], table.col[keep]))
    return sparse.csr_matrix(kept, shape=counts.shape)


def leading_eigenpairs(
    matrix: Any, rank: int, generator: torch.Generator, *, iterations: int = 4
) -> tuple[Tensor, Tensor]:
    """Returns eigenvectors [n, rank] of the largest positive eigenvalues [rank] of a symmetric sparse matrix.

    Randomised subspace iteration (Halko, Martinsson and Tropp, arXiv 0909.4061, algorithm 4.4). This is
    the truncated SVD but for directions of negative eigenvalue, which say where tokens differ while
    their rows agree and would pull translations apart; the subspace is twice as wide as `rank` to
    have enough positive ones. Where they still run out, values are 0.
    """
    held = matrix.tocsr()
    size = held.shape[0]
    pointers, columns = (torch.from_numpy(part.astype(np.int64)) for part in (held.indptr, held.indices))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # "CSR support is in beta"
        table = torch.sparse_csr_tensor(
            pointers, columns, torch.from_numpy(held.data.astype(np.float32)), size=(size, size)
        )
    width = min(2 * rank + 32, size)
    basis = torch.linalg.qr(table @ torch.randn(size, width, generator=generator)).Q
    for _ in range(iterations):
        basis = torch.linalg.qr(table @ basis).Q
    values, vectors = torch.linalg.eigh(basis.T @ (table @ basis))
    order = values.argsort(descending=True)[:rank]
    return basis @ vectors[:, order], values[order].clamp(min=0)


def _check_ids(ids: npt.NDArray[Any], size: int) -> None:
    if len(ids) and int(ids.max()) >= size:
        raise IsoglossError(
            f"The tokens go up to id {int(ids.max())}, beyond the vocabulary of {size}; use the same tokenizer."
        )

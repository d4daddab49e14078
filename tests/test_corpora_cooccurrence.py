import json

import numpy as np
import pytest
import torch
from _corpora_tools import word_tokenizer
from scipy import sparse

from isogloss.corpora import ParallelCorpus, cooccurrence_embeddings, tokenise
from isogloss.corpora.cooccurrence import leading_eigenpairs, segment_counts, shifted_ppmi, window_counts
from isogloss.errors import IsoglossError

TOKENIZER = word_tokenizer()
SIZE = len(TOKENIZER)


def store_of(tmp_path, name, lines):
    (tmp_path / name).write_text("\n".join(lines))
    return tokenise(tmp_path / name, TOKENIZER, cache_dir=tmp_path / "cache")


@pytest.mark.parametrize("chunk", [7, 10_000])
def test_window_counts_against_a_loop(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr("isogloss.corpora.cooccurrence._CHUNK_TOKENS", chunk)
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, 9, generator.integers(1, 12)).tolist() for _ in range(15)]
    store = store_of(tmp_path, "a.txt", [" ".join(f"w{i}" for i in text) for text in texts])
    expected = np.zeros((SIZE, SIZE))
    for text in texts:
        for i, a in enumerate(text):
            for j, b in enumerate(text):
                if i != j and abs(i - j) <= 3:
                    expected[5 + a, 5 + b] += 1
    assert (window_counts([store], SIZE, 3).toarray() == expected).all()


def test_ppmi_against_the_formula():
    counts = np.random.default_rng(0).integers(0, 6, (8, 8)).astype(float)
    counts += counts.T
    joint = counts / counts.sum()
    with np.errstate(divide="ignore"):
        expected = np.maximum(np.log(joint / np.outer(joint.sum(1), joint.sum(0))) - np.log(1.2), 0)
    np.testing.assert_allclose(shifted_ppmi(sparse.csr_matrix(counts), 1.2).toarray(), expected, atol=1e-6)


def test_eigenpairs_against_a_dense_solver():
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.standard_normal((60, 60)))[0]
    spectrum = np.concatenate([[90.0, -80.0, 70.0, -60.0, 50.0, 40.0], 0.01 * generator.standard_normal(54)])
    matrix = (basis * spectrum) @ basis.T
    vectors, values = leading_eigenpairs(sparse.csr_matrix(matrix), 4, torch.Generator().manual_seed(0))
    np.testing.assert_allclose(values.numpy(), [90, 70, 50, 40], rtol=1e-4)
    overlap = np.abs(vectors.numpy().T @ basis[:, [0, 2, 4, 5]])
    np.testing.assert_allclose(overlap, np.eye(4), atol=1e-3)


@pytest.fixture
def bilingual(tmp_path):
    """Language a says w0..w59, b says w100..w159 for the same, word order free, in topics of 6 words."""
    generator = np.random.default_rng(1)
    mono = {"a": [], "b": []}
    for name, shift in (("a", 0), ("b", 100)):
        for _ in range(1500):
            topic = generator.integers(0, 10)
            mono[name].append(" ".join(f"w{shift + topic * 6 + i}" for i in generator.integers(0, 6, 8)))
    source = tmp_path / "source"
    source.mkdir()
    sides = {"a": [], "b": []}
    for key in range(600):
        words = generator.integers(0, 60, 5)
        for name, shift in (("a", 0), ("b", 100)):
            text = " ".join(f"w{shift + i}" for i in generator.permutation(words))
            sides[name].append(json.dumps({"key": str(key), "text": text}))
    for name, lines in sides.items():
        (source / f"{name}.jsonl").write_text("\n".join(lines))
    stores = [store_of(tmp_path, f"{name}.txt", lines) for name, lines in mono.items()]
    return stores, ParallelCorpus.open(source, TOKENIZER, cache_dir=tmp_path / "cache")


def neighbours_found(table):
    rows = torch.nn.functional.normalize(table, dim=1)
    near = (rows[5:65] @ rows[105:165].T).argmax(1)
    return float((near == torch.arange(60)).float().mean())


def test_translations_become_nearest_neighbours(bilingual):
    stores, parallel = bilingual
    table = cooccurrence_embeddings(stores, parallel, SIZE, 48, window=3, std=0.05)
    assert table.shape == (SIZE, 48)
    assert table.dtype == torch.float32
    assert neighbours_found(table) > 0.95
    seen = torch.zeros(SIZE, dtype=torch.bool)
    seen[5:65] = seen[105:165] = True
    assert table[seen].std().item() == pytest.approx(0.05, rel=1e-3)
    assert table[~seen].std().item() == pytest.approx(0.05, rel=0.1)
    assert torch.equal(table, cooccurrence_embeddings(stores, parallel, SIZE, 48, window=3, std=0.05))
    # Without parallel text the two languages have nothing in common.
    assert neighbours_found(cooccurrence_embeddings(stores, None, SIZE, 48, window=3)) < 0.2


def test_segment_counts_against_a_loop(bilingual):
    _, parallel = bilingual
    expected = np.zeros((SIZE, SIZE))
    for batch in parallel.iterate():
        for a, b in zip(batch.first, batch.second, strict=True):
            left, right = set(a.tolist()), set(b.tolist())
            for i in left:
                for j in right:
                    expected[i, j] += 1 / np.sqrt(len(left) * len(right))
                    expected[j, i] += 1 / np.sqrt(len(left) * len(right))
    np.testing.assert_allclose(segment_counts(parallel, SIZE).toarray(), expected, rtol=1e-4)


def test_impossible_requests(bilingual):
    stores, parallel = bilingual
    for values, message in [
        ({"dim": SIZE}, "below the vocabulary size"),
        ({"dim": 8, "window": 0}, "window >= 1"),
        ({"dim": 8, "vocabulary_size": 50}, "beyond the vocabulary of 50"),
    ]:
        with pytest.raises(IsoglossError, match=message):
            cooccurrence_embeddings(stores, parallel, **{"vocabulary_size": SIZE, **values})

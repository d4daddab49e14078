"""Aligned text: segments with keys, any two languages of a source joined by key."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from isogloss.corpora.mixture import Draw
from isogloss.corpora.reading import read_rows, text_field
from isogloss.corpora.token_store import TokenStore, build_store
from isogloss.errors import IsoglossError
from isogloss.storage import file_digest

_SUFFIXES = (".jsonl.gz", ".jsonl")
PairName = tuple[str, str]


@dataclass(frozen=True)
class PairBatch:
    """Aligned segments, tokenised without special tokens.

    Attributes:
        first: B int64 vectors, one side.
        second: B int64 vectors, the translations.
        languages: B pairs of language names.
        groups: [B] int64; rows with the same number come from the same segment of the same source, so
            they are translations of each other and no negatives in a contrast.
    """

    first: list[Tensor]
    second: list[Tensor]
    languages: list[PairName]
    groups: Tensor

    def __len__(self) -> int:
        """Pairs."""
        return len(self.first)


def read_parallel(
    sources: str | Path | Sequence[str | Path],
    *,
    languages: Sequence[str] | None = None,
    pivot: str | None = None,
) -> Iterator[tuple[str, str, str, str]]:
    """Yields `(language a, language b, text a, text b)`, source by source, pair by pair, in the order of a.

    Args:
        sources: Folders `SOURCE/<language>.jsonl[.gz]` with rows `{key, text}`, one or several.
        languages: Names (file stems) to use; all when None. A source that lacks one is read without it.
        pivot: Only pairs with this language, which then comes first.

    Raises:
        IsoglossError: A folder or language is missing, or a row is malformed.
    """
    for folder in _folders(sources, languages):
        texts = {name: dict(_keyed(path)) for name, path in _language_files(folder, languages).items()}
        for a, b in _pairs(list(texts), pivot):
            for key, text in texts[a].items():
                if key in texts[b]:
                    yield a, b, text, texts[b][key]


class ParallelCorpus:
    """Pre-tokenised aligned segments, a token store per source and language, and an index of pairs."""

    def __init__(
        self,
        stores: Sequence[dict[str, tuple[TokenStore, list[str]]]],
        pivot: str | None = None,
        times: Sequence[int] | None = None,
    ) -> None:
        """Joins stores by key.

        Args:
            stores: Per source: language -> (store, keys in the store's order).
            pivot: Only pairs with this language.
            times: Per source, how often each of its pairs counts; once when None.

        Raises:
            IsoglossError: No two languages share a key.
        """
        # The i-th table lists the pairs of one language pair: source number, row in a, row in b, group.
        parts: dict[PairName, list[npt.NDArray[np.int64]]] = {}
        self._stores = [{name: store for name, (store, _) in source.items()} for source in stores]
        group = 0
        for number, source in enumerate(stores):
            names = {key: i for i, key in enumerate(dict.fromkeys(k for _, keys in source.values() for k in keys))}
            ids = {name: np.array([names[key] for key in keys], np.int64) for name, (_, keys) in source.items()}
            for a, b in _pairs(list(source), pivot):
                common, in_a, in_b = np.intersect1d(ids[a], ids[b], assume_unique=True, return_indices=True)
                if len(common):
                    table = np.stack([np.full_like(common, number), in_a, in_b, common + group], axis=1)
                    # Copies keep their group: they are no negatives of one another.
                    parts.setdefault((a, b), []).append(np.tile(table, (times[number] if times else 1, 1)))
            group += len(names)
        if not parts:
            raise IsoglossError("The parallel text holds no pair: no two of the languages share a key.")
        self._tables = {pair: np.concatenate(tables) for pair, tables in parts.items()}

    @classmethod
    def open(
        cls,
        sources: str | Path | Sequence[str | Path],
        tokenizer: Any,
        *,
        languages: Sequence[str] | None = None,
        pivot: str | None = None,
        times: Sequence[int] | None = None,
        cache_dir: str | Path | None = None,
    ) -> "ParallelCorpus":
        """Tokenises the sources into the cache (or opens them there) and joins them; see `read_parallel`."""
        stores = []
        for folder in _folders(sources, languages):
            opened = {}
            for name, path in _language_files(folder, languages).items():
                rows = _keyed(path)
                store = build_store(
                    {"keyed": file_digest(path)}, tokenizer, lambda r=rows: (t for _, t in r), cache_dir
                )
                opened[name] = (store, [key for key, _ in rows])
            stores.append(opened)
        return cls(stores, pivot, times)

    @property
    def identity(self) -> list[dict[str, str]]:
        """What tells this text from another with as many pairs: per source and language the store's name, a digest of texts and keys."""
        return [{name: store.folder.name for name, store in source.items()} for source in self._stores]

    @property
    def sizes(self) -> dict[str, int]:
        """Pairs per language pair, named `a-b`: what a `MixtureSampler` wants."""
        return {f"{a}-{b}": len(table) for (a, b), table in self._tables.items()}

    @property
    def pairs(self) -> dict[PairName, int]:
        """Pairs per language pair."""
        return {pair: len(table) for pair, table in self._tables.items()}

    def __len__(self) -> int:
        """Pairs of all language pairs."""
        return sum(len(table) for table in self._tables.values())

    def take(self, draw: Draw) -> PairBatch:
        """Reads the pairs that a `MixtureSampler` over `sizes` has drawn."""
        by_name = {f"{a}-{b}": (a, b) for a, b in self._tables}
        rows = zip(draw.sources.tolist(), draw.indices.tolist(), strict=True)
        return self._read([(by_name[draw.names[source]], index) for source, index in rows])

    def iterate(self, *, per_pair: int | None = None, batch_size: int = 1024) -> Iterator[PairBatch]:
        """Yields all pairs in order, or `per_pair` of each language pair, spread evenly over it."""
        for pair, table in self._tables.items():
            count = len(table) if per_pair is None else min(per_pair, len(table))
            chosen = np.linspace(0, len(table) - 1, count).astype(np.int64)
            for begin in range(0, count, batch_size):
                yield self._read([(pair, int(i)) for i in chosen[begin : begin + batch_size]])

    def _read(self, wanted: Sequence[tuple[PairName, int]]) -> PairBatch:
        first, second, groups = [], [], []
        for (a, b), index in wanted:
            number, in_a, in_b, group = self._tables[a, b][index]
            first.append(self._stores[number][a].document(int(in_a)))
            second.append(self._stores[number][b].document(int(in_b)))
            groups.append(int(group))
        return PairBatch(first, second, [pair for pair, _ in wanted], torch.tensor(groups))


def _folders(sources: str | Path | Sequence[str | Path], languages: Sequence[str] | None) -> list[Path]:
    folders = [Path(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    found: set[str] = set()
    for folder in folders:
        if not folder.is_dir():
            raise IsoglossError(f"The parallel text '{folder}' is not a folder; expected SOURCE/<language>.jsonl.gz.")
        names = _stems(folder)
        if not names:
            raise IsoglossError(f"The folder '{folder}' holds no parallel text; expected files <language>.jsonl.gz.")
        found |= set(names)
    missing = sorted(set(languages or ()) - found)
    if missing:
        raise IsoglossError(
            f"No parallel text for {', '.join(missing)} in {', '.join(map(str, folders))}; there is: "
            f"{', '.join(sorted(found)[:20])}{' ...' if len(found) > 20 else ''}."
        )
    return folders


def _stems(folder: Path) -> dict[str, Path]:
    return {
        path.name.removesuffix(".gz").removesuffix(".jsonl"): path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name.endswith(_SUFFIXES)
    }


def _language_files(folder: Path, languages: Sequence[str] | None) -> dict[str, Path]:
    files = _stems(folder)
    return files if languages is None else {name: files[name] for name in languages if name in files}


def _pairs(names: Sequence[str], pivot: str | None) -> Iterator[PairName]:
    if pivot is not None:
        yield from ((pivot, name) for name in names if pivot in names and name != pivot)
        return
    for place, a in enumerate(names):
        yield from ((a, b) for b in names[place + 1 :])


def _keyed(path: Path) -> list[tuple[str, str]]:
    rows = [(text_field(path, n, row, "key"), text_field(path, n, row, "text"), n) for n, row in read_rows(path)]
    twice = [key for key, count in Counter(key for key, _, _ in rows).items() if count > 1]
    if twice:
        line = [n for key, _, n in rows if key == twice[0]][1]
        raise IsoglossError(f"The file '{path}', line {line}, repeats the key '{twice[0]}'; every key may occur once.")
    if not rows:
        raise IsoglossError(f"The file '{path}' is empty; expected rows with key and text.")
    return [(key, text) for key, text, _ in rows]

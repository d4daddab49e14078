"""Text tokenised once: a memory-mapped array of ids with document offsets, shared by all runs."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock
from torch import Tensor

from isogloss.corpora._special import separator_of
from isogloss.corpora.reading import TextSource, read_texts, source_identity
from isogloss.errors import IsoglossError
from isogloss.storage import content_key, new_folder, read_json, write_json

_FORMAT = 1
_BATCH_TEXTS, _BATCH_CHARACTERS = 1000, 2_000_000


class BlockView:
    """A run of packed tokens cut into blocks of one length; holds no copy of them."""

    def __init__(self, tokens: npt.NDArray[Any], length: int) -> None:
        """Cuts `tokens` [N] into N // length blocks; the remainder at the very end is left out."""
        if length < 1:
            raise IsoglossError(f"The block length must be at least 1, not {length}.")
        self.length = length
        self._tokens = tokens[: len(tokens) // length * length].reshape(-1, length)

    def __len__(self) -> int:
        """Number of whole blocks."""
        return len(self._tokens)

    def take(self, indices: Sequence[int] | Tensor | npt.NDArray[np.int64]) -> Tensor:
        """Returns blocks as int64 [B, length].

        Args:
            indices: [B] block numbers.
        """
        return torch.from_numpy(self._tokens[np.asarray(indices, dtype=np.int64)].astype(np.int64))


class TokenStore:
    """Tokenised documents, each followed by the separator; a cheap view of files on disk.

    Attributes:
        folder: Where the files are.
        separator: The id after each document, None when the tokenizer has none.
        vocabulary_size: `len(tokenizer)` of the tokenizer that made it.
    """

    def __init__(self, folder: str | Path, *, start: int = 0, stop: int | None = None) -> None:
        """Opens the documents `start:stop` of a store.

        Raises:
            IsoglossError: The folder is not a token store, or its files are damaged.
        """
        self.folder = Path(folder)
        facts = read_json(self.folder / "store.json")
        try:
            offsets = np.load(self.folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
            tokens = np.memmap(self.folder / "tokens.bin", dtype=facts["dtype"], mode="r")
            whole = facts["format"] == _FORMAT and len(tokens) == facts["tokens"] == int(offsets[-1])
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise _damaged(self.folder) from problem
        if not whole:
            raise _damaged(self.folder)
        self.separator: int | None = facts["separator"]
        self.vocabulary_size: int = facts["vocabulary_size"]
        self._start, self._stop = start, len(offsets) - 1 if stop is None else stop
        self._offsets = offsets
        self._all = tokens

    @property
    def document_count(self) -> int:
        """Documents in this view."""
        return self._stop - self._start

    @property
    def token_count(self) -> int:
        """Tokens in this view, separators included."""
        return len(self.tokens)

    @property
    def tokens(self) -> npt.NDArray[Any]:
        """The packed ids [N], uint16 or uint32, memory-mapped."""
        return self._all[int(self._offsets[self._start]) : int(self._offsets[self._stop])]

    @property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Document borders [documents + 1] into `tokens`; each document ends with its separator."""
        part = np.asarray(self._offsets[self._start : self._stop + 1])
        return cast(npt.NDArray[np.int64], part - part[0])

    def document(self, index: int) -> Tensor:
        """Returns document `index` as int64, without its separator."""
        if not 0 <= index < self.document_count:
            raise IndexError(f"document {index} of {self.document_count}")
        begin, end = self._offsets[self._start + index], self._offsets[self._start + index + 1]
        ids = self._all[begin : end - (self.separator is not None)]
        return torch.from_numpy(ids.astype(np.int64))

    def blocks(self, length: int) -> BlockView:
        """Returns the documents packed back to back, with separators between, in blocks of `length` tokens.

        Objectives add their frame themselves: cut to `objective.raw_length`.
        """
        return BlockView(self.tokens, length)

    def hold_out(self, documents: int) -> tuple["TokenStore", "TokenStore"]:
        """`split` with at most so many documents for validation, and no more than a tenth of a small text."""
        return self.split(min(documents, max(1, self.document_count // 10)))

    def split(self, validation: int | float) -> tuple["TokenStore", "TokenStore"]:
        """Splits off the last documents for validation.

        Args:
            validation: A number of documents (int), or a share (float in (0, 1), at least one document).

        Returns:
            `(training, validation)`.

        Raises:
            IsoglossError: Nothing would be left for one of the two.
        """
        documents = self.document_count
        count = max(1, round(documents * validation)) if isinstance(validation, float) else validation
        if not 0 < count < documents:
            raise IsoglossError(
                f"{documents} documents cannot be split into training and {count} for validation; give more "
                "text or a smaller validation part."
            )
        middle = self._stop - count
        return (
            TokenStore(self.folder, start=self._start, stop=middle),
            TokenStore(self.folder, start=middle, stop=self._stop),
        )


def default_cache() -> Path:
    """Returns the cache folder: `$ISOGLOSS_CACHE`, else `~/.cache/isogloss`."""
    named = os.environ.get("ISOGLOSS_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "isogloss"


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns a digest of what a tokenizer does to text; truncation and padding settings do not count."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return content_key({"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()})
    rules = json.loads(backend.to_str())
    rules.pop("truncation", None)
    rules.pop("padding", None)
    return hashlib.sha256(json.dumps(rules, sort_keys=True).encode()).hexdigest()


def tokenise(
    source: TextSource,
    tokenizer: Any,
    *,
    cache_dir: str | Path | None = None,
    field: str = "text",
    limit: int | None = None,
) -> TokenStore:
    """Tokenises a source into the cache, or opens what an earlier run made of the same text.

    The key is made of the files' contents (not their names), the tokenizer, the field and the limit.
    Two processes that want the same store wait for one another; a killed one leaves nothing behind
    that is mistaken for a store.

    Args:
        source: See `read_texts`.
        tokenizer: A transformers tokenizer; its special tokens are not added, its separator is.
        cache_dir: Where stores live; `default_cache()` when None.
        field: The field or column with the text.
        limit: At most this many documents.

    Raises:
        IsoglossError: The source cannot be read or holds no text.
    """
    identity = {"texts": source_identity(source), "field": field, "limit": limit}
    return build_store(identity, tokenizer, lambda: read_texts(source, field=field, limit=limit), cache_dir)


def build_store(identity: Any, tokenizer: Any, texts: Any, cache_dir: str | Path | None) -> TokenStore:
    """Opens the store named by `identity` and the tokenizer, or builds it from `texts()` (str)."""
    root = Path(cache_dir) if cache_dir is not None else default_cache()
    key = content_key({"format": _FORMAT, "source": identity, "tokenizer": tokenizer_digest(tokenizer)})
    folder = root / "tokens" / key[:32]
    if (store := _open_if_whole(folder)) is not None:
        return store
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder.parent / f".{folder.name}.lock")):
            if (store := _open_if_whole(folder)) is not None:
                return store
            with new_folder(folder, overwrite=True) as temporary:
                _write_store(temporary, texts(), tokenizer)
    except OSError as problem:
        raise IsoglossError(
            f"The token cache '{root}' cannot be written: {problem.strerror or problem}; "
            "free space or set ISOGLOSS_CACHE."
        ) from problem
    return TokenStore(folder)


def _open_if_whole(folder: Path) -> TokenStore | None:
    if not (folder / "store.json").is_file():
        return None
    try:
        return TokenStore(folder)
    except IsoglossError:
        # A damaged store is only a cache: it is built again in its place.
        return None


def _damaged(folder: Path) -> IsoglossError:
    return IsoglossError(f"The token store '{folder}' is damaged; delete the folder, it will be made again.")


def _write_store(folder: Path, texts: Iterable[str], tokenizer: Any) -> None:
    dtype: type[np.unsignedinteger[Any]] = np.uint16 if len(tokenizer) < 65536 else np.uint32
    separator = separator_of(tokenizer)
    tail = [] if separator is None else [separator]
    lengths: list[npt.NDArray[np.int64]] = []
    total = 0
    with (folder / "tokens.bin").open("wb") as stream:
        for batch in _batches(texts):
            rows = tokenizer(
                batch,
                add_special_tokens=False,
                truncation=False,
                padding=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
            )["input_ids"]
            sizes = np.fromiter((len(row) + len(tail) for row in rows), np.int64, len(rows))
            ids = np.fromiter(chain.from_iterable(chain(row, tail) for row in rows), dtype, int(sizes.sum()))
            stream.write(ids.tobytes())
            lengths.append(sizes)
            total += len(ids)
    if total == 0:
        raise IsoglossError("The text holds no token; give a source that holds text.")
    offsets = np.concatenate([np.zeros(1, np.int64), *lengths]).cumsum()
    np.save(folder / "offsets.npy", offsets, allow_pickle=False)
    write_json(
        folder / "store.json",
        {
            "format": _FORMAT,
            "dtype": np.dtype(dtype).newbyteorder("=").str,
            "tokens": total,
            "documents": len(offsets) - 1,
            "separator": separator,
            "vocabulary_size": len(tokenizer),
        },
    )


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if len(batch) >= _BATCH_TEXTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch

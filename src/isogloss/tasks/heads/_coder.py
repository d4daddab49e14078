"""Text to rows: special tokens where the model was trained with them, truncation that is counted.

Texts are tokenised without special tokens and put together here, so that what is cut off is known exactly and
windows, masks and targets stand where we say.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example

Offsets = list[tuple[int, int]]

# S2 feeds XGLM and BLOOM texts without special tokens; other decoders get what their tokenizer puts in front.
_BARE_DECODERS = ("xglm", "bloom")


@dataclass(frozen=True)
class Layout:
    """Special tokens around one text (`prefix a suffix`) or two (`prefix a middle b suffix`)."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]

    @property
    def size(self) -> int:
        """Special tokens in all."""
        return len(self.prefix) + len(self.middle) + len(self.suffix)


@dataclass(frozen=True)
class Row:
    """Token ids with segments (or None), what was lost, and the column where the last text begins."""

    ids: list[int]
    types: list[int] | None
    lost: int
    start: int


class Coder:
    """The tokenizer of a backbone, with the layout that its kind asks for.

    Args:
        backbone: With a fast tokenizer.

    Raises:
        IsoglossError: There is no tokenizer, or one without offsets.
    """

    def __init__(self, backbone: Backbone) -> None:
        tokenizer = backbone.tokenizer
        if tokenizer is None or not getattr(tokenizer, "is_fast", False):
            raise IsoglossError(
                f"Tasks need a fast tokenizer, but {backbone.name} has "
                f"{'none' if tokenizer is None else 'a slow one'}; add its tokenizer.json to the folder."
            )
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.is_decoder = backbone.kind == "decoder"
        self._segments = (
            getattr(backbone.config, "type_vocab_size", 0) > 1 and "token_type_ids" in tokenizer.model_input_names
        )
        eos = tokenizer.eos_token_id
        self.eos: tuple[int, ...] = () if eos is None else (int(eos),)
        single = self._probe("a", None)
        if self.is_decoder:
            bare = backbone.config.model_type in _BARE_DECODERS
            prefix = () if bare else single.prefix
            self.one = Layout(prefix, (), self.eos)
            self.two = Layout(prefix, self._separator(), self.eos)
        else:
            self.one, self.two = single, self._probe("a", "b")
        self._space = self._needs_space()

    def _probe(self, first: str, second: str | None) -> Layout:
        encoding = self.tokenizer(first, second, verbose=False)
        ids, owners = encoding["input_ids"], encoding.sequence_ids(0)
        inside = [place for place, owner in enumerate(owners) if owner is not None]
        if not inside:
            raise IsoglossError(f"The tokenizer of {self.backbone.name} finds no token in {first!r}; check its files.")
        begin, end = inside[0], inside[-1] + 1
        middle = tuple(ids[place] for place in range(begin, end) if owners[place] is None)
        return Layout(tuple(ids[:begin]), middle, tuple(ids[end:]))

    def _separator(self) -> tuple[int, ...]:
        """A line break between two texts of a decoder; a colon for a vocabulary without one."""
        for text in ("\n", " :"):
            ids = self._plain([text])[0]
            if ids and self.tokenizer.unk_token_id not in ids and self.tokenizer.decode(ids).strip(" ") != "":
                return tuple(ids)
        return ()

    def _plain(self, texts: Sequence[str]) -> list[list[int]]:
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []

    def _needs_space(self) -> bool:
        """Whether words given one by one lose the space in front of them (byte-level vocabularies)."""
        whole = self._plain(["a a a"])[0]
        apart = self.tokenizer(["a", "a", "a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        spaced = self.tokenizer(["a", " a", " a"], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        return bool(whole != apart and whole == spaced)

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids without special tokens."""
        return self._plain(texts)

    def tokens_with_offsets(self, texts: Sequence[str]) -> list[tuple[list[int], Offsets]]:
        """Ids without special tokens, with begin and end of each in its text."""
        if not texts:
            return []
        found = self.tokenizer(list(texts), add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return list(zip(found["input_ids"], found["offset_mapping"], strict=True))

    def words(self, sentences: Sequence[Sequence[str]]) -> list[tuple[list[int], list[int]]]:
        """Ids without special tokens of sentences that are split into words, with the word of each token."""
        if not sentences:
            return []
        split = [list(words) for words in sentences]
        if self._space:
            split = [[word if place == 0 else f" {word}" for place, word in enumerate(words)] for words in split]
        found = self.tokenizer(split, is_split_into_words=True, add_special_tokens=False, verbose=False)
        return [(ids, [int(word) for word in found.word_ids(row)]) for row, ids in enumerate(found["input_ids"])]

    def room(self, layout: Layout, limit: int | None, needed: int = 1) -> int:
        """Tokens left for texts.

        Raises:
            IsoglossError: Fewer than `needed` are left.
        """
        left = (1 << 30) if limit is None else limit - layout.size
        if left < needed:
            raise IsoglossError(
                f"A length of {limit} tokens leaves room for {max(left, 0)} tokens of text, but at least "
                f"{needed} are needed; raise max_length or shorten the prompts."
            )
        return left

    def single(self, ids: Sequence[int], limit: int | None, *, closing: bool = True) -> Row:
        """One text. `closing=False` leaves a decoder's end token away."""
        layout = self._open(self.one, closing)
        kept = list(ids[: self.room(layout, limit)])
        row = [*layout.prefix, *kept, *layout.suffix]
        # A text of nothing that the vocabulary knows still needs one state.
        row = row or [*self.eos] or [self.backbone.pad_id]
        return Row(row, [0] * len(row) if self._segments else None, len(ids) - len(kept), len(layout.prefix))

    def pair(self, first: Sequence[int], second: Sequence[int], limit: int | None, *, closing: bool = True) -> Row:
        """Two texts, the longer one cut first."""
        layout = self._open(self.two, closing)
        room = self.room(layout, limit, 2)
        count, count_pair = len(first), len(second)
        if count + count_pair > room:
            shorter = min(count, count_pair, room // 2)
            count, count_pair = (shorter, room - shorter) if count <= count_pair else (room - shorter, shorter)
        head = [*layout.prefix, *first[:count], *layout.middle]
        tail = [*second[:count_pair], *layout.suffix]
        types = [0] * len(head) + [1] * len(tail) if self._segments else None
        return Row(head + tail, types, len(first) + len(second) - count - count_pair, len(head))

    def _open(self, layout: Layout, closing: bool) -> Layout:
        return layout if closing or not self.is_decoder else dataclasses.replace(layout, suffix=())

    def shortened(self, example: Example, excess: int) -> Example:
        """The example with about `excess` tokens cut from the ends of its longest fields.

        Tags are cut with their tokens.
        """
        if example.tokens is not None:
            ids = [len(found[0]) for found in self.words([[word] for word in example.tokens])]
            keep, lost = len(ids), 0
            while keep > 1 and lost < excess:
                keep -= 1
                lost += max(1, ids[keep])
            tags = None if example.tags is None else example.tags[:keep]
            return dataclasses.replace(example, tokens=example.tokens[:keep], tags=tags)
        choices = example.choices or ()
        # The question of a choice is a key word of its template and stays.
        names = ("text",) if choices else ("context", "text", "text_pair", "question")
        texts: dict[str | int, str] = {name: getattr(example, name) or "" for name in names}
        texts |= dict(enumerate(choices))
        coded = dict(zip(texts, (found[1] for found in self.tokens_with_offsets([*texts.values()])), strict=True))
        sizes = {name: len(found) for name, found in coded.items()}
        for _ in range(excess):
            longest = max(sizes, key=sizes.__getitem__)
            if sizes[longest] <= 1:
                break
            sizes[longest] -= 1
        for name, size in sizes.items():
            if size < len(coded[name]):
                # A character of several byte tokens goes as a whole.
                end = min(coded[name][size - 1][1], coded[name][size][0])
                texts[name] = texts[name][:end].rstrip()
        changed: dict[str, Any] = {name: texts[name] for name in names if getattr(example, name) is not None}
        if choices:
            changed["choices"] = tuple(texts[place] for place in range(len(choices)))
        return dataclasses.replace(example, **changed)

    def fit(self, example: Example, size: Any, limit: int | None) -> tuple[Example, int]:
        """Shortens the example until `size(example)` tokens fit; returns it and how many tokens that took.

        Templates are cut in their fields, so that what they ask stays whole.

        Raises:
            IsoglossError: The template alone is longer than the limit.
        """
        first = found = size(example)
        for _ in range(16):
            if limit is None or found <= limit:
                return example, first - found
            shorter = self.shortened(example, found - limit)
            if shorter == example:
                break
            example, found = shorter, size(shorter)
        raise IsoglossError(
            f"Example {example.id} does not fit: the template and the labels take {found} tokens with almost "
            f"no text, but there is room for {limit}; raise max_length or shorten the template or prompts."
        )

"""A multilingual subword vocabulary from raw text: Unigram (arXiv 1804.10959) with byte fallback."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from isogloss.corpora.mixture import smoothed_shares, stream_generator
from isogloss.corpora.reading import TextSource, read_texts
from isogloss.errors import IsoglossError

Kind = Literal["encoder", "decoder", "encoder-decoder"]
_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_BYTES = tuple(f"<0x{value:02X}>" for value in range(256))
# Far below every piece's log-probability: a byte piece is reached by fallback, never by text that spells it.
_BYTE_SCORE = -1000.0
_ASCII = tuple(map(chr, range(33, 127)))
# Of log-probabilities; the noise of a sum lies far below.
_SCORE_DIGITS = 6
_UNMET_STEP = 1e-4


def train_tokenizer(
    texts_by_language: Mapping[str, TextSource],
    *,
    vocab_size: int,
    kind: Kind = "encoder",
    alpha: float = 0.3,
    character_coverage: float = 0.9998,
    sentinels: int = 0,
    max_characters: int = 10_000_000,
    max_length: int | None = None,
    field: str = "text",
    seed: int = 0,
) -> PreTrainedTokenizerFast:
    """Trains a Unigram vocabulary on text sampled with exponent smoothing over languages.

    NFKC, words marked by `▁`, ids 0-4 `<s> <pad> </s> <unk> <mask>`, then the sentinels
    `<extra_id_0>` ..., then 256 bytes, then pieces by falling probability. A character outside the
    coverage becomes its UTF-8 bytes, so nothing ever becomes `<unk>`.

    Args:
        texts_by_language: Language -> source (see `read_texts`).
        vocab_size: Entries in all, the 261 fixed ones and the sentinels included.
        kind: What is put around a text: encoder `<s> a </s>` and `<s> a </s> b </s>`; encoder-decoder
            `a </s>` and `a b </s>`; decoder nothing.
        alpha: A language with n characters is sampled in proportion to n^alpha (XLM-R: 0.3).
        character_coverage: Share of the sampled characters that must be pieces of their own; the rarest
            others are left to the byte fallback. Printable ASCII is always covered.
        sentinels: Number of `<extra_id_N>` tokens, for span corruption.
        max_characters: Size of the sample; the small languages are repeated to reach their share.
        max_length: `model_max_length` of the tokenizer; unlimited when None.
        field: The field or column with the text.
        seed: Chooses the sample.

    Raises:
        IsoglossError: A source cannot be read, or the vocabulary is too small for the characters.
    """
    fixed = [*_SPECIAL, *(f"<extra_id_{i}>" for i in range(sentinels)), *_BYTES]
    room = vocab_size - len(fixed)
    normalise = normalizers.Sequence(
        [normalizers.NFKC(), normalizers.Replace("\t", " "), normalizers.Replace("\n", " ")]
    )
    lengths = {name: sum(map(len, read_texts(source, field=field))) for name, source in texts_by_language.items()}
    shares = smoothed_shares(lengths, alpha)
    total = min(max_characters, sum(lengths.values()))
    quota = {name: total * share / lengths[name] for name, share in shares.items()}

    def sample() -> Iterator[str]:
        for name, source in texts_by_language.items():
            yield from _sample(read_texts(source, field=field), quota[name], stream_generator("tokenizer", seed, name))

    counts: Counter[str] = Counter()
    for text in sample():
        counts.update(normalise.normalize_str(text))
    alphabet = _alphabet(counts, character_coverage)
    alphabet += [c for c in _ASCII if c not in set(alphabet)]
    if room < len(alphabet) + 1:
        raise IsoglossError(
            f"A vocabulary of {vocab_size} is too small: {len(fixed)} fixed entries and {len(alphabet)} "
            f"characters; use at least {len(fixed) + 2 * len(alphabet)}, or a lower character coverage."
        )
    # A rare character is cut out of the training text, as a space, so that no piece contains it.
    rare = str.maketrans(dict.fromkeys(set(counts) - set(alphabet), " "))
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalise
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=room + 1,
        special_tokens=["<unk>"],
        initial_alphabet=list(_ASCII),
        unk_token="<unk>",
        show_progress=False,
        max_piece_length=16,
    )
    tokenizer.train_from_iterator((normalise.normalize_str(text).translate(rare) for text in sample()), trainer)
    learned = [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"] if piece != "<unk>"]
    return _assemble(fixed, _canonical(learned[:room]), normalise, kind, sentinels, max_length)


def _canonical(learned: list[tuple[str, float]]) -> list[tuple[str, float]]:
    """The same pieces in an order that does not hang on the process.

    `tokenizers` sums over hash tables, so the last digits of a score, and with them the order of ties, differ from run to run.
    Characters that it never met get the lowest score plus multiples of 0.0001, in the order of a hash set: here all get the lowest.
    """
    lowest = min(score for _, score in learned)

    def settled(piece: str, score: float) -> float:
        place = (score - lowest) / _UNMET_STEP
        unmet = len(piece) == 1 and place < len(learned) and abs(place - round(place)) < 1e-5
        return round(lowest if unmet else score, _SCORE_DIGITS)

    return sorted(((piece, settled(piece, score)) for piece, score in learned), key=lambda item: (-item[1], item[0]))


def _assemble(
    fixed: list[str],
    learned: list[tuple[str, float]],
    normalise: Any,
    kind: Kind,
    sentinels: int,
    max_length: int | None,
) -> PreTrainedTokenizerFast:
    pieces = set(fixed)
    vocabulary = [(token, _BYTE_SCORE if token in _BYTES else 0.0) for token in fixed]
    vocabulary += [(piece, score) for piece, score in learned if piece not in pieces]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=fixed.index("<unk>"), byte_fallback=True))
    tokenizer.normalizer = normalise
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    named = [("<s>", fixed.index("<s>")), ("</s>", fixed.index("</s>"))]
    if kind == "encoder":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=named
        )
    elif kind == "encoder-decoder":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", pair="$A $B </s>", special_tokens=named[1:]
        )
    extra: dict[str, Any] = {} if max_length is None else {"model_max_length": max_length}
    if sentinels:
        extra["extra_special_tokens"] = [f"<extra_id_{i}>" for i in range(sentinels)]
    if kind == "encoder":
        extra |= {"cls_token": "<s>", "sep_token": "</s>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
        clean_up_tokenization_spaces=False,
        **extra,
    )


def _alphabet(counts: Counter[str], coverage: float) -> list[str]:
    if not 0 < coverage <= 1:
        raise IsoglossError(f"The character coverage must be in (0, 1], not {coverage}.")
    needed = coverage * sum(counts.values())
    alphabet, covered = [], 0
    # Ties are broken by the character itself, so that the alphabet does not hang on the reading order.
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= needed:
            break
        alphabet.append(character)
        covered += count
    return alphabet


def _sample(texts: Iterator[str], rate: float, generator: torch.Generator) -> Iterator[str]:
    """Repeats each text `rate` times on average: its whole part always, the rest by chance."""
    whole, part = divmod(rate, 1.0)
    for text in texts:
        again = int(whole) + int(torch.rand((), generator=generator).item() < part)
        for _ in range(again):
            yield text

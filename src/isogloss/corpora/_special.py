"""What every objective asks of a tokenizer: the frame of a text, the separator, the special ids."""

import re
from typing import Any

import torch
from torch import Tensor

from isogloss.errors import IsoglossError

_SENTINEL = re.compile(r"^▁?<extra_id_\d+>$")


def frame_of(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the ids that the tokenizer itself puts before and after one text, such as ([CLS], [SEP])."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a", add_special_tokens=True)["input_ids"]
    for start in range(len(full) - len(bare) + 1):
        if full[start : start + len(bare)] == bare:
            return list(full[:start]), list(full[start + len(bare) :])
    return [], []


def encoder_frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the frame for encoder objectives: the tokenizer's own, else CLS/BOS and SEP/EOS."""
    prefix, suffix = frame_of(tokenizer)
    if prefix or suffix:
        return prefix, suffix
    return _first(tokenizer.cls_token_id, tokenizer.bos_token_id), _first(
        tokenizer.sep_token_id, tokenizer.eos_token_id
    )


def separator_of(tokenizer: Any) -> int | None:
    """Returns the id that stands between packed documents: EOS, else SEP, else BOS, else none."""
    found = _first(tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.bos_token_id)
    return found[0] if found else None


def special_ids(tokenizer: Any) -> list[int]:
    """Returns all special ids, sentinels included (mT5 does not declare its sentinels as special)."""
    found = set(tokenizer.all_special_ids)
    found.update(index for token, index in tokenizer.get_vocab().items() if _SENTINEL.match(token))
    return sorted(found)


def special_mask(tokenizer: Any) -> Tensor:
    """Returns a bool vector [len(tokenizer)], true at special ids."""
    ids = special_ids(tokenizer)
    mask = torch.zeros(max([len(tokenizer), *(i + 1 for i in ids)]), dtype=torch.bool)
    mask[ids] = True
    return mask


def sentinel_ids(tokenizer: Any, count: int) -> Tensor:
    """Returns the ids [count] of `<extra_id_0>`, `<extra_id_1>` ... (mT5 writes them `▁<extra_id_0>`).

    Raises:
        IsoglossError: The tokenizer has fewer sentinels.
    """
    vocabulary = tokenizer.get_vocab()
    ids = []
    for number in range(count):
        name = f"<extra_id_{number}>"
        index = vocabulary.get(name, vocabulary.get("▁" + name))
        if index is None:
            have = f"only {number} of the {count} needed" if number else f"none of the {count} needed"
            raise IsoglossError(
                f"The tokenizer has {have} sentinel tokens <extra_id_N> for span corruption; use the "
                "tokenizer of an encoder-decoder model, or train one with sentinels."
            )
        ids.append(index)
    return torch.tensor(ids, dtype=torch.int64)


def _first(*ids: int | None) -> list[int]:
    return next(([index] for index in ids if index is not None), [])

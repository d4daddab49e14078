"""What a prompt pool is used for: attention by language, entropy, dead keys, languages that share prompts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.stack import Stack, retrieval
from isogloss.training.buckets import reading_batches
from isogloss.training.lm_batches import text_batch

# A key is dead when it gets less than this share of an even one's attention in every language.
_DEAD = 0.01


@dataclass(frozen=True)
class PoolUsage:
    """How texts of some languages use the keys of a pool.

    Attributes:
        languages: Codes, L of them.
        attention: [L][M], mean attention of a language's texts to each key; rows sum to 1.
        texts: Texts by language.
        entropy: By language, in nats: mean over texts of the entropy of a text's attention.
        spread: By language, in nats: entropy of the mean attention. Far above `entropy` when texts choose differently.
        dead: Keys that no language attends to.
    """

    languages: Sequence[str]
    attention: Sequence[Sequence[float]]
    texts: Sequence[int]
    entropy: Sequence[float]
    spread: Sequence[float]
    dead: Sequence[int]

    @property
    def keys(self) -> int:
        """M."""
        return len(self.attention[0])

    def top(self, language: int, count: int = 3) -> list[int]:
        """The keys that a language attends to most."""
        row = self.attention[language]
        return sorted(range(self.keys), key=lambda key: -row[key])[:count]

    def to_json(self) -> dict[str, Any]:
        """All of it, by language."""
        return {
            "keys": self.keys,
            "dead": list(self.dead),
            "languages": {
                code: {
                    "texts": self.texts[place],
                    "entropy": self.entropy[place],
                    "spread": self.spread[place],
                    "effective_keys": math.exp(self.spread[place]),
                    "attention": list(self.attention[place]),
                }
                for place, code in enumerate(self.languages)
            },
        }


def pool_usage(
    stack: Stack, texts: Mapping[str, Sequence[str]], *, slot: str | None = None, tokens_per_batch: int | None = None
) -> PoolUsage:
    """Measures a pool on texts; only as much of the model is run as the pool's query needs.

    Args:
        stack: Holds the pool.
        texts: Language code -> texts, cut to the stack's budget.
        slot: Which slot's pool, where there are several.
        tokens_per_batch: Most tokens of a batch, padding included; None takes what suits the device.

    Raises:
        IsoglossError: No pool, more than one and no `slot`, no tokenizer, or a language without text.
    """
    pools = [found.name for found, _ in retrieval.retrievals(stack.slots)]
    chosen = slot or (pools[0] if len(pools) == 1 else None)
    if chosen not in pools:
        raise IsoglossError(
            f"The stack {'has no prompt pool' if not pools else 'has pools in ' + ' and '.join(pools)}; name a stack with one pool, or one slot."
        )
    if stack.backbone.tokenizer is None:
        raise IsoglossError(f"{stack.backbone.name} has no tokenizer, so texts cannot be read for it.")
    if not texts:
        raise IsoglossError("There is no text to measure the pool on; name languages with texts.")
    stack.eval()
    means, entropies, spreads = [], [], []
    for code, lines in texts.items():
        if not lines:
            raise IsoglossError(f"There is no text in {code} to measure the pool on.")
        found = _attention(stack, chosen, code, lines, tokens_per_batch)
        means.append(found.mean(0))
        entropies.append(float(_entropy(found).mean()))
        spreads.append(float(_entropy(means[-1].unsqueeze(0))))
    table = torch.stack(means)
    dead = (table < _DEAD / table.shape[1]).all(0).nonzero().flatten().tolist()
    return PoolUsage(
        tuple(texts), table.tolist(), tuple(len(lines) for lines in texts.values()), entropies, spreads, dead
    )


def _attention(stack: Stack, slot: str, code: str, texts: Sequence[str], tokens_per_batch: int | None) -> Tensor:
    """[N, M] in float64."""
    backbone = stack.backbone
    cut: dict[str, Any] = {}
    if stack.text_budget is not None:
        cut = {"truncation": True, "max_length": stack.text_budget}
    rows = [ids or [backbone.pad_id] for ids in backbone.tokenizer(list(texts), verbose=False, **cut)["input_ids"]]
    found: list[Tensor] = []
    for picked in reading_batches([len(row) for row in rows], backbone.device, tokens_per_batch):
        lengths = torch.tensor([len(rows[number]) for number in picked])
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(rows[number]) for number in picked], batch_first=True, padding_value=backbone.pad_id
        )
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        batch = text_batch(stack, ids.to(backbone.device), mask.to(backbone.device), [code] * len(picked))
        found.append(retrieval.attention(stack, batch)[slot].double().cpu())
    return torch.cat(found)


def _entropy(attention: Tensor) -> Tensor:
    found: Tensor = torch.special.entr(attention).sum(1)
    return found

"""First values of soft prompts."""

from collections.abc import Sequence

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError

INITIALISATIONS = ("text", "vocabulary", "labels", "normal", "uniform", "prompt")

# Lester et al. sample from the 5,000 most common tokens; sorted vocabularies put common tokens first.
_COMMON = 5000


def initial_vectors(
    init: str,
    length: int,
    backbone: Backbone,
    generator: torch.Generator,
    *,
    text: str = "",
    labels: Sequence[str] = (),
) -> Tensor:
    """Returns [length, d] in fp32 on the CPU.

    `text`: embeddings of the tokens of `text` with its end token, repeated to fill (S1, papers.md 1.2).
    `vocabulary`: embeddings of tokens drawn from the 5,000 first non-special ones (papers.md 5.3).
    `labels`: one vector a label name (mean over its tokens), the rest as `vocabulary`.
    `normal`: zero mean, the standard deviation of the embeddings. `uniform`: -0.5 to 0.5 (S2, papers.md 2.2).

    Raises:
        IsoglossError: The init needs a tokenizer or labels and there are none.
    """
    if init == "prompt":
        raise IsoglossError("The prompt init 'prompt' needs the vectors of a saved prompt; give them as `vectors`.")
    width = backbone.hidden_size
    if init == "uniform":
        return torch.empty(length, width).uniform_(-0.5, 0.5, generator=generator)
    if init == "normal":
        spread = _embed(backbone, torch.arange(min(_COMMON, backbone.vocabulary_size))).std()
        return torch.empty(length, width).normal_(0, float(spread), generator=generator)
    if init == "vocabulary":
        return _sampled(length, backbone, generator)
    if backbone.tokenizer is None:
        raise IsoglossError(
            f"The prompt init '{init}' needs a tokenizer, but {backbone.name} has none; use init=normal."
        )
    if init == "text":
        ids = backbone.tokenizer(text)["input_ids"]
        if not ids:
            raise IsoglossError(f"The prompt init text '{text}' has no tokens; give a text with words.")
        filled = (ids * (length // len(ids) + 1))[:length]
        return _embed(backbone, torch.tensor(filled))
    if not labels:
        raise IsoglossError(
            "The prompt init 'labels' needs the labels of a task; train a task module with it, or use another init."
        )
    rows = [_embed(backbone, torch.tensor(_plain_ids(backbone, label))).mean(0) for label in labels[:length]]
    missing = length - len(rows)
    return torch.cat((torch.stack(rows), _sampled(missing, backbone, generator))) if missing else torch.stack(rows)


def _embed(backbone: Backbone, ids: Tensor) -> Tensor:
    with torch.no_grad():
        return backbone.embed(ids.to(backbone.device).unsqueeze(0)).squeeze(0).float().cpu()


def _plain_ids(backbone: Backbone, text: str) -> list[int]:
    return list(backbone.tokenizer(text, add_special_tokens=False)["input_ids"])


def _sampled(count: int, backbone: Backbone, generator: torch.Generator) -> Tensor:
    special = set(getattr(backbone.tokenizer, "all_special_ids", ()))
    common = torch.tensor([index for index in range(min(_COMMON, backbone.vocabulary_size)) if index not in special])
    chosen = common[torch.randint(len(common), (count,), generator=generator)]
    return _embed(backbone, chosen)

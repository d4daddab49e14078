"""Models of published shapes with random weights, and batches of random ids with lifelike lengths."""

from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.backbones.families import family_of
from isogloss.backbones.sites import resolve_sites

BOS, PAD, EOS = 0, 1, 2


def xglm(*, quick: bool, seed: int = 0, **changes: Any) -> Any:
    """A decoder of the shape of XGLM-564M (https://arxiv.org/abs/2112.10668), random weights, fp32; `changes` to its configuration."""
    from transformers import XGLMConfig, XGLMForCausalLM

    shape: dict[str, Any] = dict(d_model=1024, num_layers=24, ffn_dim=4096, attention_heads=16, vocab_size=256008)
    if quick:
        shape = dict(d_model=64, num_layers=2, ffn_dim=128, attention_heads=4, vocab_size=2000)
    torch.manual_seed(seed)
    return XGLMForCausalLM(
        XGLMConfig(**shape | changes, bos_token_id=BOS, pad_token_id=PAD, eos_token_id=EOS, use_cache=False)
    ).requires_grad_(False)


def xlmr(*, quick: bool, seed: int = 0, **changes: Any) -> Any:
    """An encoder of the shape of XLM-R base (https://arxiv.org/abs/1911.02116), random weights, fp32; `changes` to its configuration."""
    from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

    shape: dict[str, Any] = dict(vocab_size=250002)
    if quick:
        shape = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, vocab_size=2000)
    torch.manual_seed(seed)
    config = XLMRobertaConfig(
        **shape | changes,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        bos_token_id=BOS,
        pad_token_id=PAD,
        eos_token_id=EOS,
    )
    return XLMRobertaForMaskedLM(config).requires_grad_(False)


def as_backbone(model: Any) -> Backbone:
    """What `load_backbone` makes of a model, without a folder."""
    family = family_of(model.config.model_type)
    assert family is not None
    return Backbone(
        name=f"random {model.config.model_type}",
        model=model,
        tokenizer=None,
        family=family,
        sites=resolve_sites(model, family),
        fingerprint="benchmark",
    )


def sentence_lengths(count: int, generator: torch.Generator, *, mean: float = 40.0, longest: int = 110) -> list[int]:
    """Lengths in tokens: log-normal with a spread of a third, as sentences of news and encyclopedias have."""
    spread = 0.35
    noise = torch.randn(count, generator=generator)
    lengths = torch.exp(noise * spread - spread**2 / 2) * mean
    return [int(length) for length in lengths.round().clamp(6, longest)]


def sentences(count: int, generator: torch.Generator, vocabulary: int, **lengths: Any) -> list[list[int]]:
    """Random ids, each closed by EOS."""
    return [
        [*torch.randint(10, vocabulary, (length - 1,), generator=generator).tolist(), EOS]
        for length in sentence_lengths(count, generator, **lengths)
    ]


def padded(rows: list[list[int]], width: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and mask [B, T], padded on the right to the longest row or to `width`."""
    width = max(width, *map(len, rows))
    ids = torch.full((len(rows), width), PAD)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.tensor(row)
        mask[number, : len(row)] = 1
    return ids, mask

"""What the input embeddings of a fresh backbone start from: counts of the text, or another model."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.backbones import Backbone, load_backbone
from isogloss.corpora import ParallelCorpus, TokenStore, default_cache
from isogloss.corpora.cooccurrence import cooccurrence_embeddings
from isogloss.errors import IsoglossError
from isogloss.storage import content_key, load_tensors, save_tensors
from isogloss.training.recipe import FROM_MODEL, Recipe

_STD = 0.05
_ROLES = ("bos_token", "eos_token", "pad_token", "unk_token", "mask_token", "cls_token", "sep_token")


def set_first_embeddings(
    backbone: Backbone,
    stores: list[TokenStore],
    parallel: ParallelCorpus | None,
    recipe: Recipe,
    cache_dir: str | Path | None,
    tell: Callable[[str], None],
) -> None:
    """Fills the embeddings as `recipe.embeddings` says; those of a continued backbone and random ones stay as they are.

    Raises:
        IsoglossError: The model to take them from cannot be loaded or is too narrow.
    """
    if recipe.start_from or recipe.embeddings == "random":
        return
    if recipe.embeddings == "cooccurrence":
        vectors = _counted(backbone, stores, parallel, recipe, cache_dir, tell)
    else:
        name = recipe.embeddings.removeprefix(FROM_MODEL)
        tell(f"first embeddings from {name}")
        vectors = borrowed_embeddings(load_backbone(name, dtype="fp32", device="cpu"), backbone, seed=recipe.seed)
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight.copy_(vectors)


def borrowed_embeddings(source: Backbone, target: Backbone, *, seed: int = 0) -> Tensor:
    """Embeddings [V, d] of the target's vocabulary from those of another model.

    A piece that both vocabularies know keeps its vector, special tokens go by their role, another piece gets the mean of the pieces
    that the source cuts it into, and what the source cannot read gets noise. A wider source is projected to d dimensions that
    keep most of its inner products (truncated SVD); the whole is brought to the deviation that fresh models start with.

    Args:
        source: Has a tokenizer.
        target: Gives the vocabulary and d.
        seed: Of the noise.

    Raises:
        IsoglossError: The source has no tokenizer or fewer than d dimensions.
    """
    if source.tokenizer is None or source.hidden_size < target.hidden_size:
        lack = "has no tokenizer" if source.tokenizer is None else f"has {source.hidden_size} dimensions"
        raise IsoglossError(
            f"embeddings: {FROM_MODEL}{source.name} {lack}; give a model with a tokenizer and at least {target.hidden_size} dimensions."
        )
    table = source.model.get_input_embeddings().weight.detach().float()
    if table.shape[1] > target.hidden_size:
        # The right singular vectors, by the small matrix.
        directions = torch.linalg.eigh(table.T @ table).eigenvectors.flip(1)[:, : target.hidden_size]
        table = table @ directions
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(target.vocabulary_size, target.hidden_size, generator=generator)
    found = {index: table[ids].mean(0) for index, ids in _pieces(source.tokenizer, target.tokenizer).items() if ids}
    if found:
        rows = torch.stack(list(found.values()))
        vectors[list(found)] = rows / rows.std().clamp(min=1e-8)
    return vectors * _STD


def _pieces(source: Any, target: Any) -> dict[int, list[int]]:
    """For each token id of the target the ids of the source that stand for it."""
    known: dict[str, int] = source.get_vocab()
    roles = {
        getattr(target, role): known[getattr(source, role)]
        for role in _ROLES
        if getattr(target, role, None) and getattr(source, role, None) in known
    }
    special, unknown = set(target.all_special_tokens), source.unk_token_id
    found = {}
    for piece, index in target.get_vocab().items():
        if piece in roles:
            found[index] = [roles[piece]]
        elif piece in known:
            found[index] = [known[piece]]
        elif piece not in special:
            text = target.convert_tokens_to_string([piece])
            ids = source(text, add_special_tokens=False).input_ids if text.strip() else []
            found[index] = [part for part in ids if part != unknown]
    return found


def _counted(
    backbone: Backbone,
    stores: list[TokenStore],
    parallel: ParallelCorpus | None,
    recipe: Recipe,
    cache_dir: str | Path | None,
    tell: Callable[[str], None],
) -> Tensor:
    """From co-occurrence counts, kept in the cache: they cost minutes and a resumed run needs them again."""
    wanted = {
        "stores": [(store.folder.name, store.token_count) for store in stores],
        "pairs": parallel.sizes if parallel else {},
        "parallel": parallel.identity if parallel else [],
        "dim": backbone.hidden_size,
        "seed": recipe.seed_of_text,
    }
    kept = Path(cache_dir or default_cache()) / "embeddings" / f"{content_key(wanted)[:32]}.safetensors"
    if not kept.is_file():
        tell("first embeddings from co-occurrence")
        vectors = cooccurrence_embeddings(
            stores, parallel, backbone.vocabulary_size, backbone.hidden_size, std=_STD, seed=recipe.seed_of_text
        )
        save_tensors(kept, {"vectors": vectors})
    return load_tensors(kept)["vectors"]

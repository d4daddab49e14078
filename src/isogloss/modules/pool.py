"""The prompt pool: keys and prompts shared by all languages; every text retrieves its own prompt by attention (XLM-P).

Zeng et al. 2023, "Soft Language Clustering for Multilingual Model Pre-training" (https://arxiv.org/abs/2306.07610). The paper
released no code; what is reconstruction is an option here (papers.md 3.2):

    r = q(X);  a = softmax(sim(r, k_j) / tau);  P_X = sum_j a_j P_j;  H = Encoder([P_X; E(X)])

Hard selection with a pull loss is that of L2P (Wang et al. 2022, https://arxiv.org/abs/2112.08654).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.modules.actions import Action, Placement, PromptText, RetrievalAction, Retrieved, Weights
from isogloss.modules.base import ModuleConfig, TransferModule
from isogloss.modules.prompt_init import initial_vectors

_CHOICES: dict[str, tuple[str, ...]] = {
    "query": ("mean", "max", "first-pass", "mean-pass"),
    "similarity": ("dot", "scaled", "cosine"),
    "selection": ("soft", "top-soft", "top-hard", "oracle", "random"),
    "positions": ("shift", "own", "none"),
    "placement": ("before", "after-bos"),
    "init": ("normal", "uniform", "vocabulary"),
}
# Spreads texts over the keys of the random control: Knuth's multiplicative hash.
_HASH = 2654435761


@dataclass(frozen=True)
class PoolConfig(ModuleConfig):
    """How a prompt pool is built.

    Attributes:
        size: `MxL`: M keys, each with a prompt of L vectors. `1xL` is one prompt shared by every text.
        query: What of a text is compared with the keys: `mean` or `max` of its word embeddings, `first-pass` (the first state,
            BOS or CLS, of a pass without prompt) or `mean-pass` (the mean state of that pass).
        similarity: dot, scaled (dot over sqrt d) or cosine.
        temperature: tau; similarities are divided by it.
        selection: `soft` over all keys, `top-soft` over the best `top`, `top-hard` (the best `top` prompts behind one another,
            as L2P), or a control: `oracle` (the prompt of the text's language) or `random` (a prompt that the text's hash draws).
        top: N of `top-soft` and `top-hard`.
        pull: Weight of the pull loss of `top-hard`: - sum of the cosines of query and selected keys, mean over texts.
        stop_gradient: No gradient through the query into the encoder (matters when that is trained too).
        dropout: Chance that a retrieved vector is zero in training (the others are scaled up).
        positions: `shift`, `own` or `none`; see `RetrievalAction`.
        placement: before the text, or after-bos.
        init: Of the prompts: normal (spread of the embeddings), uniform (-0.5 to 0.5), vocabulary (sampled tokens).
        languages: For `oracle`: the languages that the M prompts stand for; names that the language table knows become codes.
    """

    method: ClassVar[str] = "pool"
    size: str = "256x4"
    query: str = "mean"
    similarity: str = "cosine"
    temperature: float = 0.1
    selection: str = "soft"
    top: int = 4
    pull: float = 1.0
    stop_gradient: bool = False
    dropout: float = 0.0
    positions: Literal["shift", "own", "none"] = "shift"
    placement: Placement = "before"
    init: str = "normal"
    languages: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks every value that can be checked without a backbone."""
        if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", self.size):
            raise IsoglossError(
                f"The pool size '{self.size}' is not KEYSxLENGTH; write pool:256x4 for 256 prompts of 4 vectors."
            )
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise IsoglossError(
                    f"The pool's {name} '{getattr(self, name)}' is unknown; use one of {', '.join(choices)}."
                )
        if not self.temperature > 0:
            raise IsoglossError(f"The pool's temperature is {self.temperature}, but must be above 0.")
        if not 0 <= self.dropout < 1:
            raise IsoglossError(f"The pool's dropout is {self.dropout}, but must be at least 0 and below 1.")
        if self.pull < 0:
            raise IsoglossError(f"The pool's pull weight is {self.pull}, but must not be negative.")
        if self.selection.startswith("top") and not 1 <= self.top <= self.keys:
            raise IsoglossError(
                f"The pool selects the best {self.top} of {self.keys} prompts; choose 1 to {self.keys}."
            )
        # Texts are told by their codes: a prompt kept under another name of a language would never be chosen.
        object.__setattr__(self, "languages", tuple(resolve(name).code for name in self.languages))
        if self.languages and (self.selection != "oracle" or len(set(self.languages)) != self.keys):
            raise IsoglossError(
                f"The pool names {len(self.languages)} languages for {self.keys} prompts with selection={self.selection}; only "
                "selection=oracle names languages, one a prompt."
            )

    @property
    def keys(self) -> int:
        """M."""
        return int(self.size.split("x")[0])

    @property
    def length(self) -> int:
        """L, vectors of one prompt."""
        return int(self.size.split("x")[1])

    @property
    def inserted(self) -> int:
        """Vectors in front of a text: L, or N * L with hard selection."""
        return self.length * (self.top if self.selection == "top-hard" else 1)

    @property
    def has_keys(self) -> bool:
        """Whether texts are compared with keys; the controls have none."""
        return self.selection not in ("oracle", "random")


class PromptPool(TransferModule):
    """M prompts that texts retrieve; group `pool` with `prompts [M, L, d]` and, but for the controls, `key [M, d]`."""

    method = "pool"
    config: PoolConfig

    def __init__(
        self,
        config: PoolConfig,
        backbone: Backbone,
        generator: torch.Generator,
        *,
        tensors: nn.ParameterDict | None = None,
    ) -> None:
        super().__init__(config)
        self.side = backbone.sites.sides[0]
        _check_fit(config, backbone)
        if tensors is None:
            vectors = initial_vectors(config.init, config.keys * config.length, backbone, generator)
            made = {"prompts": nn.Parameter(vectors.view(config.keys, config.length, -1).clone())}
            if config.has_keys:
                keys = initial_vectors("normal", config.keys, backbone, generator)
                made["key"] = nn.Parameter(keys)
            tensors = nn.ParameterDict(made)
        self.groups["pool"] = tensors

    def route_of(self, language: str) -> int | None:
        """The oracle's place of a language; -1 for one that it has not, which gets the mean of all prompts."""
        if self.config.selection != "oracle":
            return None
        return self.config.languages.index(language) if language in self.config.languages else -1

    def query(self, text: PromptText) -> Tensor:
        """[B, d], what of each text is compared with the keys."""
        source = text.states if self.config.query.endswith("pass") else text.embeddings
        assert source is not None
        source = source.detach() if self.config.stop_gradient else source
        real = text.mask.unsqueeze(-1)
        if self.config.query == "max":
            # A text of which nothing may be seen has the query 0, as with the mean.
            found = source.masked_fill(~real, float("-inf")).amax(1)
            return found.masked_fill(~text.mask.any(1, keepdim=True), 0.0)
        if self.config.query == "first-pass":
            return source[torch.arange(len(source), device=source.device), text.mask.long().argmax(1)]
        return (source * real).sum(1) / real.sum(1).clamp(min=1)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Similarities over temperature [B, M]; keys [M, d], or [B, M, d] for a routed bank."""
        query = query.to(keys.dtype)
        if self.config.similarity == "cosine":
            query, keys = F.normalize(query, dim=-1), F.normalize(keys, dim=-1)
        found = query @ keys.T if keys.dim() == 2 else (keys @ query.unsqueeze(-1)).squeeze(-1)
        if self.config.similarity == "scaled":
            found = found / keys.shape[-1] ** 0.5
        return found / self.config.temperature

    def retrieve(self, text: PromptText, weights: Weights, route: Tensor | None) -> Retrieved:
        """The prompt of each text, in fp32 at least: a temperature multiplies rounding errors."""
        wide = {name: tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for name, tensor in weights.items()}
        with torch.autocast(text.embeddings.device.type, enabled=False):
            return self._retrieve(text, wide, route)

    def _retrieve(self, text: PromptText, weights: Weights, route: Tensor | None) -> Retrieved:
        config = self.config
        prompts = weights["prompts"]
        if config.has_keys:
            query, keys = self.query(text), weights["key"]
            routed = keys.dim() == 3
            scores = self.scores(query, keys)
            if config.selection == "top-hard":
                best = scores.topk(config.top, dim=1).indices
                vectors = _picked(prompts, best, routed=routed).flatten(1, 2)
                attention = torch.zeros_like(scores).scatter(1, best, 1 / config.top)
                loss = None
                if config.pull and text.training:
                    chosen = _picked(keys, best, routed=routed)
                    cosines = F.cosine_similarity(query.to(keys.dtype).unsqueeze(1), chosen, dim=-1)
                    loss = -config.pull * cosines.sum(1)
                return Retrieved(self._dropped(vectors, text), attention, loss)
            attention = _softmax_of_best(scores, config.top if config.selection == "top-soft" else None)
        elif config.selection == "oracle":
            attention = _language_attention(route, len(text.input_ids), config.keys, prompts)
        else:
            hashed = ((text.input_ids + 1) * text.mask * _HASH % 2**31).sum(1) % config.keys
            attention = F.one_hot(hashed, config.keys).to(prompts.dtype)
        pattern = "bm,mld->bld" if prompts.dim() == 3 else "bm,bmld->bld"
        return Retrieved(self._dropped(torch.einsum(pattern, attention, prompts), text), attention)

    def _dropped(self, vectors: Tensor, text: PromptText) -> Tensor:
        if not self.config.dropout or not text.training:
            return vectors
        return vectors * F.dropout(vectors.new_ones(*vectors.shape[:2], 1), self.config.dropout)

    def actions(self) -> Sequence[Action]:
        """One insertion."""
        config = self.config
        return [
            RetrievalAction(
                "pool",
                self.side,
                config.placement,
                config.inserted,
                self.retrieve,
                "states" if config.has_keys and config.query.endswith("pass") else "embeddings",
                config.stop_gradient,
                config.positions,
            )
        ]

    def behaviour(self) -> tuple[object, ...]:
        """What a bank must agree on: how values were initialised does not matter."""
        return tuple((name, value) for name, value in super().behaviour() if name != "init")


def _check_fit(config: PoolConfig, backbone: Backbone) -> None:
    if config.selection == "oracle" and not config.languages:
        raise IsoglossError(
            f"The pool with selection=oracle needs its languages, for example pool:{config.size},selection=oracle,languages=eng_Latn+deu_Latn."
        )
    if config.query == "first-pass" and config.has_keys and backbone.kind == "decoder":
        raise IsoglossError(
            f"The first state of {backbone.name}, a causal model, says nothing of the text; use query=mean-pass or mean."
        )
    if config.positions != "shift" and (backbone.kind != "encoder" or not backbone.family.takes_position_ids):
        raise IsoglossError(
            f"The pool's positions={config.positions} needs an encoder that takes position numbers, but {backbone.name} does not; "
            "use positions=shift."
        )
    if backbone.max_length is not None and config.inserted >= backbone.max_length:
        raise IsoglossError(
            f"The pool puts {config.inserted} vectors before a text, but {backbone.name} takes {backbone.max_length} tokens in "
            "all; shorten its prompts."
        )


def _picked(values: Tensor, best: Tensor, *, routed: bool) -> Tensor:
    """Rows `best` [B, N] of values [M, ...], or with `routed` of [B, M, ...]: [B, N, ...]."""
    if not routed:
        return values[best]
    return values[torch.arange(len(values), device=values.device).unsqueeze(1), best]


def _softmax_of_best(scores: Tensor, top: int | None) -> Tensor:
    if top is None:
        return scores.softmax(1)
    values, best = scores.topk(top, dim=1)
    return torch.zeros_like(scores).scatter(1, best, values.softmax(1))


def _language_attention(route: Tensor | None, batch: int, keys: int, like: Tensor) -> Tensor:
    """[B, M]: one prompt of a known language, the mean of those of several, the mean of all for an unknown one."""
    if route is None:
        return like.new_full((batch, keys), 1 / keys)
    known = (route if route.dim() == 2 else route.unsqueeze(1)).to(like.device)
    found = (F.one_hot(known.clamp(min=0), keys) * (known >= 0).unsqueeze(-1)).sum(1).to(like.dtype)
    total = found.sum(1, keepdim=True)
    return torch.where(total > 0, found / total.clamp(min=1), torch.full_like(found, 1 / keys))

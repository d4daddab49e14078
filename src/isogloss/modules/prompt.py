"""Soft prompts: trained vectors among the input embeddings.

Prompt tuning (Lester et al. 2021, https://arxiv.org/abs/2104.08691); soft language prompts (S1,
https://arxiv.org/abs/2407.02317); prompts after the text with reparameterisation (S2, https://arxiv.org/abs/2402.03782).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules.actions import Action, Placement, PromptAction, Weights
from isogloss.modules.base import ModuleConfig, TransferModule
from isogloss.modules.prompt_init import INITIALISATIONS, initial_vectors
from isogloss.modules.reparameterisation import PromptLSTM, PromptMLP

_PLACEMENTS = ("before", "after-bos", "after")


@dataclass(frozen=True)
class PromptConfig(ModuleConfig):
    """How a soft prompt is built.

    Attributes:
        length: L, number of vectors.
        init: `text` (its embeddings repeated to fill), `vocabulary` (sampled tokens), `labels` (label names, then sampled
            tokens), `normal` (the spread of the embedding matrix), `uniform` (-0.5 to 0.5), `prompt` (a saved prompt's vectors).
        text: For init=text. Tokenised with its end token, as the S1 authors did.
        source: For init=prompt. Folder of the saved prompt; its vectors are repeated or cut to `length`.
        placement: before the text, after-bos, or after it (in front of EOS).
        fixed: The first k vectors stay as initialised.
        side: encoder or decoder; "" means where the text goes in.
        reparameterisation: none, mlp or lstm; folded away when saved.
        hidden: Inner width of the reparameterisation.
        residual: Of the MLP.
        layer_norm: Of the MLP.
        train_norm: Whether that layer norm is trained (S2 left it fixed).
    """

    method: ClassVar[str] = "prompt"
    length: int = 50
    init: str = "vocabulary"
    text: str = ""
    source: str = ""
    placement: Placement = "before"
    fixed: int = 0
    side: str = ""
    reparameterisation: Literal["none", "mlp", "lstm"] = "none"
    hidden: int = 200
    residual: bool = False
    layer_norm: bool = True
    train_norm: bool = False

    def __post_init__(self) -> None:
        """Checks every value that can be checked without a backbone."""
        if self.length < 1:
            raise IsoglossError(f"The prompt length must be at least 1, but it is {self.length}.")
        if self.text and self.init == "vocabulary":
            object.__setattr__(self, "init", "text")
        if self.init not in INITIALISATIONS:
            raise IsoglossError(f"The prompt init '{self.init}' is unknown; use one of {', '.join(INITIALISATIONS)}.")
        if self.init == "text" and not self.text:
            raise IsoglossError(
                "The prompt init 'text' needs the text itself, for example prompt:50,init=text,text=\"...\"."
            )
        if self.source and self.init == "vocabulary":
            object.__setattr__(self, "init", "prompt")
        if self.init == "prompt" and not self.source:
            raise IsoglossError(
                "The prompt init 'prompt' needs the folder of a saved prompt, for example prompt:50,source=DIR."
            )
        if self.placement not in _PLACEMENTS:
            raise IsoglossError(
                f"The prompt placement '{self.placement}' is unknown; use one of {', '.join(_PLACEMENTS)}."
            )
        if not 0 <= self.fixed <= self.length:
            raise IsoglossError(f"The prompt keeps {self.fixed} vectors fixed, but it has {self.length}.")
        if self.reparameterisation not in ("none", "mlp", "lstm"):
            raise IsoglossError(
                f"The reparameterisation '{self.reparameterisation}' is unknown; use none, mlp or lstm."
            )
        if self.side not in ("", "encoder", "decoder"):
            raise IsoglossError(f"The prompt side '{self.side}' is unknown; use encoder or decoder.")


class SoftPrompt(TransferModule):
    """L vectors among the input embeddings of one side; group `prompt` with `vectors [L - fixed, d]`, `fixed [fixed, d]`."""

    method = "prompt"
    config: PromptConfig

    def __init__(
        self,
        config: PromptConfig,
        backbone: Backbone,
        generator: torch.Generator,
        *,
        labels: Sequence[str] = (),
        vectors: Tensor | None = None,
    ) -> None:
        super().__init__(config)
        side = config.side or backbone.sites.sides[0]
        if side not in backbone.sites.sides:
            raise IsoglossError(
                f"The prompt stands on the {side} side, but {backbone.name} has only {' and '.join(backbone.sites.sides)}."
            )
        if side == "decoder" and backbone.kind == "encoder-decoder" and config.placement != "before":
            raise IsoglossError("A prompt on the decoder side of an encoder-decoder can only stand before the text.")
        if backbone.max_length is not None and config.length >= backbone.max_length:
            raise IsoglossError(
                f"The prompt has {config.length} vectors, but {backbone.name} takes {backbone.max_length} tokens in all; shorten it."
            )
        self.side = side
        if vectors is None:
            vectors = initial_vectors(config.init, config.length, backbone, generator, text=config.text, labels=labels)
        if vectors.shape != (config.length, backbone.hidden_size):
            raise IsoglossError(
                f"The prompt vectors have shape {tuple(vectors.shape)}, but {(config.length, backbone.hidden_size)} is needed."
            )
        tensors = {"vectors": nn.Parameter(vectors[config.fixed :].clone())}
        if config.fixed:
            tensors["fixed"] = nn.Parameter(vectors[: config.fixed].clone(), requires_grad=False)
        self.groups["prompt"] = nn.ParameterDict(tensors)
        self.network: nn.Module | None = None
        if config.reparameterisation != "none":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
                self.network = (
                    PromptLSTM(backbone.hidden_size, config.hidden)
                    if config.reparameterisation == "lstm"
                    else PromptMLP(
                        backbone.hidden_size,
                        config.hidden,
                        residual=config.residual,
                        layer_norm=config.layer_norm,
                        train_norm=config.train_norm,
                    )
                )

    def weights(self, group: str) -> dict[str, Tensor]:
        """The tensors after reparameterisation."""
        tensors = super().weights(group)
        if self.network is not None:
            tensors["vectors"] = self.network(tensors["vectors"])
        return tensors

    def is_trained(self, group: str) -> bool:
        """Whether the vectors or the network above them have gradients on."""
        return super().is_trained(group) or (
            self.network is not None and any(p.requires_grad for p in self.network.parameters())
        )

    def requires_grad_(self, requires_grad: bool = True) -> "SoftPrompt":
        """Turns gradients on or off, and leaves off what the config keeps fixed."""
        super().requires_grad_(requires_grad)
        for name, tensor in self.weight_tensors().items():
            if name == "prompt.fixed":
                tensor.requires_grad_(False)
        if isinstance(self.network, PromptMLP) and self.network.norm is not None and not self.config.train_norm:
            self.network.norm.requires_grad_(False)
        return self

    def vectors(self, weights: Weights) -> Tensor:
        """Fixed and trained vectors in order: [L, d], or [B, L, d] for a routed bank."""
        if "fixed" not in weights:
            return weights["vectors"]
        return torch.cat((weights["fixed"], weights["vectors"]), dim=-2)

    def actions(self) -> Sequence[Action]:
        """One insertion."""
        return [PromptAction("prompt", self.side, self.config.placement, self.config.length, self.vectors)]

    def folded(self) -> TransferModule:
        """The same prompt as plain vectors, without the reparameterisation network."""
        if self.network is None:
            return self
        plain = SoftPrompt.__new__(SoftPrompt)
        TransferModule.__init__(plain, replace(self.config, reparameterisation="none"))
        with torch.no_grad():
            tensors = {
                name: nn.Parameter(tensor.clone(), requires_grad=name != "fixed")
                for name, tensor in self.weights("prompt").items()
            }
        plain.groups["prompt"] = nn.ParameterDict(tensors)
        plain.side, plain.network = self.side, None
        plain.info, plain.head, plain.head_state = self.info, self.head, self.head_state
        plain.backbone_state = self.backbone_state
        return plain

    def behaviour(self) -> tuple[object, ...]:
        """What a bank must agree on: how values were initialised does not matter."""
        return (self.side, self.config.placement, self.config.length, self.config.fixed)

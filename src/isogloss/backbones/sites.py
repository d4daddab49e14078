"""Sites: the named places of a backbone where modules act, resolved to live `nn.Module`s.

A family row (families.py) says where they are. A pre-norm model that no row covers is found by walking its module
tree: one list of `num_hidden_layers` equal blocks, followed by a norm beside it.
"""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from isogloss.backbones.families import Family, Kind
from isogloss.errors import IsoglossError

_ROLE_NAMES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o", "out_proj": "o", "query_key_value": "qkv",
    "query": "q", "key": "k", "value": "v", "gate_proj": "gate", "up_proj": "up", "down_proj": "down",
    "fc1": "up", "fc2": "down", "c_fc": "up", "qkv_proj": "qkv", "gate_up_proj": "gate_up",
}  # fmt: skip


@dataclass(frozen=True)
class BlockSite:
    """One transformer block.

    Attributes:
        block: The block itself; for pre-norm models its output is the residual stream.
        last_norm: The norm that ends a post-norm block, else None.
        attention_output: Module whose output is the attention sublayer's contribution, or None when unknown.
        ffn_output: The same for the feed-forward sublayer.
        ffn_input: Module whose input a parallel adapter reads.
        linears: Role -> linear layer.
    """

    block: nn.Module
    last_norm: nn.Module | None = None
    attention_output: nn.Module | None = None
    ffn_output: nn.Module | None = None
    ffn_input: nn.Module | None = None
    linears: dict[str, nn.Linear] = field(default_factory=dict)


@dataclass(frozen=True)
class Sites:
    """Every site of one backbone; `blocks` maps a side (`encoder`, `decoder`) to its blocks in order."""

    blocks: dict[str, tuple[BlockSite, ...]]
    final_norm: dict[str, nn.Module]
    embedding_output: nn.Module | None = None

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides that have blocks: ("encoder",), ("decoder",) or both."""
        return tuple(self.blocks)


def resolve_sites(model: nn.Module, family: Family) -> Sites:
    """Looks up every path of a family row in a live model."""
    blocks: dict[str, tuple[BlockSite, ...]] = {}
    for side, path in family.blocks.items():
        found = []
        for block in model.get_submodule(path).children():
            found.append(
                BlockSite(
                    block=block,
                    last_norm=_inside(block, family.last_norm, family, side),
                    attention_output=_inside(block, family.attention_output, family, side),
                    ffn_output=_inside(block, family.ffn_output, family, side),
                    ffn_input=_inside(block, family.ffn_input, family, side),
                    linears=_linears(block, family, side),
                )
            )
        blocks[side] = tuple(found)
    return Sites(
        blocks=blocks,
        final_norm={side: model.get_submodule(path) for side, path in family.final_norm.items()},
        embedding_output=model.get_submodule(family.embedding_output) if family.embedding_output else None,
    )


def _fill(path: str, family: Family, side: str) -> str:
    return path.replace("{ffn}", str(family.ffn_index.get(side, 0)))


def _inside(block: nn.Module, path: str | None, family: Family, side: str) -> nn.Module | None:
    return None if path is None else block.get_submodule(_fill(path, family, side))


def _linears(block: nn.Module, family: Family, side: str) -> dict[str, nn.Linear]:
    found = {}
    for role, path in family.linears.items():
        path = _fill(path, family, side)
        # Plain T5 feed-forward layers name their first matrix `wi`, gated ones `wi_0`.
        for candidate in (path, path.removesuffix("_0")):
            try:
                layer = block.get_submodule(candidate)
            except AttributeError:
                continue
            if isinstance(layer, nn.Linear):
                found[role] = layer
                break
    return found


def discover(model: Any) -> tuple[Family, Sites]:
    """Finds the sites of a pre-norm encoder or decoder that the families table does not know.

    Args:
        model: A `PreTrainedModel` with an LM head.

    Raises:
        IsoglossError: The model does not have the shape of a pre-norm transformer with one block list.
    """
    config = model.config
    depth = getattr(config, "num_hidden_layers", None)
    kind: Kind = "encoder" if type(model).__name__.endswith("ForMaskedLM") else "decoder"
    lists = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth and len({type(child) for child in module}) == 1
    ]
    if getattr(config, "is_encoder_decoder", False) or len(lists) != 1:
        raise IsoglossError(
            f"The architecture '{config.model_type}' is not in the families table and does not look like a single stack of "
            f"{depth} equal blocks ({len(lists)} such lists found); add a row to backbones/families.py (docs/adding-a-family.md)."
        )
    path, blocks = lists[0]
    parent_path = path.rpartition(".")[0]
    parent = model.get_submodule(parent_path)
    norms = [name for name, child in parent.named_children() if "norm" in type(child).__name__.lower()]
    if not norms:
        raise IsoglossError(
            f"The architecture '{config.model_type}' has no norm beside its blocks '{path}', so it is not a pre-norm model; "
            "add a row to backbones/families.py (docs/adding-a-family.md)."
        )
    side = "encoder" if kind == "encoder" else "decoder"
    family = Family(
        name=f"discovered ({config.model_type})",
        model_types=(config.model_type,),
        kind=kind,
        norm="pre",
        blocks={side: path},
        final_norm={side: f"{parent_path}.{norms[-1]}" if parent_path else norms[-1]},
        linears=_discover_linears(blocks[0]),
    )
    return family, resolve_sites(model, family)


def _discover_linears(block: nn.Module) -> dict[str, str]:
    found: dict[str, str] = {}
    for path, module in block.named_modules():
        role = _ROLE_NAMES.get(path.rpartition(".")[2])
        if role and role not in found and isinstance(module, nn.Linear):
            found[role] = path
    return found

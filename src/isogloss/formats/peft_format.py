"""PEFT checkpoints: soft prompts and LoRA, in and out.

A PEFT folder holds `adapter_config.json` (with `peft_type`) and `adapter_model.safetensors` or `.bin`. PEFT
stores a prompt of L vectors for an encoder-decoder as 2 x L rows; its encoder is given the first L, the rest
is never read.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.formats.foreign import CONFIG_FILE, ForeignInfo, imported_module, read_config, read_weights
from isogloss.modules import LowRank, LowRankConfig, PromptConfig, SoftPrompt, TransferModule
from isogloss.storage import new_folder, save_tensors, write_json

WEIGHT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
_PREFIX = "base_model.model."
_TASK_TYPES = {"encoder": "FEATURE_EXTRACTION", "decoder": "CAUSAL_LM", "encoder-decoder": "SEQ_2_SEQ_LM"}

# Options that say where a checkpoint comes from or only matter while it is trained.
_HARMLESS = frozenset(
    (
        "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version",
        "revision", "task_type", "runtime_config", "num_attention_heads", "num_layers",
        "num_transformer_submodules", "num_virtual_tokens", "token_dim", "prompt_tuning_init",
        "prompt_tuning_init_text", "tokenizer_kwargs", "tokenizer_name_or_path",
        "encoder_reparameterization_type", "encoder_hidden_size", "encoder_num_layers",
        "encoder_dropout", "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules",
        "layers_to_transform", "layers_pattern", "init_lora_weights", "loftq_config", "eva_config",
        "megatron_core", "qalora_group_size", "ensure_weight_tying",
    )
)  # fmt: skip
# These initialisations change the base model's weights, so the checkpoint fits that changed model only.
_PLAIN_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


def import_peft(folder: str | Path, backbone: Backbone) -> TransferModule:
    """Imports a PEFT prompt (prompt tuning, p-tuning) or LoRA checkpoint as a frozen module.

    Raises:
        IsoglossError: Damaged files, a method or option that is not computed here, or a tensor of no use.
    """
    place = Path(folder)
    config = read_config(place)
    for option in sorted(set(config) - _HARMLESS):
        if config[option] and not (option == "bias" and config[option] == "none"):
            raise IsoglossError(
                f"The PEFT checkpoint in '{place}' sets '{option}' to {config[option]!r}, which isogloss "
                "does not compute."
            )
    path, tensors = read_weights(place, WEIGHT_FILES)
    match config.get("peft_type"):
        case "PROMPT_TUNING" | "P_TUNING":
            return import_prompt(path, tensors, config, backbone, "PEFT")
        case "LORA":
            return _import_lora(path, tensors, config, backbone)
    raise IsoglossError(
        f"The PEFT checkpoint in '{place}' is of type '{config.get('peft_type')}'; "
        "PROMPT_TUNING, P_TUNING and LORA can be imported."
    )


def import_prompt(
    path: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    backbone: Backbone,
    library: str,
    *,
    name: str | None = None,
    language: str | None = None,
) -> TransferModule:
    """Makes a soft prompt of the one tensor `prompt_embeddings` [k L, d]; the first L rows count.

    Args:
        path: The file, for messages.
        tensors: Its content.
        config: `num_virtual_tokens` is L, `num_transformer_submodules` k (default 2 for encoder-decoders).
        backbone: Where the prompt goes; an encoder-decoder takes it on its encoder.
        library: Where the format comes from.
        name: What to call the module; None takes the folder's name.
        language: Makes it a language module.
    """
    if set(tensors) != {"prompt_embeddings"}:
        raise IsoglossError(
            f"The file '{path}' must hold the one tensor 'prompt_embeddings', but it has {sorted(tensors)}."
        )
    rows = tensors["prompt_embeddings"]
    copies = config.get("num_transformer_submodules") or (2 if backbone.kind == "encoder-decoder" else 1)
    length = config.get("num_virtual_tokens") or (rows.shape[0] // copies if rows.dim() else 0)
    if rows.shape != (copies * length, backbone.hidden_size):
        raise IsoglossError(
            f"The prompt in '{path}' has shape {tuple(rows.shape)}, but {copies} x {length} rows of width "
            f"{backbone.hidden_size} are needed for {backbone.name}."
        )
    ours = PromptConfig(length=length, init="normal", placement="before")
    info = ForeignInfo(library, name or path.parent.name, str(config.get("base_model_name_or_path") or ""), language)
    return imported_module(ours, {"prompt.vectors": rows[:length]}, backbone, path, info)


def _import_lora(
    path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], backbone: Backbone
) -> TransferModule:
    if config.get("init_lora_weights") not in _PLAIN_STARTS:
        raise IsoglossError(
            f"The checkpoint '{path}' was started with init_lora_weights={config['init_lora_weights']}, "
            "which changes the "
            "base model; convert it to a plain LoRA with PEFT first."
        )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or not isinstance(alpha, int | float) or rank < 1 or not alpha:
        raise IsoglossError(f"The file '{path.parent / CONFIG_FILE}' needs a rank 'r' and a 'lora_alpha' other than 0.")
    places = _linear_places(backbone)
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        layer, _, matrix = key.removesuffix(".weight").removeprefix(_PREFIX).rpartition(".")
        group = _group_of(layer, places)
        if group is None or matrix not in ("lora_A", "lora_B") or f"{group}.{matrix[-1].lower()}" in found:
            raise IsoglossError(
                f"The file '{path}' holds the tensor '{key}', but '{layer}' is not a linear layer of "
                f"{backbone.name} that LoRA "
                "can act on here."
            )
        found[f"{group}.{matrix[-1].lower()}"] = tensor
    groups = {name.rpartition(".")[0] for name in found}
    if not groups:
        raise IsoglossError(f"The file '{path}' holds no LoRA tensors.")
    sides = tuple(side for side in backbone.sites.sides if any(group.startswith(f"{side}_") for group in groups))
    roles = tuple(dict.fromkeys(group.split("_")[2] for group in sorted(groups)))
    ours = LowRankConfig(
        rank=rank,
        alpha=float(alpha),
        targets=roles,
        dropout=float(config.get("lora_dropout") or 0.0),
        sides=sides if len(sides) < len(backbone.sites.sides) else (),
    )
    _fill_gaps(found, groups, places, ours, sides)
    info = ForeignInfo("PEFT", path.parent.name, str(config.get("base_model_name_or_path") or ""))
    return imported_module(ours, found, backbone, path, info)


def _linear_places(backbone: Backbone) -> dict[str, tuple[str, nn.Linear]]:
    """Path in the model -> (group, layer) for every linear layer that has a role."""
    paths = {id(layer): path for path, layer in backbone.model.named_modules()}
    return {
        paths[id(layer)]: (f"{side}_{block}_{role}", layer)
        for side, blocks in backbone.sites.blocks.items()
        for block, site in enumerate(blocks)
        for role, layer in site.linears.items()
    }


def _group_of(layer: str, places: Mapping[str, tuple[str, nn.Linear]]) -> str | None:
    if layer in places:
        return places[layer][0]
    # Trained on the model without its LM head, a path lacks the head class's prefix.
    longer = [group for path, (group, _) in places.items() if path.endswith(f".{layer}")]
    return longer[0] if len(longer) == 1 else None


def _fill_gaps(
    found: dict[str, Tensor],
    groups: set[str],
    places: Mapping[str, tuple[str, nn.Linear]],
    config: LowRankConfig,
    sides: tuple[str, ...],
) -> None:
    """Layers that PEFT left alone (`layers_to_transform`) get B A = 0, which computes the same."""
    for group, layer in places.values():
        side, _, role = group.split("_")
        if side in sides and role in config.targets and group not in groups:
            found[f"{group}.a"] = torch.zeros(config.rank, layer.in_features)
            found[f"{group}.b"] = torch.zeros(layer.out_features, config.rank)


def export_peft(module: TransferModule, folder: str | Path, backbone: Backbone, *, overwrite: bool = False) -> Path:
    """Writes a prompt or LoRA module as a PEFT checkpoint that computes the same; a task head is left out.

    Args:
        module: A `prompt` placed before the text, or a `lora` module.
        folder: The folder to make.
        backbone: The one that the module was made for; PEFT names layers by their path in it.
        overwrite: Replace a folder that already holds something.

    Raises:
        IsoglossError: PEFT cannot express the module, or the folder is occupied.
    """
    if module.info.fingerprint != backbone.fingerprint:
        raise IsoglossError(
            f"The module was made for {module.info.backbone} (fingerprint {module.info.fingerprint}), "
            f"not for {backbone.name} "
            f"(fingerprint {backbone.fingerprint}); export it with its own backbone."
        )
    if module.backbone_state:
        raise IsoglossError("The module carries changed backbone weights, which a PEFT checkpoint cannot hold.")
    plain = module.folded()
    config: dict[str, Any] = {
        "base_model_name_or_path": backbone.name,
        "inference_mode": True,
        "task_type": _TASK_TYPES[backbone.kind],
    }
    if isinstance(plain, SoftPrompt):
        tensors = _prompt_rows(plain, backbone, config)
    elif isinstance(plain, LowRank):
        tensors = _lora_matrices(plain, backbone, config)
    else:
        raise IsoglossError(
            f"PEFT has no format for the method '{plain.method}'; prompt and lora modules can be exported."
        )
    with new_folder(folder, overwrite=overwrite) as temporary:
        save_tensors(temporary / WEIGHT_FILES[0], tensors, {"format": "pt"})
        write_json(temporary / CONFIG_FILE, config)
    return Path(folder)


def _prompt_rows(prompt: SoftPrompt, backbone: Backbone, config: dict[str, Any]) -> dict[str, Tensor]:
    if prompt.config.placement != "before":
        raise IsoglossError(f"PEFT puts prompts before the text, but this one has placement={prompt.config.placement}.")
    if prompt.side != backbone.sites.sides[0]:
        raise IsoglossError(f"PEFT puts prompts where the text goes in, but this one stands on the {prompt.side} side.")
    copies = 2 if backbone.kind == "encoder-decoder" else 1
    blocks = next(iter(backbone.sites.blocks.values()))
    settings = backbone.config
    heads = next(
        getattr(settings, key)
        for key in ("num_attention_heads", "num_heads", "attention_heads", "n_head")
        if getattr(settings, key, None)
    )
    config |= {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": prompt.config.length,
        "num_transformer_submodules": copies,
        "token_dim": backbone.hidden_size,
        "num_layers": len(blocks),
        "num_attention_heads": heads,
        "prompt_tuning_init": "RANDOM",
    }
    with torch.no_grad():
        vectors = prompt.vectors(prompt.weights("prompt")).float()
    return {"prompt_embeddings": vectors.repeat(copies, 1)}


def _lora_matrices(lora: LowRank, backbone: Backbone, config: dict[str, Any]) -> dict[str, Tensor]:
    ours = lora.weight_tensors()
    paths = [(path, group) for path, (group, _) in _linear_places(backbone).items() if f"{group}.a" in ours]
    config |= {
        "peft_type": "LORA",
        "r": lora.config.rank,
        "lora_alpha": lora.config.alpha,
        "lora_dropout": lora.config.dropout,
        "bias": "none",
        "fan_in_fan_out": False,
        "target_modules": sorted(path for path, _ in paths),
    }
    return {
        f"{_PREFIX}{path}.lora_{matrix.upper()}.weight": ours[f"{group}.{matrix}"].float()
        for path, group in paths
        for matrix in ("a", "b")
    }

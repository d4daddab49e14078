"""Loading a backbone: a Hub id, a local folder or a bundled name, by one path."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from isogloss.backbones.attention import use_own_attention
from isogloss.backbones.backbone import Backbone
from isogloss.backbones.bundled import bundled_folder, bundled_names
from isogloss.backbones.families import Kind, family_of
from isogloss.backbones.fingerprint import fingerprint
from isogloss.backbones.packed import load_packed
from isogloss.backbones.pool_part import load_pool
from isogloss.backbones.sites import discover, resolve_sites
from isogloss.errors import IsoglossError
from isogloss.storage import read_json

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_backbone(
    name: str | Path, *, dtype: str | torch.dtype | None = None, device: str | torch.device | None = None
) -> Backbone:
    """Loads a multilingual model with its LM head, frozen and in evaluation mode.

    Args:
        name: Hub id (`FacebookAI/xlm-roberta-base`), local folder, or a bundled one (`bundled:encoder`).
        dtype: `fp32`, `bf16` or `fp16`; None means fp32 on a CPU and bf16 on an accelerator.
        device: Where to put it; None means the first accelerator, else the CPU.

    Raises:
        IsoglossError: Nothing can be loaded under that name, the architecture does not fit, or the precision is known to fail.
    """
    import transformers
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    source = str(bundled_folder(str(name))) if str(name).startswith("bundled:") else str(name)
    place = torch.device(device) if device else _default_device()
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError, KeyError) as problem:
        raise IsoglossError(_cannot_load(str(name), problem)) from problem
    precision = _precision(dtype, place)
    family = family_of(config.model_type)
    if family is not None and not family.fp16_safe and precision is torch.float16:
        raise IsoglossError(
            f"The backbone '{name}' ({config.model_type}) overflows to NaN in fp16; use bf16 or fp32 (--dtype bf16)."
        )
    kind = family.kind if family else _kind_of(config)
    try:
        packed = load_packed(Path(source))
        if packed is None:
            model, found = _model_class(kind).from_pretrained(source, dtype=precision, output_loading_info=True)
        else:
            model, found = getattr(transformers, config.architectures[0]).from_pretrained(
                None, config=config, state_dict=packed, dtype=precision, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as problem:
        raise IsoglossError(_cannot_load(str(name), problem)) from problem
    if found["missing_keys"]:
        # transformers would fill them with other random values at every load, and the fingerprint would change with them.
        raise IsoglossError(
            f"The checkpoint '{name}' has no values for {len(found['missing_keys'])} weights of {type(model).__name__}, among "
            f"them '{min(found['missing_keys'])}'; use a checkpoint that holds the whole model with its LM head."
        )
    use_own_attention(model)
    _generate_plainly(model)
    model.eval()
    model.requires_grad_(False)
    if family is None:
        family, sites = discover(model)
    else:
        sites = resolve_sites(model, family)
    model.to(place)
    described = _card(source)
    pool = str(described.get("card", {}).get("pool") or "")
    if pool:
        load_pool(Path(source), model)
    backbone = Backbone(
        name=str(name),
        model=model,
        tokenizer=_load_tokenizer(source),
        family=family,
        sites=sites,
        fingerprint=fingerprint(model, config),
        pool=pool,
        **described,
    )
    if family.name.startswith("discovered"):
        _verify_discovered(backbone)
    return backbone


def _generate_plainly(model: Any) -> None:
    """Leaves of a checkpoint's own ways to generate (beams, penalties for repetition ...) only the token ids.

    transformers would add them to whatever is asked for, and an answer would no longer be the most likely one.
    """
    from transformers import GenerationConfig

    own = getattr(model, "generation_config", None)
    if own is not None:
        names = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")
        model.generation_config = GenerationConfig(**{name: getattr(own, name) for name in names})


def _default_device() -> torch.device:
    return torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")


def _precision(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype not in _DTYPES:
        raise IsoglossError(f"The precision '{dtype}' is unknown; use one of {', '.join(_DTYPES)}.")
    return _DTYPES[dtype]


def _kind_of(config: Any) -> Kind:
    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    names = " ".join(config.architectures or ())
    return "encoder" if "ForMaskedLM" in names else "decoder"


def _model_class(kind: Kind) -> Any:
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    return {
        "encoder": AutoModelForMaskedLM,
        "decoder": AutoModelForCausalLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[kind]


def _load_tokenizer(source: str) -> Any:
    from transformers import AutoTokenizer

    folder = Path(source)
    if folder.is_dir() and not any(folder.glob("*token*")) and not any(folder.glob("*.model")):
        return None
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError) as problem:
        raise IsoglossError(
            f"The tokenizer of '{source}' cannot be loaded ({_first_line(problem)}); check its tokenizer files."
        ) from problem


def _card(source: str) -> dict[str, Any]:
    path = Path(source) / "isogloss.json"
    if not path.is_file():
        return {}
    card = read_json(path)
    return {"card": card, "languages": tuple(card.get("languages", ()))}


def _cannot_load(name: str, problem: Exception) -> str:
    if Path(name).exists():
        return f"The folder '{name}' does not hold a model that transformers can load ({_first_line(problem)})."
    return (
        f"No backbone can be loaded as '{name}': give a Hub id that can be reached, a folder with config.json, "
        f"or one of {', '.join(bundled_names())} ({_first_line(problem)})."
    )


def _first_line(problem: Exception) -> str:
    return (str(problem).strip().splitlines() or [type(problem).__name__])[0].rstrip(".")


def _verify_discovered(backbone: Backbone) -> None:
    """Compares the model's own logits with ours on four tokens, so that a misfit is refused and never used."""
    ids = torch.arange(4, device=backbone.device).unsqueeze(0) % backbone.vocabulary_size
    with torch.no_grad():
        expected = backbone.model(input_ids=ids).logits
        hidden = backbone.body(inputs_embeds=backbone.embed(ids)).last_hidden_state
        found = backbone.head_input(hidden) @ backbone.head_weight.T
        if backbone.head_bias is not None:
            found = found + backbone.head_bias
        cap = backbone.logit_softcap
        found = cap * torch.tanh(found / cap) if cap else found
    tolerance = 1e-3 if backbone.dtype is torch.float32 else 0.1
    if expected.shape != found.shape or not torch.allclose(expected, found, atol=tolerance, rtol=tolerance):
        raise IsoglossError(
            f"The architecture '{backbone.config.model_type}' was found by walking its modules, but its LM head computes more than "
            "a matrix product, so scores would be wrong; add a row to backbones/families.py (docs/adding-a-family.md)."
        )

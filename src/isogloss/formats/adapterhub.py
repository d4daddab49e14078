"""Bottleneck and invertible adapters as the AdapterHub libraries save them (`adapters` and its ancestor).

A folder with `adapter_config.json` and `adapter.safetensors` or `pytorch_adapter.bin`. What the options mean
is papers.md 1.2 and 5.1; an option that isogloss does not compute is refused by name, never ignored.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from isogloss.backbones import Backbone
from isogloss.backbones.families import family_of
from isogloss.errors import IsoglossError
from isogloss.formats.foreign import (
    CONFIG_FILE,
    ForeignInfo,
    as_language,
    imported_module,
    read_config,
    read_weights,
)
from isogloss.modules import BottleneckConfig, TransferModule

WEIGHT_FILES = ("adapter.safetensors", "pytorch_adapter.bin")

# Defaults of the library for what a config file leaves out.
_DEFAULTS: dict[str, Any] = {
    "mh_adapter": False,
    "output_adapter": True,
    "original_ln_before": False,
    "original_ln_after": True,
    "residual_before_ln": True,
    "is_parallel": False,
    "reduction_factor": 16,
    "non_linearity": "relu",
    "scaling": 1.0,
    "dropout": 0.0,
    "leave_out": [],
    "inv_adapter": None,
    "inv_adapter_reduction_factor": None,
}
_SEQ: dict[str, Any] = {"original_ln_before": True}
_DOUBLE: dict[str, Any] = {"mh_adapter": True, "non_linearity": "swish"}
_PAR: dict[str, Any] = {"is_parallel": True, "reduction_factor": 2, "scaling": 4.0}
_NICE: dict[str, Any] = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
_NAMED: dict[str, dict[str, Any]] = {
    "seq_bn": _SEQ,
    "pfeiffer": _SEQ,
    "seq_bn_inv": _SEQ | _NICE,
    "pfeiffer+inv": _SEQ | _NICE,
    "double_seq_bn": _DOUBLE,
    "houlsby": _DOUBLE,
    "double_seq_bn_inv": _DOUBLE | _NICE,
    "houlsby+inv": _DOUBLE | _NICE,
    "par_bn": _PAR,
    "parallel": _PAR,
    "scaled_par_bn": _PAR | {"scaling": "learned"},
    "scaled_parallel": _PAR | {"scaling": "learned"},
}
# Switches that change what is computed and that isogloss does not have.
_REFUSED = (
    "phm_layer",
    "ln_before",
    "ln_after",
    "use_gating",
    "cross_adapter",
    "stochastic_depth",
    "new_attention_norm",
)

_LEGACY = (
    ("attention_text_task_adapters", "adapters"),
    ("attention_text_lang_adapters", "adapters"),
    ("layer_text_task_adapters", "adapters"),
    ("layer_text_lang_adapters", "adapters"),
    ("invertible_lang_adapters", "invertible_adapters"),
)
_BLOCK_TENSOR = re.compile(
    r"(?P<where>.+)\.adapters\.(?P<name>[^.]+)\.(?P<tensor>adapter_down\.0\.(?:weight|bias)|adapter_up\.(?:weight|bias)|scaling)"
)
_COUPLING_TENSOR = re.compile(
    r"(?:.+\.)?invertible_adapters\.(?P<name>[^.]+)\.(?P<net>[FG])\.(?P<layer>[02])\.(?P<kind>weight|bias)"
)
_TENSORS = {
    "adapter_down.0.weight": "down_weight",
    "adapter_down.0.bias": "down_bias",
    "adapter_up.weight": "up_weight",
    "adapter_up.bias": "up_bias",
    "scaling": "scale",
}
# Family -> where its adapters hang. Groups: side (when the layout has two), block, place.
_LAYOUTS = {
    "BERT": re.compile(r"(?:.+\.)?encoder\.layer\.(?P<block>\d+)\.(?P<place>attention\.output|output)"),
    "T5": re.compile(r"(?:.+\.)?(?P<side>encoder|decoder)\.block\.(?P<block>\d+)\.layer\.(?P<place>\d)"),
    "Llama": re.compile(r"(?:.+\.)?layers\.(?P<block>\d+)\.(?P<place>attention_adapters|output_adapters)"),
}
_LAYOUT_OF = {"BERT": "BERT", "XLM-R": "BERT", "mT5 / mT0": "T5", "Llama": "Llama"}
_POINT = {"seq_bn": "stream", "double_seq_bn": "ffn", "par_bn": "parallel"}


def import_adapterhub(folder: str | Path, backbone: Backbone) -> TransferModule:
    """Imports one adapter that AdapterHub's libraries saved.

    Args:
        folder: Holds `adapter_config.json` and the weights.
        backbone: The model that the adapter was trained on; its shape is checked, its name is not.

    Returns:
        A frozen `adapter` module. It is a language module when it is a language adapter by type or has an
        invertible part and its name is a language, else a task module.

    Raises:
        IsoglossError: Damaged files, an adapter for another architecture, an option that is not computed
            here, or a tensor finds no use or is missing.
    """
    place = Path(folder)
    description = read_config(place)
    options = _options(place, description)
    _check_backbone(place, description, backbone)
    path, tensors = read_weights(place, WEIGHT_FILES)
    variant = _variant(place, options)
    named = _named_tensors(path, tensors, backbone, variant)
    coupled = any(name.startswith("invertible.") for name in named)
    if options["inv_adapter"] and not coupled and description.get("type") != "text_task":
        raise IsoglossError(
            f"The adapter in '{place}' has an invertible part by its config, but '{path.name}' lacks it."
        )
    model_class = str(description.get("model_class") or "")
    config = _config(place, options, variant, named, backbone, coupled=coupled, model_class=model_class)
    name = str(description.get("name") or place.name)
    language = as_language(name) if coupled or description.get("type") == "text_lang" else None
    trained_on = str(description.get("model_name") or description.get("model") or model_class)
    return imported_module(config, named, backbone, path, ForeignInfo("AdapterHub", name, trained_on, language))


def _options(place: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    config = description.get("config")
    source = place / CONFIG_FILE
    if isinstance(config, str):
        if config not in _NAMED:
            raise IsoglossError(
                f"The file '{source}' names the configuration '{config}', which is not one of {', '.join(_NAMED)}."
            )
        config = _NAMED[config]
    if not isinstance(config, Mapping):
        raise IsoglossError(f"The file '{source}' has no 'config' of an adapter.")
    if config.get("architecture"):
        raise IsoglossError(
            f"The adapter in '{place}' has the architecture '{config['architecture']}', which is not imported."
        )
    for option in _REFUSED:
        if config.get(option):
            raise IsoglossError(
                f"The adapter in '{place}' uses the option '{option}', which isogloss does not compute."
            )
    options = _DEFAULTS | dict(config)
    # Before version 2 the invertible part was described by a mapping of its own.
    coupling = config.get("invertible_adapter") or options["inv_adapter"]
    if isinstance(coupling, Mapping):
        options["inv_adapter"] = coupling.get("block_type")
        options["inv_adapter_reduction_factor"] = coupling.get("reduction_factor")
        options["inv_non_linearity"] = coupling.get("non_linearity")
    if options["inv_adapter"] not in (None, "nice"):
        raise IsoglossError(
            f"The adapter in '{place}' has the invertible kind '{options['inv_adapter']}'; only nice is computed."
        )
    return options


def _check_backbone(place: Path, description: Mapping[str, Any], backbone: Backbone) -> None:
    width, kind = description.get("hidden_size"), description.get("model_type")
    if width is not None and width != backbone.hidden_size:
        raise IsoglossError(
            f"The adapter in '{place}' was trained on a model of width {width}, but {backbone.name} has "
            f"{backbone.hidden_size}."
        )
    if kind is not None and family_of(str(kind)) is not family_of(str(backbone.config.model_type)):
        raise IsoglossError(
            f"The adapter in '{place}' was trained on a model of type '{kind}', but {backbone.name} is "
            f"'{backbone.config.model_type}'."
        )


def _variant(place: Path, options: Mapping[str, Any]) -> str:
    def demand(option: str, value: Any) -> None:
        if options[option] != value:
            raise IsoglossError(
                f"The adapter in '{place}' has {option}={options[option]}, which isogloss does not "
                f"compute for this kind ({value})."
            )

    demand("output_adapter", True)
    demand("original_ln_after", True)
    if options["is_parallel"]:
        demand("mh_adapter", False)
        return "par_bn"
    demand("original_ln_before", not options["mh_adapter"])
    if options["mh_adapter"]:
        return "double_seq_bn"
    demand("residual_before_ln", True)
    return "seq_bn"


def _named_tensors(path: Path, tensors: Mapping[str, Tensor], backbone: Backbone, variant: str) -> dict[str, Tensor]:
    """Our names for the file's tensors; each file tensor is used once or refused."""
    layout = _LAYOUT_OF.get(backbone.family.name)
    if layout is None:
        raise IsoglossError(
            f"AdapterHub adapters for the family '{backbone.family.name}' ({backbone.name}) cannot be imported."
        )
    found: dict[str, Tensor] = {}
    owner = ""
    for original, tensor in tensors.items():
        key = original
        for old, new in _LEGACY:
            key = key.replace(old, new)
        coupling, block = _COUPLING_TENSOR.fullmatch(key), _BLOCK_TENSOR.fullmatch(key)
        match = coupling or block
        if match and (owner := owner or match["name"]) != match["name"]:
            raise IsoglossError(
                f"The file '{path}' holds several adapters ({owner}, {match['name']}); save them one by one."
            )
        ours = None
        if coupling:
            step = "down" if coupling["layer"] == "0" else "up"
            ours = f"invertible.{coupling['net'].lower()}_{step}_{coupling['kind']}"
        elif block:
            where = _LAYOUTS[layout].fullmatch(block["where"])
            group = where and _group(where, backbone, variant)
            ours = group and f"{group}.{_TENSORS[block['tensor']]}"
        if not ours or ours in found:
            raise IsoglossError(
                f"The file '{path}' holds the tensor '{original}', which isogloss has no use for on {backbone.name}."
            )
        found[ours] = tensor
    return found


def _group(where: re.Match[str], backbone: Backbone, variant: str) -> str | None:
    side = where.groupdict().get("side") or backbone.sites.sides[0]
    place = where["place"]
    if place.isdigit():
        output, attention = int(place) == backbone.family.ffn_index[side], place == "0"
    else:
        output, attention = (
            place in ("output", "output_adapters"),
            place in ("attention.output", "attention_adapters"),
        )
    if output:
        return f"{side}_{where['block']}_{_POINT[variant]}"
    return f"{side}_{where['block']}_attention" if attention else None


def _config(
    place: Path,
    options: Mapping[str, Any],
    variant: str,
    named: Mapping[str, Tensor],
    backbone: Backbone,
    *,
    coupled: bool,
    model_class: str,
) -> BottleneckConfig:
    scaling = options["scaling"]
    learned = scaling == "learned"
    if not learned and (isinstance(scaling, str) or not scaling):
        raise IsoglossError(
            f"The adapter in '{place}' has scaling={scaling}; a number other than 0, or 'learned', is computed."
        )
    coupling = _coupling_options(place, model_class, options) if coupled else {}
    down = next(
        (tensor for name, tensor in named.items() if name.endswith("down_weight") and "invertible" not in name),
        None,
    )
    if down is None:
        raise IsoglossError(f"The adapter in '{place}' has no bottleneck in any block, so there is nothing to import.")
    half = backbone.hidden_size // 2
    inner = named["invertible.f_down_weight"].shape[0] if "invertible.f_down_weight" in named else half // 2
    return BottleneckConfig(
        reduction=_reduction(backbone.hidden_size, down.shape[0], _one_factor(place, options["reduction_factor"])),
        variant=variant,  # type: ignore[arg-type]
        nonlinearity=str(options["non_linearity"]).lower(),
        scaling=1.0 if learned else float(scaling),
        learned_scaling=learned,
        dropout=float(options["dropout"]),
        leave_out=tuple(sorted(int(block) for block in options["leave_out"])),
        invertible=coupled,
        invertible_reduction=round(half / inner),
        **coupling,
    )


def _coupling_options(place: Path, model_class: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """How the invertible part computes.

    The libraries invert it only in heads of their own (`BertAdapterModel`, and everything before version 3,
    which names no class); a `transformers` class such as `BertForMaskedLM` goes without the inverse there.
    """
    nonlinearity = str(options.get("inv_non_linearity") or options["non_linearity"]).lower()
    wanted = {
        "invertible_nonlinearity": nonlinearity,
        "invertible_inverse": not model_class or model_class.endswith(("AdapterModel", "WithHeads")),
    }
    known = {item.name for item in dataclasses.fields(BottleneckConfig)}
    if "invertible_nonlinearity" not in known and nonlinearity != "relu":
        raise IsoglossError(
            f"The adapter in '{place}' has an invertible part with the nonlinearity '{nonlinearity}'; "
            "only relu is computed."
        )
    return {key: value for key, value in wanted.items() if key in known}


def _one_factor(place: Path, factor: Any) -> float:
    values = set(factor.values()) if isinstance(factor, Mapping) else {factor}
    if len(values) != 1:
        raise IsoglossError(
            f"The adapter in '{place}' has several values of 'reduction_factor' ({factor}); one for all is computed."
        )
    return float(values.pop())


def _reduction(width: int, bottleneck: int, stated: float) -> float:
    """The stated factor when it gives the width that the tensors have, else the factor that does."""
    return stated if max(1, int(width / stated)) == bottleneck else width / bottleneck

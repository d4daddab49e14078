"""Module specs (`adapter:16,invertible=true`) and the list of methods."""

import dataclasses
import difflib
import re
import typing
from collections.abc import Mapping
from typing import Any

import torch

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules.base import ModuleConfig, TransferModule
from isogloss.modules.bottleneck import BottleneckAdapter, BottleneckConfig
from isogloss.modules.invertible import InvertibleAdapter, InvertibleConfig
from isogloss.modules.low_rank import LowRank, LowRankConfig
from isogloss.modules.none import NoModule, NoneConfig
from isogloss.modules.pool import PoolConfig, PromptPool
from isogloss.modules.prompt import PromptConfig, SoftPrompt

# One line a method: name, config, module, and the config field that the number after the colon sets.
METHODS: dict[str, tuple[type[ModuleConfig], type[TransferModule], str | None]] = {
    "adapter": (BottleneckConfig, BottleneckAdapter, "reduction"),
    "invertible": (InvertibleConfig, InvertibleAdapter, "reduction"),
    "prompt": (PromptConfig, SoftPrompt, "length"),
    "lora": (LowRankConfig, LowRank, "rank"),
    "pool": (PoolConfig, PromptPool, "size"),
    "none": (NoneConfig, NoModule, None),
}


def create_module(config: ModuleConfig, backbone: Backbone, *, seed: int = 0, **extra: Any) -> TransferModule:
    """Builds a fresh module for a backbone.

    Args:
        config: From `parse_module`, or made directly.
        backbone: Where it will act.
        seed: Of its initial values.
        **extra: What a method takes besides (`labels`, `vectors` for prompts).
    """
    generator = torch.Generator().manual_seed(seed)
    module_class = typing.cast(Any, METHODS[config.method][1])
    module = module_class(config, backbone, generator, **extra)
    module.info.backbone, module.info.fingerprint = backbone.name, backbone.fingerprint
    return typing.cast(TransferModule, module.to(backbone.device))


def parse_module(spec: str) -> ModuleConfig:
    """Reads a module spec: a method, its size after a colon, options after commas.

    Examples:
        >>> parse_module("prompt:50").length
        50
        >>> parse_module("adapter:16,variant=double_seq_bn").nonlinearity
        'swish'

    Raises:
        IsoglossError: Quotes the spec and names what is wrong with it.
    """
    head, *options = _split(spec)
    method, _, size = head.partition(":")
    method, size = method.strip(), size.strip()
    if method not in METHODS:
        raise IsoglossError(
            f"The module spec '{spec}' names the method '{method}'; the methods are {', '.join(METHODS)}."
        )
    config_class, _, size_field = METHODS[method]
    values: dict[str, Any] = {}
    if size:
        if size_field is None:
            raise IsoglossError(f"The module spec '{spec}' gives a size, but '{method}' has none.")
        values[size_field] = _convert(spec, config_class, size_field, size)
    for option in options:
        key, equals, value = option.partition("=")
        key = key.strip()
        if not equals:
            raise IsoglossError(f"The module spec '{spec}' has '{option}' where an option like key=value belongs.")
        values[key] = _convert(spec, config_class, key, value.strip())
    return config_class(**values)


def format_module(config: ModuleConfig) -> str:
    """Writes a config as the shortest spec that reads back to it."""
    config_class, _, size_field = METHODS[config.method]
    values = {item.name: getattr(config, item.name) for item in dataclasses.fields(config)}
    # Usual values depend on one another (alpha on the rank, the nonlinearity on the variant), so each option is left out
    # only if what is left still means the same.
    for name in list(values):
        left = {key: value for key, value in values.items() if key != name}
        if name != size_field and _means(config_class, left, config):
            values = left
    spec = config.method + (f":{_plain_number(values.pop(size_field))}" if size_field else "")
    return ",".join([spec, *(f"{name}={_write(value)}" for name, value in values.items())])


def _means(config_class: type[ModuleConfig], values: Mapping[str, Any], config: ModuleConfig) -> bool:
    try:
        return config_class(**values) == config
    except IsoglossError:
        return False


def config_from_dict(method: str, values: Mapping[str, Any]) -> ModuleConfig:
    """Rebuilds a config from the JSON of a saved module.

    Raises:
        IsoglossError: Unknown method or key.
    """
    if method not in METHODS:
        raise IsoglossError(f"The module's method '{method}' is unknown here; this version has {', '.join(METHODS)}.")
    config_class = METHODS[method][0]
    names = {item.name for item in dataclasses.fields(config_class)}
    unknown = set(values) - names
    if unknown:
        raise IsoglossError(
            f"The module's config has the unknown key '{sorted(unknown)[0]}'; a newer isogloss may have saved it."
        )
    return config_class(**{key: tuple(value) if isinstance(value, list) else value for key, value in values.items()})


def _split(spec: str) -> list[str]:
    """Splits at commas outside double quotes; within them a backslash stands before a quote that is meant."""
    parts, current, quoted, escaped = [], "", False, False
    for character in spec:
        if character == '"' and not escaped:
            quoted = not quoted
        escaped = quoted and character == "\\" and not escaped
        if character == "," and not quoted:
            parts.append(current)
            current = ""
        else:
            current += character
    if quoted:
        raise IsoglossError(f"The module spec '{spec}' opens a quotation mark and does not close it.")
    return [*parts, current]


def _convert(spec: str, config_class: type[ModuleConfig], key: str, text: str) -> Any:
    types = typing.get_type_hints(config_class)
    names = [item.name for item in dataclasses.fields(config_class)]
    if key not in names:
        near = difflib.get_close_matches(key, names, n=1)
        hint = f"did you mean '{near[0]}'" if near else f"the options are {', '.join(names)}"
        raise IsoglossError(f"The module spec '{spec}' has the unknown option '{key}'; {hint}.")
    if len(text) > 1 and text[0] == text[-1] == '"':
        text = re.sub(r"\\(.)", r"\1", text[1:-1], flags=re.DOTALL)
    kind = types[key]
    try:
        if kind is bool:
            return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}[text.lower()]
        if kind is int:
            return int(text)
        if kind is float:
            return float(text)
        if typing.get_origin(kind) is tuple:
            inner = typing.get_args(kind)[0]
            return tuple(inner(part) for part in text.replace("+", " ").split())
    except (KeyError, ValueError) as problem:
        wanted = getattr(kind, "__name__", str(kind))
        raise IsoglossError(
            f"The module spec '{spec}' sets '{key}' to '{text}', which is not of type {wanted}."
        ) from problem
    return text


def _plain_number(value: float | str) -> str:
    return str(int(value)) if not isinstance(value, str) and float(value).is_integer() else str(value)


def _write(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "+".join(str(item) for item in value)
    text = str(value)
    if text and not any(mark in text for mark in ',="\\') and text.split() == [text]:
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""A new prompt pool for a backbone that is about to be trained with it."""

from collections.abc import Sequence
from dataclasses import replace

from isogloss.backbones import Backbone
from isogloss.backbones.pool_part import attach_pool
from isogloss.errors import IsoglossError
from isogloss.modules import ModuleConfig, PoolConfig, create_module, format_module, parse_module


def pool_config(spec: str) -> PoolConfig:
    """Reads a pool's spec.

    Raises:
        IsoglossError: It is another module's.
    """
    config = parse_module(spec)
    if not isinstance(config, PoolConfig):
        raise IsoglossError(f"The spec '{spec}' is not a prompt pool; write pool:256x4 with options.")
    return config


def told_languages(config: ModuleConfig, codes: Sequence[str]) -> ModuleConfig:
    """The config with the training's languages filled in, one prompt each, where an oracle names none."""
    if isinstance(config, PoolConfig) and config.selection == "oracle" and not config.languages:
        return replace(config, size=f"{len(codes)}x{config.length}", languages=tuple(codes))
    return config


def add_pool(backbone: Backbone, spec: str, codes: Sequence[str], seed: int) -> None:
    """Gives a backbone a fresh pool, which trains with it from now on.

    Raises:
        IsoglossError: It has one already.
    """
    if backbone.pool:
        raise IsoglossError(
            f"{backbone.name} was trained with {backbone.pool} already; leave 'pool' out to go on with that one."
        )
    config = told_languages(pool_config(spec), codes)
    attach_pool(backbone.model, create_module(config, backbone, seed=seed).weights("pool"))
    backbone.pool = format_module(config)

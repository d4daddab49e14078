"""Claiming an output folder before long work, and putting the result in it at the end."""

from pathlib import Path

from isogloss.errors import IsoglossError
from isogloss.formats import save_module
from isogloss.modules import TransferModule
from isogloss.training._processes import writes
from isogloss.training.checkpoint import discard_checkpoints, has_checkpoint

_OURS = {".checkpoint"}


def claim_output(folder: str | Path, *, overwrite: bool = False) -> Path:
    """Returns the folder when training may write there: it is absent, empty, or holds an unfinished run to continue.

    What a run under `overwrite` was to replace stays until its end, so beside checkpoints it is no reason to refuse: else such a
    run could not be continued once it was stopped.

    Args:
        folder: The `--out` of a training command.
        overwrite: Whatever is there may be replaced; an unfinished run is started anew.

    Raises:
        IsoglossError: It holds something else.
    """
    target = Path(folder)
    if target.is_file():
        raise IsoglossError(f"The output '{target}' is a file; name a folder that does not exist yet.")
    if not target.is_dir():
        return target
    if overwrite:
        discard_checkpoints(target)
        return target
    others = sorted(item.name for item in target.iterdir() if item.name not in _OURS)
    if others and not has_checkpoint(target):
        raise IsoglossError(
            f"The output folder '{target}' already holds '{others[0]}'; choose another one, or replace it with --overwrite."
        )
    return target


def save_output(module: TransferModule, target: Path) -> None:
    """Puts a trained module in its claimed folder; of several processes the main one does."""
    if writes():
        save_module(module, target, overwrite=True)

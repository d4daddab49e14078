"""`isogloss evaluate --task retrieval`: nothing is trained for it, so it takes language modules only, or none."""

from collections.abc import Mapping, Sequence
from typing import Any

from isogloss.cli._console import counted, say
from isogloss.cli._inputs import check_backbone_name, check_device, open_backbone, split_list
from isogloss.errors import IsoglossError


def evaluate_retrieval(
    data: str,
    targets: Sequence[str],
    modules: Sequence[str],
    *,
    backbone: str | None,
    fields: Mapping[str, str],
    split: str,
    missing: str,
    bad_rows: str,
    limit: int | None,
    tokens_per_batch: int | None,
    layer: int | None,
    scoring: str,
    dtype: str | None,
    device: str | None,
    threads: int | None,
) -> dict[str, Any]:
    """Checks everything that needs no model, then scores; see `training.retrieval.evaluate_retrieval`.

    Args:
        data: As `--data`.
        targets: Codes.
        modules: Folders, commas and all; language modules of one backbone.
        backbone: None when the modules say it.
        fields: Columns that the user named.
        split: Of the data.
        missing: As `--missing`.
        bad_rows: As `--bad-rows`.
        limit: Rows of a language.
        tokens_per_batch: Of the mixed-language batches.
        layer: Block whose states are pooled; None is the last.
        scoring: cosine or margin.
        dtype: Of the backbone.
        device: Of the backbone.
        threads: On a CPU.

    Raises:
        IsoglossError: Whatever the user can get wrong.
    """
    from isogloss.tasks import get_task, read
    from isogloss.tasks.reading import PIVOT

    task = get_task("retrieval", dict(fields))
    folders = split_list(modules)
    codes, trained_on = _language_parts(folders)
    name = backbone or trained_on
    if name is None:
        raise IsoglossError("--backbone is missing: without modules, retrieval cannot know which one is meant.")
    for code in targets:
        read(data, code, split, task, limit=1, bad_rows=bad_rows)  # type: ignore[arg-type]
    lacking = [code for code in dict.fromkeys([*targets, PIVOT]) if code not in codes]
    if codes and lacking and missing == "error":
        raise IsoglossError(
            f"--modules: there is no language module for {', '.join(lacking)} among those given ({', '.join(codes)}; "
            "English sentences need one too); add theirs, or go without them by --missing none."
        )
    check_backbone_name(name)
    check_device(device, threads)

    from isogloss.training.evaluation import load_parts
    from isogloss.training.retrieval import evaluate_retrieval as call

    loaded = open_backbone(name, dtype, device)
    _, languages = load_parts(folders, loaded)
    say(f"retrieval on {counted(len(targets), 'language')} with {loaded.name} ({loaded.kind}) on {loaded.device}")
    result = call(
        loaded,
        languages,
        data,
        targets,
        split=split,
        limit=limit,
        missing=missing,  # type: ignore[arg-type]
        bad_rows=bad_rows,
        task=task,
        tokens_per_batch=tokens_per_batch,
        layer=layer,
        scoring=scoring,
    )
    return {**result, "backbone": loaded.name, "data": data, "language_modules": sorted(codes)}


def _language_parts(folders: Sequence[str]) -> tuple[list[str], str | None]:
    """Codes of the language modules, and the backbone that they were trained on."""
    from isogloss.formats import read_info

    found: dict[str, Any] = {}
    shared: list[Any] = []
    for folder in folders:
        saved = read_info(folder)
        code = saved.info.language
        if saved.info.role == "shared":
            shared.append(saved)
            continue
        if saved.info.role == "task" or not code:
            kind = "a task module" if saved.info.role == "task" else "a module of no named language"
            raise IsoglossError(
                f"--modules {folder}: this is {kind}, but retrieval compares sentence vectors and needs no task; give "
                "language modules, or none."
            )
        if code in found:
            raise IsoglossError(
                f"--modules: '{found[code].folder}' and '{saved.folder}' are both for {code}; give one of them."
            )
        found[code] = saved
    backbones = {saved.info.fingerprint: saved.info.backbone for saved in [*found.values(), *shared]}
    if len(backbones) > 1:
        names = " and ".join(f"{name} (fingerprint {mark})" for mark, name in backbones.items())
        raise IsoglossError(f"--modules: they were trained on {names}; give modules of one backbone.")
    return list(found), next(iter(backbones.values()), None)

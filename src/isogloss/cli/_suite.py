"""`isogloss evaluate --suite xtreme`: the suite's tasks, trained on English and scored in all languages."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isogloss.cli._console import number, print_json, print_table, print_text, say
from isogloss.cli._inputs import check_backbone_name, check_device, one_of, open_backbone, split_list
from isogloss.errors import IsoglossError


def evaluate_suite(
    suite: str,
    data: str,
    modules: Sequence[str],
    *,
    backbone: str | None,
    tasks: Sequence[str],
    out: Path | None,
    options: Mapping[str, Any],
    dtype: str | None,
    device: str | None,
    threads: int | None,
    json: bool,
) -> None:
    """Checks everything that needs no model, runs the suite, and prints its tables.

    Args:
        suite: Its name.
        data: Folder with one folder a task, or `hub:xtreme`, which is written to `OUT/data` first.
        modules: At most one module for every language, which stays frozen beneath all tasks.
        backbone: None when the module says it.
        tasks: Some tasks, or none for all that have data.
        out: Where modules and scores go.
        options: Fields of `SuiteOptions`.
        dtype: Of the backbone.
        device: Of the backbone.
        threads: On a CPU.
        json: Print JSON.

    Raises:
        IsoglossError: Whatever the user can get wrong.
    """
    one_of(suite, "--suite", ("xtreme",))
    from isogloss.formats import load_module, read_info
    from isogloss.modules import parse_module
    from isogloss.training.xtreme import HUB_SUITE, SUITE, SuiteOptions, fetch_suite, find_data, run_suite

    chosen = SuiteOptions(**options)
    parse_module(chosen.module)
    one_of(chosen.precision, "--precision", ("fp32", "bf16"))
    folders = split_list(modules)
    if len(folders) > 1:
        raise IsoglossError(
            "--modules: the suite takes one module that serves every language at most (a prompt pool, say)."
        )
    beneath = read_info(folders[0]) if folders else None
    if beneath is not None and beneath.info.role != "shared":
        raise IsoglossError(
            f"--modules {folders[0]}: this module stands for one {beneath.info.role}; the suite takes one that serves every language."
        )
    name = backbone or (beneath.info.backbone if beneath is not None else None)
    if name is None:
        raise IsoglossError("--backbone is missing: the suite needs to know what to train.")
    if out is None:
        raise IsoglossError("--out is missing: name a folder for modules and scores.")
    check_backbone_name(name)
    check_device(device, threads)
    if data == HUB_SUITE:
        data = str(fetch_suite(out / "data", tasks, tell=say))
    found = find_data(data, tasks)
    # What is trained must be in fp32, whatever a GPU's backbone is usually kept in.
    loaded = open_backbone(name, dtype or ("fp32" if chosen.train == "all" else None), device)
    left = [task for task in SUITE if task not in found]
    say(f"{', '.join(found)}; no data for {', '.join(left)}" if left else ", ".join(found))
    result = run_suite(
        loaded,
        data,
        out,
        chosen,
        names=list(found),
        shared=load_module(folders[0], loaded) if folders else None,
        tell=say,
        progress=True,
    )
    if json:
        print_json(result)
        return
    show(result)


def show(result: Mapping[str, Any]) -> None:
    """Prints the suite's averages."""
    from isogloss.training.xtreme import SUITE

    rows = []
    for name, found in result["tasks"].items():
        metrics = ", ".join(f"{metric} {number(value)}" for metric, value in found["metrics"].items())
        rows.append(
            (
                name,
                number(found["score"]),
                metrics,
                len(found["languages"]),
                len(SUITE[name].languages),
                number(found["zero_shot"]),
            )
        )
    print_table(
        ("task", "score", "metrics", "languages", "of", "without English"),
        rows,
        title=f"XTREME-style suite with {result['backbone']}, in percent",
        right=(1, 3, 4, 5),
        keep=(0,),
        footer=("average", number(result["average"]), "", "", "", ""),
    )
    names = list(dict.fromkeys(group for found in result["tasks"].values() for group in found["groups"]))
    # Groups down the side: nine tasks fit across a narrow terminal, nine names of groups do not.
    print_table(
        ("group", *result["tasks"]),
        [(group, *(number(found["groups"].get(group)) for found in result["tasks"].values())) for group in names],
        title="Means over groups of languages",
        right=range(1, len(result["tasks"]) + 1),
        keep=range(1, len(result["tasks"]) + 1),
    )
    for name, found in result["tasks"].items():
        for text in found["departures"]:
            print_text(f"{name}: {text}")
    for text in result["left_out"].values():
        print_text(text)
    if not result["complete"]:
        print_text("Not XTREME's own average: tasks, languages or test rows are missing.")

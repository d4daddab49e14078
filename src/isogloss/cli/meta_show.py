"""`isogloss meta show`: what a rule or a start has learned."""

from pathlib import Path
from typing import Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import number, print_facts, print_json, print_table, print_text
from isogloss.cli._inputs import language_name
from isogloss.errors import IsoglossError


def show(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Made by `isogloss meta learn`.")],
    figure: Annotated[
        Path | None, typer.Option("--figure", metavar="FILE.html", help="Write a page with the figure.")
    ] = None,
    json: o.Json = False,
) -> None:
    """Show the gates of a rule by layer and part of the fine-tuning, or the facts of a learned start.

    Example: isogloss meta show rules/topic --figure gates.html
    """
    from isogloss.meta.applied import is_start
    from isogloss.meta.saved import is_rule, read_rule

    if is_start(folder):
        from isogloss.meta.start import start_facts

        if figure is not None:
            raise IsoglossError("--figure: a learned start has no gates to draw; leave it out.")
        facts = start_facts(folder)
        if json:
            print_json({"kind": "start", **facts})
        else:
            print_facts([(name.replace("_", " "), _plain(value)) for name, value in facts.items()])
        return
    if not is_rule(folder):
        raise IsoglossError(
            f"The folder '{folder}' holds neither an update rule nor a learned start; see `isogloss meta learn`."
        )
    record = read_rule(folder)
    if figure is not None:
        from isogloss.cli._gates import write_gates

        write_gates(record, figure, name=Path(folder).name)
    if json:
        values = {"kind": "rule", **{name: value for name, value in vars(record).items() if name != "training"}}
        print_json({**values, "mean_gate": record.mean_gate, "training": {**record.training, "history": []}})
        return
    parts = [str(place + 1) for place in range(len(record.gates))]
    rows = [
        (group, *(number(row[place], 2) for row in record.gates), number(_mean(record.gates, place), 2))
        for place, group in enumerate(record.groups)
    ]
    print_table(
        ("group", *parts, "mean"),
        rows,
        title=f"{record.method} for {record.task} on {record.backbone}: gates in the parts of a fine-tuning",
        right=range(1, len(parts) + 2),
        keep=(0,),
    )
    seen = ", ".join(map(language_name, record.seen))
    print_text(f"Labels of {seen} took part; their scores are not zero-shot. Mean gate {record.mean_gate:.3f}.")
    if figure is not None:
        print_text(f"Figure: {figure}")


def _mean(gates: list[list[float]], place: int) -> float:
    return sum(row[place] for row in gates) / len(gates) if gates else 0.0


def _plain(value: Any) -> Any:
    return ", ".join(map(str, value)) if isinstance(value, list) else value

"""`isogloss study plan|run|status|report`: grids that survive being killed."""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, print_facts, print_json, print_table, print_text, say
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.study.spec import Study
    from isogloss.study.steps import Plan
    from isogloss.study.store import Store

app = typer.Typer(
    help="Grids of experiments: what will run, running it, how it stands, what came out.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_File = Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="See recipes/study/ and docs/studies.md.")]
_Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY.PATH=VALUE", help="Replace a value of the file, such as grid.seed=[1,2]. Repeatable."
    ),
]
_SHOWN_FAILURES = 10


@app.command("plan", short_help="Steps, parameters, time and disk, before anything runs.")
def plan(
    study: _File,
    changes: _Set = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure some steps on this machine.")] = True,
    json: o.Json = False,
) -> None:
    """Show what a study will do: every step once, what each trains and stores, and how long it should take."""
    made, store = _planned(study, changes, ahead=True)
    estimate: Any = None
    if measure:
        _quiet_libraries()
        from isogloss.study.calibrate import estimate as call

        estimate = call(made, tell=say)
        if store is not None and store.plan_file.is_file():
            # What `status` falls back on; the plan of the latest run stays what it is.
            latest = store.plan()
            latest.seconds = {**latest.seconds, **estimate.seconds}
            latest.save(store.plan_file)
    done = store.done(made.steps) if store is not None else set()
    kinds = _by_kind(made, done, estimate)
    if json:
        shapes = (
            {}
            if estimate is None
            else {name: {**vars(cost), "seconds": cost.seconds} for name, cost in estimate.shapes.items()}
        )
        problems = [] if estimate is None else estimate.problems
        print_json(
            {
                "study": made.name,
                "steps": kinds,
                "points": len(made.points),
                "shapes": shapes,
                "notes": [*made.notes, *problems],
            }
        )
        return
    print_text(
        f"{made.name}: {counted(len(made.points), 'model')}, {counted(len(made.steps), 'step')}, {len(done)} of them done"
    )
    print_table(
        ("step", "all", "to do", "time of one worker", "disk"),
        [(kind, row["all"], row["to_do"], _time(row["seconds"]), _size(row["bytes"])) for kind, row in kinds.items()],
        right=(1, 2, 3, 4),
        footer=(
            "all",
            len(made.steps),
            len(made.steps) - len(done),
            _sum(kinds, "seconds", _time),
            _sum(kinds, "bytes", _size),
        ),
    )
    if estimate is not None and estimate.shapes:
        print_table(
            ("training", "trained", "stored", "steps", "time"),
            [
                (name, cost.trained, cost.stored, cost.steps, _time(cost.seconds))
                for name, cost in estimate.shapes.items()
            ],
            right=(1, 2, 3, 4),
            title="Parameters",
        )
    for note in [*made.notes, *(f"not measured: {text}" for text in (estimate.problems if estimate else ()))]:
        print_text(note)


@app.command("run", short_help="Do what is missing; the same command continues.")
def run(
    study: _File,
    changes: _Set = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes [one a GPU, or one for two cores].")
    ] = None,
    threads: o.Threads = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray for a Ray cluster.")] = "local",
    address: Annotated[
        str | None, typer.Option("--ray-address", help="Of the cluster [RAY_ADDRESS, else a local one].")
    ] = None,
    launch: Annotated[
        str | None,
        typer.Option(
            "--launch",
            metavar="COMMAND",
            help="Train each module on several processes, such as 'torchrun --nproc-per-node 2'; one worker then.",
        ),
    ] = None,
    json: o.Json = False,
) -> None:
    """Run a study: finished steps are kept, killed or stopped runs lose nothing, a failed step stops only what needs it."""
    from isogloss.cli._inputs import one_of

    one_of(engine, "--engine", ("local", "ray"))
    if launch is not None:
        from isogloss.study.launched import launcher

        launcher(launch)
        if engine == "ray":
            raise IsoglossError("--launch: the processes share one machine's GPUs; leave out --engine ray.")
    made, store = _planned(study, changes, create=True)
    assert store is not None
    from isogloss.study.runner import run_plan

    hands, cores, devices = _machine(workers or (1 if launch else None), threads)
    devices = [] if launch else devices  # The processes share out the GPUs themselves.
    chosen: Any
    if engine == "ray":
        from isogloss.study.ray_engine import RayEngine

        chosen = RayEngine(store.folder, threads=cores, address=address, gpus=bool(devices))
    else:
        from isogloss.study.engine import LocalEngine

        chosen = LocalEngine(store.folder, threads=cores, logs=store.folder / "runs", devices=devices)
    options = {"launch": launch, "threads": cores} if launch else {}
    say(f"{made.name}: {counted(len(made.steps), 'step')} in {store.folder}, {counted(hands, 'worker')}")
    result = run_plan(made, store, chosen, workers=hands, options=options, command=_command(), tell=say)
    if json:
        print_json({"study": made.name, "store": store.folder, **vars(result)})
    else:
        print_facts(
            [
                ("done now", counted(result.done, "step")),
                ("done before", counted(result.found, "step")),
                ("failed", len(result.failed) or None),
                ("not possible after that", len(result.blocked) or None),
                ("time", _time(result.seconds)),
                ("report", f"isogloss study report {study}"),
            ]
        )
    if result.failed:
        first = next(iter(result.failed.values()))
        more = (
            f" (and {len(result.failed) - 1} more, see `isogloss study status {study}`)"
            if len(result.failed) > 1
            else ""
        )
        raise IsoglossError(f"{counted(len(result.failed), 'step')} failed: {first['label']}: {first['error']}{more}")


@app.command("status", short_help="Done, running, failed, time left; from any terminal.")
def status(study: _File, changes: _Set = None, json: o.Json = False) -> None:
    """Show how a study stands, also while it runs elsewhere."""
    from isogloss.study.reading import read_study
    from isogloss.study.status import read_status
    from isogloss.study.store import Store

    found = read_status(Store(_store_folder(read_study(study, changes or ()))))
    if json:
        print_json({**vars(found), "total": found.total, "done": found.count("done")})
        return
    print_table(
        ("step", "done", "failed", "blocked", "waiting", "all"),
        [
            (kind, row["done"], row["failed"], row["blocked"], row["waiting"], sum(row.values()))
            for kind, row in found.steps.items()
        ],
        right=(1, 2, 3, 4, 5),
        title=f"{found.name}: {found.count('done')} of {found.total} steps done",
    )
    for item in found.running:
        print_text(f"running: {item['label']}, {_time(item['seconds'])} {item['doing']}")
    for number, failure in enumerate(found.failed.values()):
        if number == _SHOWN_FAILURES:
            print_text(f"and {len(found.failed) - number} more failures")
            break
        print_text(f"failed: {failure['label']}: {failure['error']}")
    if not found.runners:
        print_text("no runner is at work" if found.count("waiting") or found.failed else "finished")
    elif found.seconds_left is not None:
        print_text(f"{'at least' if found.at_least else 'about'} {_time(found.seconds_left)} left")


@app.command("report", short_help="One page, and tables, from what is finished.")
def report(
    study: _File,
    changes: _Set = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder of the report [report in the store].")] = None,
    pool_texts: Annotated[
        int,
        typer.Option(
            "--pool-texts", min=0, help="Texts of each language that prompt pools are measured on; 0 leaves them out."
        ),
    ] = 32,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Write the report of a study: an HTML page, Markdown, CSV and LaTeX tables.

    The report in the store is always replaced; a folder named by --out only with --overwrite.
    """
    from isogloss.report.study_page import write_study_report
    from isogloss.storage.atomic import refuse_occupied
    from isogloss.study.collect import collect
    from isogloss.study.reading import read_study
    from isogloss.study.runner import code_version
    from isogloss.study.store import Store

    if out is not None:
        refuse_occupied(out, overwrite=overwrite)
    # Of the file as given now, not of the latest run: several runs with other values may share the store.
    made, held = _planned(study, changes)
    store = held or Store(_store_folder(read_study(study, changes or ())))
    data = collect(store, made, command=_command(), commit=code_version())
    if not data.scores:
        raise IsoglossError(f"The store '{store.folder}' has no finished score yet; run the study first.")
    if pool_texts:
        from isogloss.study.pools import pool_attention

        pools, lacking = pool_attention(store, made, pool_texts, say)
        data = replace(data, pools=pools, missing=[*data.missing, *lacking])
    target = out or store.folder / "report"
    written = write_study_report(data, target, overwrite=overwrite or out is None)
    if json:
        print_json({"study": data.name, "out": target, "scores": len(data.scores), "missing": len(data.missing)})
        return
    print_facts(
        [
            ("scores", len(data.scores)),
            ("missing steps", len(data.missing) or None),
            ("report", written if isinstance(written, str | Path) else target),
        ]
    )


def _planned(
    study: Path, changes: list[str] | None, *, create: bool = False, ahead: bool = False
) -> "tuple[Plan, Store | None]":
    from isogloss.study.reading import read_marked

    spec, marks = read_marked(study, changes or ())
    _quiet_libraries()
    from isogloss.study.plan import make_plan
    from isogloss.study.store import Store

    folder = _store_folder(spec)
    store = Store(folder) if (folder / "store.json").exists() else None
    made = make_plan(spec, marks, ahead=ahead)
    return made, Store(folder, create=True, name=spec.name) if create else store


def _store_folder(spec: "Study") -> Path:
    return Path(spec.folder).expanduser()


def _machine(workers: int | None, threads: int | None) -> tuple[int, int, list[int]]:
    """Workers, threads of each, and GPUs."""
    import os

    import torch

    devices = list(range(torch.cuda.device_count()))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    hands = workers or len(devices) or max(1, cores // 2)
    return hands, threads or max(1, cores // hands), devices


def _by_kind(made: "Plan", done: set[str], estimate: Any) -> dict[str, dict[str, Any]]:
    kinds: dict[str, dict[str, Any]] = {}
    for key, step in made.steps.items():
        row = kinds.setdefault(step.kind, {"all": 0, "to_do": 0, "seconds": None, "bytes": None})
        row["all"] += 1
        if key in done:
            continue
        row["to_do"] += 1
        if estimate is not None and key in estimate.seconds:
            row["seconds"] = (row["seconds"] or 0.0) + estimate.seconds[key]
            row["bytes"] = (row["bytes"] or 0) + estimate.stored[key]
    return kinds


def _sum(kinds: dict[str, dict[str, Any]], name: str, write: Any) -> str:
    known = [row[name] for row in kinds.values() if row[name] is not None]
    return str(write(sum(known) if known else None))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s"


def _size(count: float | None) -> str:
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _command() -> str:
    return " ".join(["isogloss", *(shlex.quote(item) for item in sys.argv[1:])])


def _quiet_libraries() -> None:
    from transformers.utils import logging

    logging.disable_progress_bar()

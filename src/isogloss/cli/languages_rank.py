"""`isogloss languages rank`: which language to transfer from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from isogloss.cli import _options as o
from isogloss.cli._console import number, print_json, print_table, print_text
from isogloss.cli._inputs import language, language_name, one_of, split_list
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.report.study_data import StudyScore

_app = typer.Typer(rich_markup_mode=None, add_completion=False)


@_app.command("rank")
def rank(
    target: Annotated[str, typer.Option("--target", help="The language without labels.")],
    task: Annotated[
        str, typer.Option("--task", "-t", help="What is to be done; a task of the study, if one is given.")
    ],
    data: Annotated[
        str | None,
        typer.Option("--data", "-d", help="Labelled data: its languages with a train split, and how many rows."),
    ] = None,
    source: Annotated[
        list[str] | None,
        typer.Option("--source", "-s", metavar="L[,L...]", help="Candidates [those of --data or --study]."),
    ] = None,
    study: Annotated[
        Path | None, typer.Option("--study", metavar="STUDY.yaml|STORE", help="A study that measured transfer.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split whose rows are counted.")] = "train",
    count: Annotated[int, typer.Option("--count", min=1, help="How many to show.")] = 10,
    json: o.Json = False,
) -> None:
    """Rank source languages for a target by typology, data size and, where a study has it, measured transfer.

    Example: isogloss languages rank --task topic --target sk --data DIR --study recipes/study/s1-nano.yaml
    """
    from isogloss.languages import resolve
    from isogloss.study.rank import WEIGHTS, rank_sources
    from isogloss.tasks import task_names

    if study is None:
        # A study may call its tasks what it likes.
        one_of(task, "--task", task_names())
    wanted = language(target, "--target")
    scores = _scores(study, task) if study is not None else []
    rows = _rows(data, task, split) if data is not None else None
    named = [language(name, "--source").code for name in split_list(source)]
    measured = list(dict.fromkeys(score.source for score in scores if "+" not in score.source))
    codes = named or list(rows or {}) or measured
    if not codes:
        raise IsoglossError("There are no candidates: give --data with a training split, --source, or --study.")
    found = rank_sources(wanted, [resolve(code) for code in codes], rows=rows, scores=scores)
    if json:
        print_json(
            {
                "target": wanted.code,
                "task": task,
                "weights": dict(WEIGHTS),
                "ranked": [{**vars(item), "language": item.language.code} for item in found],
            }
        )
        return
    print_table(
        ("source", "code", "rank score", "distance", "imputed", "rows", "measured", "models"),
        [
            (
                item.language.name,
                item.language.code,
                number(item.score, 2),
                number(item.distance, 2),
                f"{100 * item.imputed:.0f} %",
                "-" if item.rows is None else item.rows,
                number(item.measured),
                item.runs or "-",
            )
            for item in found[:count]
        ],
        title=f"Sources for {task} in {wanted.name} ({wanted.code})",
        right=(2, 3, 4, 5, 6, 7),
        keep=(1,),
    )
    on = next((item.on for item in found if item.on), "")
    if on and on != wanted.code:
        print_text(
            f"The study did not score {wanted.name} from these sources; measured is on {language_name(on)} ({on}), the nearest "
            "language that it did."
        )
    if all(item.imputed == 1.0 for item in found):
        print_text(
            "Every typological feature that was compared is a guess of URIEL's; do not read much into the distances."
        )


def _scores(place: Path, task: str) -> "list[StudyScore]":
    from isogloss.study.collect import collect
    from isogloss.study.reading import read_study
    from isogloss.study.store import Store

    folder = place if place.is_dir() else Path(read_study(place).folder).expanduser()
    data = collect(Store(folder))
    found = [score for score in data.scores if score.task == task]
    if not found:
        tasks = sorted({score.task for score in data.scores})
        raise IsoglossError(
            f"--task {task}: the study in '{folder}' has no score of it, only of {', '.join(tasks) or 'nothing'}."
        )
    return found


def _rows(data: str, task: str, split: str) -> dict[str, int]:
    """Rows of the split by language, of those that have it."""
    from isogloss.study import sources
    from isogloss.tasks import get_task

    get_task(task)
    found = {}
    for code in sources.languages_in(data):
        if sources.data_identity(data, code, split) is not None:
            found[code] = sources.row_count(data, code, split)
    return found


class WithRank(TyperCommand):
    """`isogloss languages`, whose first word may be the command `rank`."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """The context of `rank` when that is asked for."""
        if args and args[0] == "rank":
            command = typer.main.get_command(_app)
            return command.make_context(f"{info_name} rank", args[1:], parent=parent, **extra)
        return super().make_context(info_name, args, parent=parent, **extra)

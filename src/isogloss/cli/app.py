"""The `isogloss` program: all commands, and the one place where an error becomes a sentence and a status."""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer

from isogloss.cli import (
    backbones,
    bench,
    evaluate,
    languages,
    languages_rank,
    meta,
    modules,
    pool,
    predict,
    pretrain,
    quickstart,
    study,
    train_language,
    train_task,
)
from isogloss.cli._errors import explain
from isogloss.cli._grouped import Grouped
from isogloss.cli._quiet import quiet

# What the parser makes of Ctrl-C, without a word.
_INTERRUPTED = 130
_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

app = typer.Typer(
    name="isogloss",
    help="Carry a task from the languages that have labels to the languages that do not.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)
train = typer.Typer(
    help="Train a language module on raw text, or a task module on labelled text.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_SETTINGS,
)
app.command("quickstart", short_help="The whole job once, on bundled model and data.")(quickstart.quickstart)
app.command("languages", cls=languages_rank.WithRank, short_help="Codes, names, families, distances; rank sources.")(
    languages.languages
)
app.command("backbones", short_help="Bundled models and families that fit; facts of one.")(backbones.backbones)
app.command("pretrain", short_help="Train a backbone as a recipe says.")(pretrain.pretrain)
train.command("language", cls=Grouped, short_help="A language module from raw text.")(train_language.train_language)
train.command("task", cls=Grouped, short_help="A task module from labelled text.")(train_task.train_task)
app.add_typer(train, name="train", short_help="Train a language or a task module.")
app.add_typer(meta.app, name="meta", short_help="Update rules and starts learned from simulated transfer.")
app.command("evaluate", short_help="Scores of a task module, language by language.")(evaluate.evaluate)
app.command("predict", short_help="Answers for lines of text, languages mixed.")(predict.predict)
app.add_typer(study.app, name="study", short_help="Grids of experiments: plan, run, status, report.")
app.add_typer(pool.app, name="pool", short_help="Prompt pools: learn one, show how languages use one.")
app.add_typer(modules.app, name="modules", short_help="Saved modules: list, show, import, export, push, pull.")
app.command("bench", short_help="Speed and memory beside what is installed.")(bench.bench)


def _version(wanted: bool) -> None:
    if wanted:
        from isogloss import __version__

        typer.echo(f"isogloss {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and all warnings; may stand anywhere.")
    ] = False,
) -> None:
    """Takes the options that belong to no command; `main` has already acted on --debug."""


def run(arguments: Sequence[str]) -> int:
    """Runs one command and returns its exit status: 0, or 2 with one sentence on stderr.

    Args:
        arguments: Without the program's name.
    """
    given = list(arguments)
    end = given.index("--") if "--" in given else len(given)
    debug = "--debug" in given[:end]
    given = [item for place, item in enumerate(given) if item != "--debug" or place > end]
    if not debug:
        quiet()
    try:
        returned: Any = app(args=given, prog_name="isogloss", standalone_mode=False)
        sys.stdout.flush()
        if returned == _INTERRUPTED:
            raise KeyboardInterrupt
        return int(returned or 0)
    except (BrokenPipeError, SystemExit):
        # `isogloss predict ... | head`: the reader has what it wants (the parser turns that into SystemExit, and
        # nothing else). Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (Exception, KeyboardInterrupt) as problem:
        if debug:
            traceback.print_exception(problem)
        text, status = explain(problem)
        with suppress(BrokenPipeError):
            print(text, file=sys.stderr)
        return status
    finally:
        _leave()


def main() -> None:
    """The entry point of the `isogloss` program."""
    sys.exit(run(sys.argv[1:]))


def _leave() -> None:
    # Only a command that trained has loaded this; the others must not pay for torch.
    if "isogloss.training._processes" in sys.modules:
        sys.modules["isogloss.training._processes"].leave_processes()

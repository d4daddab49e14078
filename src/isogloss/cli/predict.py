"""`isogloss predict`: answers for lines of text, in one language or several mixed."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, print_json, say
from isogloss.cli._identify import Identifier
from isogloss.cli._inputs import check_backbone_name, check_device, one_of, open_backbone, pairs
from isogloss.cli._inputs import language as resolve
from isogloss.cli._parts import Parts, read_parts
from isogloss.cli._rows_in import InputRow, read_input, split_inputs
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.tasks import Example
    from isogloss.tasks.heads import Prediction
    from isogloss.training.inference import Predictor


def predict(
    modules: o.ModuleFolders,
    inputs: Annotated[
        list[str] | None, typer.Argument(metavar="[FILE|-]", help="Text, TSV or JSONL; stdin when left out.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option("--language", "-l", help="Language of all rows, or auto: found out for each row."),
    ] = None,
    backbone: o.BackboneOfModule = None,
    missing: o.Missing = "error",
    field: o.Fields = None,
    tokens_per_batch: o.ReadingTokens = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    threads: o.Threads = None,
    json: Annotated[
        bool, typer.Option("--json", help="One JSON object a row: label, scores, language, the input.")
    ] = False,
) -> None:
    """Answer the task for every line of a file or of stdin: LABEL, a tab, the text.

    Plain text has one text a line (a pair is separated by a tab); JSONL has the task's own fields. With --language
    auto, or with modules of several languages, each row is given the module of its own language.

    Example: isogloss predict --modules modules/topic,modules/sk,modules/cs --language auto news.txt
    """
    one_of(missing, "--missing", ("error", "none"))
    extra, file = split_inputs(inputs or [])
    parts = read_parts([*modules, *extra], fields=pairs(field, "--field"))
    identify = _chooser(parts, language, missing)
    rows = read_input(file, parts.task)
    first = next(rows, None)
    name = backbone or parts.backbone
    check_backbone_name(name)
    check_device(device, threads)
    if first is None:
        raise IsoglossError(f"{file}: there is no text in it; expected one text a line.")

    from isogloss.training.evaluation import make_predictor

    loaded = open_backbone(name, dtype, device)
    task_module, by_language = parts.load(loaded)
    predictor = make_predictor(loaded, task_module, by_language, identify.languages, missing=missing)  # type: ignore[arg-type]
    labels = predictor.head.task.labels or ()
    count = cut = 0
    for chunk in _chunks(_chain(first, rows)):
        codes = identify([row.example.content() for row in chunk])
        known = [_with_language(row.example, code) for row, code in zip(chunk, codes, strict=True)]
        answers, scores, too_long = _answers(predictor, known, labels, tokens_per_batch)
        for row, code, answer, chances in zip(chunk, codes, answers, scores, strict=True):
            _print(row, code if identify.sure else None, answer, chances, json)
        count, cut = count + len(chunk), cut + too_long
    longer = f", {counted(cut, 'row')} of them too long and read to their limit only" if cut else ""
    say(f"{counted(count, 'row')} answered{longer}")


def _chooser(parts: Parts, language: str | None, missing: str) -> Identifier:
    """Who says in which language a row is."""
    if language not in (None, "auto"):
        code = resolve(str(language), "--language").code
        parts.check_languages([code], missing)
        return Identifier.fixed(code)
    parts.check_languages(parts.languages, missing)
    if language is None and len(parts.languages) == 1:
        return Identifier.fixed(parts.languages[0])
    if language is None and not parts.languages:
        # Nothing to swap in, so the language of a row makes no difference; the source's stands in for it.
        return Identifier.fixed(parts.sources[0] if parts.sources else "eng_Latn", sure=False)
    return Identifier.automatic(parts.languages)


def _answers(
    predictor: "Predictor",
    examples: Sequence["Example"],
    labels: Sequence[str],
    tokens_per_batch: int | None,
) -> tuple[list[Any], list[dict[str, float]], int]:
    """Decoded answers, the probability of each label where the head gives one, and how many texts were cut."""
    from isogloss.tasks.heads import truncation

    decoded, rows, predictions = predictor.predict(examples, tokens_per_batch=tokens_per_batch)
    scores: list[dict[str, float]] = [{} for _ in examples]
    for row, prediction in zip(rows, predictions, strict=True):
        scores[row.example] = _scores(prediction, labels, examples[row.example])
    return decoded, scores, truncation(rows).cut


def _scores(prediction: "Prediction", labels: Sequence[str], example: "Example") -> dict[str, float]:
    names = labels or [str(number) for number in range(len(example.choices or ()))]
    if len(names) != len(prediction.scores):
        return {}
    return {name: round(math.exp(score), 6) for name, score in zip(names, prediction.scores, strict=True)}


def _print(row: InputRow, language: str | None, answer: Any, scores: Mapping[str, float], json: bool) -> None:
    given = list(answer) if isinstance(answer, list | tuple) else answer
    if json:
        print_json({"line": row.line, "label": given, "scores": scores or None, "language": language, **row.fields})
        return
    shown = " ".join(map(str, given)) if isinstance(given, list) else "" if given is None else str(given)
    print("\t".join((" ".join(shown.split("\n")), *([language] if language else []), row.text)), flush=True)


def _with_language(example: "Example", code: str) -> "Example":
    import dataclasses

    return dataclasses.replace(example, language=code)


def _chain(first: InputRow, rest: Iterator[InputRow]) -> Iterator[InputRow]:
    yield first
    yield from rest


def _chunks(rows: Iterator[InputRow], size: int = 256) -> Iterator[list[InputRow]]:
    while chunk := list(islice(rows, size)):
        yield chunk

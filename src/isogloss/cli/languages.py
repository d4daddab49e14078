"""`isogloss languages`: names, scripts, families and distances."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import number, print_json, print_table, print_text
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.languages import Distance, Language


def languages(
    codes: Annotated[
        list[str] | None, typer.Argument(metavar="[CODE]...", help="Codes or names: sk, slk_Latn, Slovak ...")
    ] = None,
    distance: Annotated[
        tuple[str, str] | None, typer.Option("--distance", metavar="A B", help="How far two languages are apart.")
    ] = None,
    nearest: Annotated[
        str | None, typer.Option("--nearest", metavar="CODE", help="The languages nearest to this one.")
    ] = None,
    kind: Annotated[
        str,
        typer.Option("--kind", help="For --nearest: genetic geographic syntactic phonological inventory featural."),
    ] = "featural",
    count: Annotated[int, typer.Option("--count", min=1, help="For --nearest: how many.")] = 10,
    json: o.Json = False,
) -> None:
    """Show languages: code, name, script and family; how far two are apart; which are nearest.

    With --nearest, CODE arguments are the candidates. Distances are URIEL's, 0 (same) to 1.
    Which language to transfer from: isogloss languages rank --task T --target L (see isogloss languages rank --help).
    """
    from isogloss.languages import all_languages, distances, resolve
    from isogloss.languages import nearest as call

    if distance is not None and nearest is not None:
        raise IsoglossError("--distance and --nearest are both given; give one of them.")
    if distance is not None:
        a, b = (resolve(name) for name in distance)
        _show_distances(a, b, list(distances(a, b).values()), json)
    elif nearest is not None:
        centre = resolve(nearest)
        found = call(centre, kind, [resolve(code) for code in codes] if codes else None, count)
        _show_nearest(centre, kind, found, json)
    else:
        chosen = [resolve(code) for code in codes] if codes else all_languages()
        if json:
            print_json({"languages": [vars(language) for language in chosen]})
            return
        print_table(
            ("code", "ISO 639-1", "name", "script", "family"),
            [(x.code, x.iso639_1, x.name, x.script, ", ".join(filter(None, (x.family, x.branch)))) for x in chosen],
            keep=(0,),
        )
        if not codes:
            print_text(f"{len(chosen)} languages; any ISO 639-3 code with a script is understood too (aaa_Latn).")


def _show_distances(a: "Language", b: "Language", found: "list[Distance]", json: bool) -> None:
    if json:
        print_json({"a": a.code, "b": b.code, "distances": {item.kind: _facts(item) for item in found}})
        return
    print_table(
        ("distance", "0..1", "imputed", "note"),
        [(item.kind, number(item.value, 3), f"{100 * item.imputed:.0f} %", item.note) for item in found],
        title=f"{a.name} ({a.code}) and {b.name} ({b.code})",
        right=(1, 2),
        keep=(0,),
    )
    print_text("Imputed: share of the compared features that URIEL predicts rather than attests.")


def _show_nearest(centre: "Language", kind: str, found: "list[tuple[Language, Distance]]", json: bool) -> None:
    if json:
        rows = [{"code": language.code, "name": language.name, **_facts(item)} for language, item in found]
        print_json({"language": centre.code, "kind": kind, "nearest": rows})
        return
    print_table(
        ("language", "code", "0..1", "imputed"),
        [(x.name, x.code, number(item.value, 3), f"{100 * item.imputed:.0f} %") for x, item in found],
        title=f"Nearest to {centre.name} ({centre.code}), {kind} distance",
        right=(2, 3),
        keep=(1,),
    )


def _facts(item: "Distance") -> dict[str, Any]:
    return {"value": item.value, "imputed": item.imputed, "note": item.note}

"""What the numbers of a transfer experiment show and what they do not, in sentences made from the numbers."""

from collections.abc import Mapping
from typing import Any

from isogloss.report.intervals import wilson


def summary(results: Mapping[str, Any]) -> str:
    """One sentence on what the table shows."""
    cells, count = results["cells"], len(results["zero_shot"])
    means = ", ".join(f"{name} {cell['mean']:.1f}" for name, cell in cells.items())
    text = (
        f"Trained on {results['train_count']} {results['source_name']} sentences only, mean accuracy over {count} "
        f"other {'language' if count == 1 else 'languages'} is {means}, against {results['majority']['mean']:.1f} for "
        "always the same topic"
    )
    gains = results["differences"]
    if not gains:
        return text + "."
    above = [name for name, gain in gains.items() if gain["interval"][0] > 0]
    below = [name for name, gain in gains.items() if gain["interval"][1] < 0]
    parts = [
        f"better than the same without one in {', '.join(above)}" if above else "",
        f"worse in {', '.join(below)}" if below else "",
    ]
    verdict = " and ".join(part for part in parts if part)
    rest = len(gains) - len(above) - len(below)
    if not verdict:
        return f"{text}; no cell with a language module can be told apart from the same cell without one."
    return f"{text}; with a language module it is {verdict}" + (
        ", and cannot be told apart in the other cells with one." if rest else "."
    )


def limits(results: Mapping[str, Any]) -> list[str]:
    """What the table does not show."""
    backbone, seeds = results["backbone"], results["seeds"]
    counts = [int(scores["n"]) for cell in results["cells"].values() for scores in cell["scores"].values()]
    widths = []
    for cell in results["cells"].values():
        for scores in cell["scores"].values():
            low, high = wilson(scores[results["metric"]] / 100 * scores["n"], int(scores["n"]))
            widths.append((high - low) / 2)
    tested = f"n={counts[0]}" if len(set(counts)) == 1 else f"n={min(counts)} to {max(counts)}"
    seeded = f"one seed ({seeds[0]})" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"
    found = [
        f"What it does not show: this is one small backbone ({backbone['parameters'] / 1e6:.1f} million parameters), "
        f"{seeded} and {tested} test sentences a language, so a single language's score has a 95% interval of up to "
        f"±{max(widths):.0f} points, and the intervals in the last row do not cover other seeds, languages or data."
    ]
    left = [
        language["name"]
        for code, language in results["languages"].items()
        if code != results["source"] and code not in results["zero_shot"]
    ]
    if left:
        found.append(f"Not in the mean, because a language module is missing: {', '.join(left)}.")
    return found


def language_notes(results: Mapping[str, Any]) -> list[str]:
    """What the language modules that were trained here learned, and how they do in place of the bundled ones."""
    found = []
    for module in results["language_modules"]:
        if module["origin"] != "trained now":
            continue
        name = results["languages"][module["language"]]["name"]
        text = f"The {name} {module['method']} was trained here from raw text in {module['steps']} steps ({module['seconds']:.0f} s)"
        if "loss" in module:
            text += (
                f"; loss on held-out {name} text {module['loss_without']:.3f} without it, {module['loss']:.3f} with it"
            )
        found.append(text + ".")
        for cell, values in results["cells"].items():
            swapped = values["runs"][0].get("with_trained_now", {}).get(module["language"])
            if swapped and values["language_module"] == module["method"]:
                ours = values["runs"][0]["scores"][module["language"]][results["metric"]]
                found.append(
                    f"In {cell}, {name} scores {swapped[results['metric']]:.1f} with this short-trained {module['method']} and {ours:.1f} "
                    "with the bundled one."
                )
    return found


def next_commands(results: Mapping[str, Any], out: str) -> list[list[str]]:
    """Commands to try next, with what they do; the paths in them exist."""
    backbone, languages = results["backbone"]["name"], results["languages"]
    cell = next((name for name in ("LA+TA", "LP+TA", "TA") if name in results["cells"]), next(iter(results["cells"])))
    chosen = results["cells"][cell]
    task = f"{out}/{chosen['runs'][0]['module']}"
    code = next((code for code in ("slk_Latn", "deu_Latn") if code in results["zero_shot"]), results["zero_shot"][0])
    name = languages[code]["name"]
    parts = [
        f"{out}/{module['module']}"
        for module in results["language_modules"]
        if module["language"] == code
        and module["method"] == chosen["language_module"]
        and "trained-now" not in module["module"]
    ]
    modules = ",".join([task, *parts])
    spec = next(
        (m["spec"] for m in results["language_modules"] if m["method"] == chosen["language_module"]), "adapter:16"
    )
    return [
        [
            f"isogloss evaluate --backbone {backbone} --task topic --data {results['data']} --targets {code} --modules {modules}",
            f"Score the {cell} cell on {name} again.",
        ],
        [
            f"isogloss predict --backbone {backbone} --modules {modules} --language {code} YOUR-{name.upper().replace(' ', '-')}.txt",
            f"Topics of your own {name} sentences, one a line.",
        ],
        [
            f"isogloss train language --backbone {backbone} --language LANGUAGE --text YOUR-TEXT.txt --module {spec} --out my-language",
            "A module for a language of your own, from raw text; add it to --modules above.",
        ],
        [
            f"isogloss train task --backbone {backbone} --task topic --data YOUR-DATA --source en --module adapter:16 --out my-task",
            "A task module from your own labelled sentences, YOUR-DATA/en/train.tsv with the columns text and label.",
        ],
    ]

"""Model cards: Markdown with the YAML front matter that the Hugging Face Hub reads."""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from isogloss.errors import IsoglossError
from isogloss.formats.record import SavedModule
from isogloss.languages import resolve
from isogloss.modules import format_module

_KINDS = {
    "adapter": "bottleneck adapter",
    "invertible": "invertible adapter",
    "prompt": "soft prompt",
    "lora": "low-rank adapter (LoRA)",
    "pool": "prompt pool",
    "none": "task head without a module",
}


def model_card(saved: SavedModule) -> str:
    """Writes the card of a module.

    `info.training["data"]` may be a name, a list of names, or mappings with `name` and `licence`; the card
    names them and their licences. Everything else in `training` and `scores` is printed as it is.

    Args:
        saved: What the module says about itself; its folder's name is the card's name for it.
    """
    info = saved.info
    lines = [
        "---",
        yaml.safe_dump(_front_matter(saved), allow_unicode=True, sort_keys=False).strip(),
        "---",
        "",
    ]
    lines += [f"# {_title(saved)}", "", _what(saved), ""]
    lines += ["| | |", "|---|---|"]
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in _facts(saved)]
    sources = data_sources(info.training)
    lines += ["", "## Training", ""]
    if sources:
        lines += [f"* Data: {name}; licence: {licence or 'not recorded'}." for name, licence in sources]
        lines.append("")
    rows = [(key, value) for key, value in _flat(info.training) if key.partition(".")[0] != "data"]
    lines += _table("fact", "value", rows) if rows else ["No training facts were recorded."]
    lines += ["", "## Scores", ""]
    scores = list(_flat(info.scores))
    lines += _table("metric", "value", scores) if scores else ["No scores were recorded."]
    lines += ["", "## How to use it", "", *_usage(saved)]
    return "\n".join(lines) + "\n"


def language_tag(code: str) -> str:
    """The BCP-47 tag of a language; the script is named only where it is not the language's usual one.

    Text that is no known language comes back as it is, with hyphens.
    """
    try:
        language = resolve(code)
    except IsoglossError:
        return code.replace("_", "-")
    tag = language.iso639_1 or language.iso639_3
    try:
        usual = resolve(tag).script
    except IsoglossError:
        # Written in several scripts, none of them the usual one: the script has to be said.
        usual = ""
    return tag if language.script == usual else f"{tag}-{language.script}"


def data_sources(training: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and licences (empty when unknown) of the data that the training facts speak of."""
    data = training.get("data")
    found = []
    for item in data if isinstance(data, list | tuple) else [data]:
        if isinstance(item, Mapping):
            licence = item.get("licence") or item.get("license") or ""
            found.append((str(item.get("name") or item.get("path") or "unnamed"), str(licence)))
        elif item:
            found.append((str(item), str(training.get("licence") or "")))
    return found


def _front_matter(saved: SavedModule) -> dict[str, Any]:
    info = saved.info
    matter: dict[str, Any] = {"base_model": info.backbone, "library_name": "isogloss"}
    if info.language:
        matter["language"] = [language_tag(info.language)]
    matter["tags"] = ["isogloss", "cross-lingual-transfer", saved.method, f"{info.role}-module"]
    if info.task:
        matter["tags"].append(info.task)
    sources = data_sources(info.training)
    if sources:
        matter["datasets"] = [name for name, _ in sources]
        licences = sorted({licence for _, licence in sources if licence})
        if licences:
            matter["data_licences"] = licences
    metrics = sorted({key.rpartition(".")[2] for key, value in _flat(info.scores) if isinstance(value, int | float)})
    if metrics:
        matter["metrics"] = metrics
    return matter


def _title(saved: SavedModule) -> str:
    return f"{_KINDS.get(saved.method, saved.method).capitalize()}: {saved.info.label}"


def _what(saved: SavedModule) -> str:
    info = saved.info
    if info.role == "language":
        purpose = f"stands for the language {_named(info.language)}"
        other = "task"
    elif info.role == "shared":
        spoken = info.training.get("languages", [])
        purpose = (
            f"serves texts of every language, learned from raw text in {len(spoken)} languages ({', '.join(spoken)})"
        )
        other = "task"
    else:
        purpose = f"does the task {info.task or '(unnamed)'}"
        purpose += f", learned from {_named(info.language)}" if info.language else ""
        other = "language"
    return (
        f"A module of [isogloss](https://pypi.org/project/isogloss/) that {purpose}, and combines with "
        f"any {other} module of the same backbone. It works only on the backbone named here."
    )


def _named(code: str | None) -> str:
    try:
        return f"{resolve(code).name} (`{code}`)" if code else "(unnamed)"
    except IsoglossError:
        return f"`{code}`"


def _facts(saved: SavedModule) -> list[tuple[str, str]]:
    facts = [
        ("module", f"`{format_module(saved.config)}`"),
        ("backbone", f"`{saved.info.backbone}`"),
        ("backbone fingerprint", f"`{saved.info.fingerprint}`"),
        ("numbers stored", f"{saved.parameters:,}"),
        ("saved by", f"isogloss {saved.version}"),
    ]
    if saved.info.head:
        facts.append(("head", ", ".join(f"{key} = {_short(value)}" for key, value in saved.info.head.items())))
    return facts


def _usage(saved: SavedModule) -> list[str]:
    info = saved.info
    folder = saved.folder.name or "MODULE"
    lines = [
        "```python",
        "import isogloss",
        "",
        f'backbone = isogloss.load_backbone("{info.backbone}")',
        f'module = isogloss.load_module("{folder}", backbone)',
        "stack = isogloss.Stack(backbone, [module])",
        "```",
        "",
        "```",
        f"isogloss modules show {folder}",
    ]
    if info.role == "task":
        command = f"evaluate --backbone {info.backbone} --task {info.task or 'TASK'} --data DIR --targets LANGUAGES"
        lines.append(f"isogloss {command} --modules {folder}")
    else:
        command = f"train task --backbone {info.backbone} --task TASK --data DIR --language-module {folder}"
        lines.append(f"isogloss {command} --source {info.language or 'LANGUAGE'} --module adapter:16 --out OUT")
    return [*lines, "```"]


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}.{key}" if prefix else str(key)
        if isinstance(value, Mapping):
            yield from _flat(value, name)
        else:
            yield name, value


def _table(left: str, right: str, rows: list[tuple[str, Any]]) -> list[str]:
    return [
        f"| {left} | {right} |",
        "|---|---|",
        *(f"| {_cell(key)} | {_cell(_short(value))} |" for key, value in rows),
    ]


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return ", ".join(_short(item) for item in value)
    return str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())

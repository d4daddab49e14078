"""`isogloss modules`: list, show, import, export, push and pull saved modules."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import counted, number, print_facts, print_json, print_table, print_text, say
from isogloss.cli._hub import pull_folder, push_folder
from isogloss.cli._inputs import (
    check_backbone_name,
    check_device,
    free_output,
    json_pairs,
    language_name,
    open_backbone,
)
from isogloss.cli._inputs import language as resolve
from isogloss.errors import IsoglossError

if TYPE_CHECKING:
    from isogloss.backbones import Backbone
    from isogloss.formats import SavedModule
    from isogloss.modules import TransferModule

app = typer.Typer(
    help="List, show, import, export and share saved modules.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
_Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of a saved module.")]


@app.command("list")
def list_(
    folder: Annotated[Path, typer.Argument(metavar="[DIR]", help="Searched with all folders in it.")] = Path(),
    json: o.Json = False,
) -> None:
    """List the saved modules under a folder."""
    from isogloss.formats import list_modules

    problems: list[str] = []
    found = list_modules(folder, problems=problems)
    for problem in problems:
        say(f"note: {problem}")
    if json:
        print_json({"modules": [_facts(saved) for saved in found], "problems": problems})
    elif not found:
        print_text(f"No saved module under '{folder}'; `isogloss train` makes them.")
    else:
        print_table(
            ("folder", "role", "for", "module", "parameters", "backbone"),
            [
                (
                    saved.folder.relative_to(folder),
                    saved.info.role,
                    _purpose(saved),
                    _spec(saved),
                    saved.parameters,
                    saved.info.backbone,
                )
                for saved in found
            ],
            right=(4,),
            keep=(0,),
        )


@app.command("show")
def show(folder: _Folder, json: o.Json = False) -> None:
    """Show what a saved module is, how it was trained and how well it does."""
    from isogloss.formats import read_info

    saved = read_info(folder)
    if json:
        print_json(_facts(saved))
        return
    info = saved.info
    training = {key: value for key, value in info.training.items() if value not in (None, "", [], {})}
    print_facts(
        [
            ("folder", saved.folder),
            ("role", info.role),
            ("for", _purpose(saved)),
            ("learned from", ", ".join(language_name(code) for code in training.get("source", []))),
            ("module", _spec(saved)),
            ("parameters", saved.parameters),
            ("backbone", info.backbone),
            ("fingerprint", info.fingerprint),
            ("task head", info.head.get("head")),
            ("labels", ", ".join(map(str, (info.head.get("task") or {}).get("labels") or ()))),
            *_scores(info.scores),
            *_training(training),
            ("made by isogloss", saved.version),
        ]
    )


@app.command("import")
def import_(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="AdapterHub or PEFT folder, or an S1 prompt.")],
    backbone: o.Backbone,
    out: o.Out,
    language: Annotated[str | None, typer.Option("--language", "-l", help="It is the module of this language.")] = None,
    task: Annotated[str | None, typer.Option("--task", "-t", help="It is a module of this task.")] = None,
    head: o.Head = None,
    head_option: o.HeadOptions = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Import a module of AdapterHub, PEFT or the S1 authors, and save it as ours.

    A task module whose head has no weights of its own (text, verbaliser) can be evaluated at once; of heads with weights
    only the module is imported.
    """
    target = free_output(out, overwrite)
    options = json_pairs(head_option, "--head-option")
    if task is None and (head or options):
        raise IsoglossError("--head and --head-option are for task modules; give --task too.")
    code = resolve(language, "--language").code if language else None
    check_backbone_name(backbone)
    check_device(device, None)

    from isogloss.formats import import_module, read_info, save_module

    loaded = open_backbone(backbone, dtype, device)
    module = import_module(folder, loaded, language=code, task=task)
    if task is not None:
        _give_head(module, task, loaded, head, options)
        if code is not None:
            module.info.training |= {"source": [code], "seen": [code]}
    _report(read_info(save_module(module, target, overwrite=overwrite)), "imported", json)


def _give_head(
    module: "TransferModule", name: str, backbone: "Backbone", head: str | None, options: dict[str, Any]
) -> None:
    """Says in the module's record how it is asked, where nothing more than that is needed."""
    from isogloss.tasks import get_task, task_names
    from isogloss.tasks.heads import make_head

    if name not in task_names():
        if head or options:
            get_task(name)
        say(f"note: '{name}' is no task that isogloss knows, so the module comes without a head")
        return
    asked = get_task(name)
    if asked.has_labels and asked.labels is None and not head:
        say(f"note: the labels of '{name}' are not known here, so the module comes without a head")
        return
    made = make_head(head, asked, backbone, **options)
    if list(made.state_dict()):
        if head:
            raise IsoglossError(
                f"--head {head}: it has weights, which this checkpoint does not hold; use verbaliser or text, or leave --head out."
            )
        say(f"note: the head '{made.name}' has weights that are not imported; --head verbaliser needs none")
        return
    module.info.head = made.to_json()


@app.command("export")
def export(
    folder: _Folder,
    out: o.Out,
    format: Annotated[str, typer.Option("--format", help="peft (prompts and LoRA).")] = "peft",
    backbone: o.BackboneOfModule = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Write a saved module in the format of another library."""
    from isogloss.formats import export_module, load_module, read_info

    saved = read_info(folder)
    target = free_output(out, overwrite)
    name = backbone or saved.info.backbone
    check_backbone_name(name)
    check_device(device, None)
    loaded = open_backbone(name, dtype, device)
    made = export_module(load_module(folder, loaded), target, format, backbone=loaded, overwrite=overwrite)
    if json:
        print_json({"folder": str(made), "format": format, "files": sorted(item.name for item in made.iterdir())})
    else:
        print_text(f"Exported {_spec(saved)} for {_purpose(saved)} to '{made}' ({format}).")


@app.command("push")
def push(
    folder: _Folder,
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the Hub.")],
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    json: o.Json = False,
) -> None:
    """Put a saved module on the Hugging Face Hub (log in once with `hf auth login`)."""
    from isogloss.formats import read_info

    saved = read_info(folder)
    address = push_folder(saved.folder, repository, private=private)
    if json:
        print_json({"module": str(saved.folder), "repository": repository, "url": address})
    else:
        print_text(f"Pushed '{saved.folder}' to {address}.")


@app.command("pull")
def pull(
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Model repository on the Hub.")],
    out: o.Out,
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit.")] = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
) -> None:
    """Fetch a saved module from the Hugging Face Hub."""
    from isogloss.formats import read_info

    target = free_output(out, overwrite)
    pull_folder(repository, target, revision=revision, overwrite=overwrite)
    _report(read_info(target), "pulled", json)


def _report(saved: "SavedModule", done: str, json: bool) -> None:
    if json:
        print_json({"module": str(saved.folder), **_facts(saved)})
    else:
        print_text(f"{done.capitalize()} {_spec(saved)} for {_purpose(saved)} into '{saved.folder}'.")


def _facts(saved: "SavedModule") -> dict[str, Any]:
    return {
        "folder": str(saved.folder),
        "method": saved.method,
        "spec": _spec(saved),
        **vars(saved.info),
        "parameters": saved.parameters,
        "isogloss": saved.version,
        "digest": saved.digest,
    }


def _spec(saved: "SavedModule") -> str:
    from isogloss.modules import format_module

    return format_module(saved.config)


def _purpose(saved: "SavedModule") -> str:
    info = saved.info
    if info.role == "language":
        return f"{language_name(info.language)} ({info.language})" if info.language else "a language not named"
    return info.task or "a task not named"


def _training(training: dict[str, Any]) -> list[tuple[str, str]]:
    """How it was trained, the chief facts in words and the rest by name."""
    rest = dict(training)
    facts: list[tuple[str, str]] = []

    def add(name: str, *parts: tuple[str, str]) -> None:
        said = [form.format(_one_line(rest.pop(key))) for key, form in parts if key in rest]
        facts.append((name, ", ".join(said)))

    data = rest.get("data")
    if isinstance(data, list):
        # A language module's data are files, each with its licence.
        rest["data"] = [
            f"{item.get('name')}{f' ({licence})' if (licence := item.get('licence')) else ''}"
            if isinstance(item, dict)
            else item
            for item in data
        ]
    over = rest.get("language_modules")
    if isinstance(over, dict):
        rest["language_modules"] = [language_name(code) for code in over]
    for key, one in (("steps", "step"), ("tokens", "token"), ("examples", "example")):
        if isinstance(rest.get(key), int):
            rest[key] = counted(rest[key], one)
    for key in ("source", "stage", "parameters"):  # said above
        rest.pop(key, None)
    if rest.get("language_method") == "none":
        rest.pop("language_method")
    add("trained on", ("data", "{}"), ("split", "{} split"), ("examples", "{}"), ("shots", "{} of each class"))
    add("over", ("language_method", "language {}"), ("language_modules", "of {}"))
    add("trained for", ("steps", "{}"), ("tokens", "{}"), ("seconds", "{} s"))
    add("objective", ("objective", "{}"))
    add(
        "optimiser",
        ("optimiser", "{}"),
        ("learning_rate", "learning rate {}"),
        ("schedule", "{}"),
        ("batch_size", "batches of {}"),
        ("seed", "seed {}"),
    )
    others = "; ".join(f"{key} {_one_line(value)}" for key, value in rest.items())
    return [*facts, ("other settings", others.replace("_", " "))]


def _scores(scores: dict[str, Any]) -> list[tuple[str, str]]:
    names = {"dev": "source dev data", "held_out": "held-out text"}
    return [(names.get(name, f"scores, {name}"), _one_line(found).replace("_", " ")) for name, found in scores.items()]


def _one_line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_one_line(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_one_line, value))
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"{value:,}"
    return number(value, 4).rstrip("0").rstrip(".") if isinstance(value, float) and abs(value) >= 0.01 else str(value)

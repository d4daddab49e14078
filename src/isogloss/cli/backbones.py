"""`isogloss backbones`: which ones travel with the package, which families fit, and what one of them is."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from isogloss.cli import _options as o
from isogloss.cli._console import print_facts, print_json, print_table, print_text
from isogloss.cli._inputs import check_backbone_name, check_device, language_name, open_backbone

if TYPE_CHECKING:
    from isogloss.backbones import Backbone


def backbones(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="bundled:..., a folder or a Hub id; none lists all.")
    ] = None,
    dtype: o.Dtype = None,
    device: o.Device = None,
    json: o.Json = False,
) -> None:
    """List the bundled backbones and the model families that fit, or describe one backbone."""
    if name is None:
        _list(json)
        return
    check_backbone_name(name)
    check_device(device, None)
    facts = describe(open_backbone(name, dtype, device))
    if json:
        print_json(facts)
        return
    sites = facts["sites"]
    blocks = ", ".join(f"{side} {count}" for side, count in sites["blocks"].items())
    known = ", ".join(language_name(code) for code in facts["languages"])
    print_facts(
        [
            ("name", facts["name"]),
            ("kind", facts["kind"]),
            ("family", f"{facts['family']} ({facts['norm']}-norm)"),
            ("parameters", facts["parameters"]),
            ("hidden size", facts["hidden_size"]),
            ("vocabulary", facts["vocabulary"]),
            ("longest input", facts["max_length"] or "no limit"),
            ("tokenizer", facts["tokenizer"]),
            ("sites", f"embedding, blocks ({blocks}), head"),
            ("LoRA targets", ", ".join(sites["linears"])),
            ("prompt pool", facts["pool"]),
            ("fingerprint", facts["fingerprint"]),
            ("languages", known),
        ]
    )


def describe(backbone: "Backbone") -> dict[str, Any]:
    """Facts of a loaded backbone, as JSON data."""
    return {
        "name": backbone.name,
        "kind": backbone.kind,
        "family": backbone.family.name,
        "model_type": backbone.config.model_type,
        "norm": backbone.family.norm,
        "parameters": sum(parameter.numel() for parameter in backbone.model.parameters()),
        "hidden_size": backbone.hidden_size,
        "vocabulary": backbone.vocabulary_size,
        "max_length": backbone.max_length,
        "tokenizer": backbone.tokenizer is not None,
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "sites": {
            "embedding": True,
            "blocks": {side: len(backbone.sites.blocks[side]) for side in backbone.sites.sides},
            "linears": list(backbone.family.linears),
            "head": True,
        },
        "fingerprint": backbone.fingerprint,
        "languages": list(backbone.languages),
        "pool": backbone.pool,
    }


def _list(json: bool) -> None:
    from isogloss.backbones import FAMILIES
    from isogloss.backbones.bundled import bundled_folder, bundled_names
    from isogloss.storage import read_json

    bundled = []
    for name in bundled_names():
        card = bundled_folder(name) / "isogloss.json"
        facts = read_json(card) if card.is_file() else {}
        bundled.append(
            {
                "name": name,
                "kind": facts.get("kind"),
                "parameters": facts.get("parameters"),
                "languages": facts.get("languages", []),
            }
        )
    families = [{"name": f.name, "kind": f.kind, "norm": f.norm, "model_types": list(f.model_types)} for f in FAMILIES]
    if json:
        print_json({"bundled": bundled, "families": families})
        return
    if bundled:
        print_table(
            ("bundled backbone", "kind", "parameters", "languages"),
            [(item["name"], item["kind"], item["parameters"], len(item["languages"])) for item in bundled],
            right=(2, 3),
            keep=(0,),
        )
        print_text()
    print_table(
        ("family", "kind", "norm", "model types of transformers"),
        [(item["name"], item["kind"], item["norm"], ", ".join(item["model_types"])) for item in families],
        keep=(0, 1),
    )
    print_text("Any Hub id or folder of these works; other pre-norm models are tried by walking their modules.")

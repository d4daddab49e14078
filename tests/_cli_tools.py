"""The command line run in this process, and a tiny trained world that the tests share."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from isogloss.cli.app import run

SLOVAK = ["Parlament schválil nový zákon o daniach.", "Tím vyhral zápas po predĺžení.", "Lekár odporučil viac spánku."]
ENGLISH = [
    "The parliament passed a new tax law.",
    "The team won the match in overtime.",
    "The doctor advised more sleep.",
]
RECIPE = """\
name: tiny {kind}
kind: {kind}
languages: [en, sk]
text: [{text}]
tokenizer: {{vocabulary: 420, max_characters: 20000, sentinels: {sentinels}}}
model: {{hidden: 16, layers: 1, heads: 2, ffn: 16, max_length: 96}}
objectives: [{{name: {objective}, weight: 1.0}}]
stages: [{{steps: 2, length: 24, batch: 4}}]
precision: fp32
"""
OBJECTIVES = {"encoder": "masked", "decoder": "causal", "encoder-decoder": "spans"}


@dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The last line of stdout."""
        return json.loads(self.out.splitlines()[-1])


def isogloss(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Runs one command as the program would."""
    capsys.readouterr()
    status = run([str(item) for item in arguments])
    captured = capsys.readouterr()
    return Result(status, captured.out, captured.err)


def succeed(capsys: pytest.CaptureFixture[str], *arguments: object) -> Result:
    """Runs one command that must end well."""
    result = isogloss(capsys, *arguments)
    assert result.status == 0, result.err
    return result


def write_texts(root: Path) -> Path:
    """Raw text of two languages as JSONL."""
    folder = root / "text"
    folder.mkdir()
    for code, lines in (("eng_Latn", ENGLISH), ("slk_Latn", SLOVAK)):
        rows = [json.dumps({"text": f"{line} {number}"}, ensure_ascii=False) for number in range(20) for line in lines]
        (folder / f"{code}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder


def write_recipe(root: Path, text: Path, kind: str) -> Path:
    """A pre-training recipe of two steps."""
    path = root / f"{kind}.yaml"
    sentinels = 8 if kind == "encoder-decoder" else 0
    path.write_text(RECIPE.format(kind=kind, text=text, objective=OBJECTIVES[kind], sentinels=sentinels))
    return path


@dataclass(frozen=True)
class World:
    """Folders of a tiny backbone and modules on it, all made by the command line.

    `topic` was trained over `en`; `plain` without a language module; `sk` and `en` are adapters.
    """

    root: Path
    text: Path
    recipe: Path
    backbone: Path
    en: Path
    sk: Path
    topic: Path
    plain: Path


def build_world(root: Path) -> World:
    """Makes a world of its own, so that the tests that only look share one."""
    torch.set_num_threads(1)
    text = write_texts(root)
    recipe = write_recipe(root, text, "encoder")
    world = World(root, text, recipe, *(root / name for name in ("backbone", "en", "sk", "topic", "plain")))
    train = ("train", "task", "-b", world.backbone, "-t", "topic", "-d", "bundled:parallel", "-s", "en")
    small = ("--module", "adapter:4", "--limit", 30, "--device", "cpu")
    commands: list[tuple[object, ...]] = [("pretrain", recipe, "--out", world.backbone)]
    for code, folder, name in (("eng_Latn", world.en, "English"), ("slk_Latn", world.sk, "sk")):
        source = text / f"{code}.jsonl"
        short = ("--steps", 2, "--length", 24, "--batch-size", 4, "--device", "cpu")
        what = ("train", "language", "-b", world.backbone, "-l", name, "-t", source, "-m", "adapter:4")
        commands.append((*what, *short, "--out", folder))
    commands.append((*train, *small, "--language-module", world.en, "--steps", 2, "--out", world.topic))
    commands.append((*train, *small, "--steps", 2, "--select", "last", "--out", world.plain))
    for command in commands:
        assert run([str(item) for item in command]) == 0, command
    return world

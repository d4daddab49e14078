"""`isogloss meta learn|show` and `train task --update` as a user types them, and every wrong input in one sentence."""

from pathlib import Path

import pytest

from isogloss.meta.memory import gibibytes
from tests import _cli_tools as tools
from tests._cli_tools import World, isogloss, succeed


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return tools.build_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def rule(world: World) -> Path:
    folder = world.root / "rule"
    assert tools.run([str(item) for item in learn(world, folder)]) == 0
    return folder


def learn(world: World, out: Path, *changes: object, method: str = "gates", auxiliary: str = "de,hi") -> list[object]:
    return [
        *(
            "meta",
            "learn",
            "-b",
            world.backbone,
            "--method",
            method,
            "-t",
            "topic",
            "-d",
            "bundled:parallel",
            "-s",
            "en",
        ),
        *("-a", auxiliary, "-m", "adapter:4", "--train", "modules", "--limit", 20, "--batch-size", 4),
        *("--outer-steps", 2, "--start-epochs", 0.2, "--device", "cpu", "-o", out, *changes),
    ]


def train(world: World, out: Path, update: object, *changes: object) -> list[object]:
    return [
        *(
            "train",
            "task",
            "-b",
            world.backbone,
            "-t",
            "topic",
            "-d",
            "bundled:parallel",
            "-s",
            "en",
            "-m",
            "adapter:4",
        ),
        *("--limit", 20, "--steps", 2, "--select", "last", "--device", "cpu", "--update", update, "-o", out, *changes),
    ]


def test_a_rule_is_learned_shown_and_used(
    world: World, rule: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = succeed(capsys, "meta", "show", rule, "--json").json
    assert shown["kind"] == "rule" and shown["method"] == "gates"
    assert shown["source"] == ["eng_Latn"] and shown["auxiliary"] == ["deu_Latn", "hin_Deva"]
    assert shown["groups"] == ["encoder 0", "head"] and 0.5 < shown["mean_gate"] < 1.0
    page = tmp_path / "gates.html"
    printed = succeed(capsys, "meta", "show", rule, "--figure", page)
    assert "encoder 0" in printed.out and "not zero-shot" in printed.out
    assert "<svg" in page.read_text() and "encoder 0" in page.read_text()
    succeed(capsys, *train(world, tmp_path / "topic", rule))
    result = succeed(
        capsys, "evaluate", "-d", "bundled:parallel", "--targets", "de,sk,en", "-m", tmp_path / "topic", "--json"
    ).json
    assert result["mean_over"] == ["slk_Latn"] and result["seen"] == ["deu_Latn", "eng_Latn", "hin_Deva"]
    table = succeed(capsys, "evaluate", "-d", "bundled:parallel", "--targets", "de,sk,en", "-m", tmp_path / "topic")
    assert "seen" in table.out and "mean of 1 target" in table.out


@pytest.mark.parametrize("method", ["xmaml", "auxiliary"])
def test_a_start_is_learned_shown_and_used(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str
) -> None:
    out = tmp_path / "start"
    found = succeed(capsys, *learn(world, out, "--json", method=method))
    result = found.json
    assert result["method"] == method and result["steps"] == 2
    # Told before the fine-tuning that stands in front of the outer steps, and once.
    lines = found.err.splitlines()
    told = [number for number, line in enumerate(lines) if "an outer step takes about" in line]
    assert len(told) == 1 and "plain fine-tuning" in lines[told[0] + 1]
    assert gibibytes(result["memory_estimate"]) in lines[told[0]]
    shown = succeed(capsys, "meta", "show", out, "--json").json
    assert shown["kind"] == "start" and shown["auxiliary"] == ["deu_Latn", "hin_Deva"]
    assert "auxiliary" in succeed(capsys, "meta", "show", out).out
    succeed(capsys, *train(world, tmp_path / "few", out))
    succeed(capsys, "evaluate", "-d", "bundled:parallel", "--targets", "sk", "-m", out)
    refused = isogloss(capsys, "meta", "show", out, "--figure", tmp_path / "x.html")
    assert refused.status == 2 and "no gates to draw" in refused.err


def refused(capsys: pytest.CaptureFixture[str], arguments: list[object], *words: str, out: Path | None = None) -> None:
    result = isogloss(capsys, *arguments)
    error = [line for line in result.err.splitlines() if line.startswith("error:")]
    assert result.status == 2 and len(error) == 1, result.err
    assert all(word in error[0] for word in words), error[0]
    assert "Traceback" not in result.err
    assert out is None or not out.exists()


def test_languages_that_cannot_teach_are_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    refused(capsys, learn(world, out, auxiliary="eng"), "English", "also the source", out=out)
    refused(capsys, learn(world, out, "--targets", "sk,hindi"), "Hindi", "also a target of the evaluation", out=out)
    refused(capsys, learn(world, out, auxiliary="yo"), "--auxiliary yo", "no folder", out=out)
    refused(capsys, learn(world, out, "--split-auxiliary", "train"), "no labelled train data", "dev", out=out)
    refused(capsys, learn(world, out, auxiliary=","), "--auxiliary is missing", out=out)


def test_methods_and_options_that_are_not_there_are_refused(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    refused(capsys, learn(world, out, method="maml"), "--method maml", "xmaml", out=out)
    refused(capsys, learn(world, out, "--option", "knots=3"), "'gates' has no option 'knots'", out=out)
    refused(capsys, learn(world, out, "--option", "start=1"), "start=1", "between 0 and 1", out=out)
    refused(capsys, learn(world, out, "--by", "neuron"), "by='neuron'", out=out)
    refused(capsys, learn(world, out, "--base", "lion"), "base step 'lion'", out=out)
    refused(capsys, learn(world, out, "--order", "third"), "order='third'", out=out)
    refused(capsys, learn(world, out, "--order", "second", method="fomaml"), "of first order", "xmaml", out=out)
    refused(capsys, learn(world, out, "--start", world.plain), "--start", "leave --start out", out=out)
    nowhere = tmp_path / "nowhere"
    refused(capsys, learn(world, out, "--start", nowhere, method="fomaml"), "nowhere", "no module.json", out=nowhere)
    other = learn(world, out, "--start", world.plain, "-m", "adapter:8", method="fomaml")
    refused(capsys, other, "--start", "--module adapter:4, not adapter:8", out=out)
    refused(
        capsys, learn(world, out, "--start", world.en, method="fomaml"), "--start", "not a module for the task", out=out
    )


def test_more_steps_than_memory_are_refused(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    much = ("--inner-steps", 40, "--order", "second", "--memory", 0.002)
    refused(
        capsys,
        learn(world, tmp_path / "out", *much),
        "40 inner steps of second order",
        "are free",
        out=tmp_path / "out",
    )


def test_a_rule_is_refused_for_another_backbone_task_or_module(
    world: World, rule: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    other = [item if item != world.backbone else "bundled:encoder" for item in train(world, out, rule)]
    refused(capsys, other, "the rule was learned on", "bundled:encoder", out=out)
    task = [item if item != "topic" else "classification" for item in train(world, out, rule)]
    refused(capsys, [*task, "--field", "text=text", "--field", "label=category"], "learned for the task topic", out=out)
    module = [item if item != "adapter:4" else "adapter:8" for item in train(world, out, rule)]
    refused(capsys, module, "the rule moves --module adapter:4", "adapter:8", out=out)
    refused(capsys, train(world, out, rule, "--train", "all"), "--train modules", out=out)
    refused(capsys, train(world, out, "half-open"), "neither a folder", "bottom:N", out=out)
    refused(capsys, train(world, out, world.plain), "neither an update rule nor a learned start", out=out)
    scored = ["evaluate", "-d", "bundled:parallel", "--targets", "sk", "-m", rule]
    refused(capsys, scored, "is an update rule", "train task --update")
    refused(capsys, ["meta", "show", world.plain], "neither an update rule nor a learned start")


def test_controls_need_no_folder(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, control in enumerate(("all-open", "all-shut", "bottom:0", "random:0.5:3")):
        succeed(capsys, *train(world, tmp_path / str(number), control))


RECIPES = sorted((Path(__file__).parent.parent / "recipes" / "meta").glob("*.yaml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_one_that_the_command_understands(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A data folder without a single language: the last thing that is asked for before data are read."""
    (tmp_path / "data").mkdir()
    arguments = [
        "meta",
        "learn",
        "--recipe",
        recipe,
        "-d",
        tmp_path / "data",
        "-b",
        "bundled:encoder",
        "-o",
        tmp_path / "out",
    ]
    refused(capsys, arguments, "no folder of a language in it", out=tmp_path / "out")


def test_recipes_give_options_and_the_command_line_has_the_last_word(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"method: gates\nbackbone: {world.backbone}\ntask: topic\ndata: bundled:parallel\nsource: en\nauxiliary: [de, hi]\n"
        "module: adapter:4\ntrain: modules\nlimit: 20\nbatch_size: 4\nouter_steps: 9\n"
    )
    found = succeed(capsys, "meta", "learn", "--recipe", recipe, "--outer-steps", 1, "-o", tmp_path / "rule", "--json")
    result = found.json
    assert f"an outer step takes about {gibibytes(result['memory_estimate'])} of memory" in found.err
    assert result["steps"] == 1 and result["auxiliary"] == ["deu_Latn", "hin_Deva"]
    recipe.write_text("speed: 3\n")
    refused(capsys, ["meta", "learn", "--recipe", recipe, "-o", tmp_path / "no"], "has no option 'speed'")
    refused(capsys, ["meta", "learn", "--recipe", tmp_path / "none.yaml", "-o", tmp_path / "no"], "cannot be read")

"""Clusters of languages, the page, and `isogloss pool`."""

from pathlib import Path

import numpy as np
import pytest

from isogloss.errors import IsoglossError
from isogloss.report.page import render_page
from isogloss.report.pool_clusters import agreement, agreement_table, attention_map, cluster_languages, dendrogram
from isogloss.report.pool_page import pool_page
from isogloss.report.study_data import PoolAttention
from isogloss.report.trace import Trace
from tests._cli_tools import isogloss, succeed
from tests._pool_tools import LANGUAGES, recipe, write_world

CODES = ("deu_Latn", "eng_Latn", "nld_Latn", "hin_Deva", "mar_Deva", "rus_Cyrl", "ukr_Cyrl")


def pool_of(groups: list[int], sharp: float = 0.9) -> PoolAttention:
    """Languages of one group attend to one key, more or less."""
    draw = np.random.default_rng(0)
    rows = [[sharp if key == group else (1 - sharp) / 7 for key in range(8)] for group in groups]
    noisy = np.array(rows) + draw.uniform(0, 0.01, (len(groups), 8))
    return PoolAttention("s", "pool:8x4", CODES, (noisy / noisy.sum(1, keepdims=True)).tolist())


def test_clusters_find_the_groups() -> None:
    pool = pool_of([0, 0, 0, 1, 1, 2, 2])
    clusters = cluster_languages(pool)
    order = list(clusters.order)
    for group in ([0, 1, 2], [3, 4], [5, 6]):
        places = sorted(order.index(item) for item in group)
        assert places == list(range(places[0], places[0] + len(group)))
    scripts = agreement(clusters, "script", lambda item: item.script)
    assert scripts.within is not None and scripts.between is not None and scripts.p is not None
    assert scripts.within < 0.1 < 0.5 < scripts.between and scripts.p < 0.05
    assert agreement(clusters, "all", lambda item: "one").p is None
    assert len(agreement_table(clusters).rows) == 2


def test_distances_are_those_of_a_formula() -> None:
    one, other = [0.5, 0.5, 0.0], [0.25, 0.25, 0.5]
    found = cluster_languages(PoolAttention("", "x", CODES[:2], [one, other])).distances[0, 1]
    middle = [(a + b) / 2 for a, b in zip(one, other, strict=True)]
    kind = [sum(p * np.log2(p / m) for p, m in zip(row, middle, strict=True) if p) for row in (one, other)]
    assert found == pytest.approx(np.sqrt(sum(kind) / 2))
    far = cluster_languages(PoolAttention("", "x", CODES[:2], [[1.0, 0.0], [0.0, 1.0]])).distances[0, 1]
    assert far == pytest.approx(1.0)


def test_figures_and_page() -> None:
    pool = pool_of([0, 0, 0, 1, 1, 2, 2])
    clusters = cluster_languages(pool)
    tree = dendrogram("tree", pool, clusters)
    for text in ("German (deu_Latn)", "Indo-European", "Cyrl", "Deva"):
        assert text in tree.svg
    assert "key" in attention_map("attention", pool, clusters).svg
    usage = {
        "keys": 8,
        "dead": [7],
        "languages": {
            code: {"texts": 3, "entropy": 0.5, "spread": 0.7, "effective_keys": 2.0, "attention": row}
            for code, row in zip(pool.languages, pool.attention, strict=True)
        },
    }
    page = render_page(pool_page(usage, pool, [("pool", "pool:8x4")], Trace("cmd", (), "b", "f", "d", "v")))
    assert page.count("<svg") == 2 and "1 of 8 keys are dead" in page and "<script src" not in page


def test_bad_attention() -> None:
    for rows in ([[0.5, 0.5]], [[0.5, float("nan")]] * 2, [[-1.0, 2.0]] * 2, [[0.0, 0.0]] * 2):
        with pytest.raises(IsoglossError):
            cluster_languages(PoolAttention("", "x", CODES[:2], rows))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from isogloss.training.pretrain import pretrain

    folder = write_world(tmp_path_factory.mktemp("world"))
    pretrain(
        recipe(folder, stages=[{"steps": 2, "length": 24, "batch": 4}]), folder / "backbone", cache_dir=folder / "cache"
    )
    return folder


def test_pool_show(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = world / "pool.html"
    shown = succeed(
        capsys, "pool", "show", "--backbone", world / "backbone", "--text", world / "text", "--html", page, "--json"
    ).json
    assert shown["pool"] == "pool:4x2" and set(shown["languages"]) == set(LANGUAGES) == set(shown["order"])
    for found in shown["languages"].values():
        assert sum(found["attention"]) == pytest.approx(1)
    assert "Languages clustered" in page.read_text()
    out = succeed(
        capsys, "pool", "show", "-b", world / "backbone", "-t", world / "text", "-l", "en,de,cs", "--documents", 3
    ).out
    assert "keys used" in out and "family" in out


def test_pool_train_then_show(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = succeed(
        capsys, "pool", "train", "-b", world / "backbone", "-t", world / "text", "-o", tmp_path / "p", "-m", "pool:3x2",
        "--steps", 2, "--length", 24, "--batch-size", 4, "--json",
    )  # fmt: skip
    assert done.json["notation"] == "pool:shared"
    shown = succeed(capsys, "pool", "show", "--module", tmp_path / "p", "--text", world / "text", "--json")
    assert shown.json["keys"] == 3
    assert "shared" in succeed(capsys, "modules", "list", tmp_path).out


def test_a_backbone_without_a_pool_has_none_to_show(world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = isogloss(capsys, "pool", "show", "-b", "bundled:encoder", "--text", world / "text")
    said = found.err.strip().splitlines()[-1]
    assert found.status == 2 and said.startswith("error: --backbone bundled:encoder: it was trained without a prompt")


def test_bad_input_is_one_sentence(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    text = ("--text", world / "text")
    for arguments, said in [
        (("show", *text), "Give --backbone"),
        (("show", "-b", world / "nowhere", *text), "no such folder"),
        (("show", "-b", world / "backbone", "--text", tmp_path / "none"), "there is no such folder"),
        (("show", "-b", world / "backbone", "--text", tmp_path / "empty"), "no file <language>.txt"),
        (("show", "-b", world / "backbone", *text, "-l", "en,fi"), "no text for fin_Latn"),
        (("show", "-b", world / "backbone", *text, "-l", "Klingonish"), "Klingonish"),
        (("show", "-b", world / "backbone", *text, "--html", tmp_path), "this is a folder"),
        (("show", "-m", tmp_path, *text), "is not a saved module"),
        (("train", "-b", world / "backbone", *text, "-o", tmp_path / "o", "-m", "pool:4"), "KEYSxLENGTH"),
    ]:
        result = isogloss(capsys, "pool", *arguments)
        assert result.status == 2 and said in result.err and len(result.err.strip().splitlines()) == 1, (
            arguments,
            result,
        )

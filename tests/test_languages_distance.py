"""Distances between languages, against URIEL's own numbers."""

import csv
import gzip
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isogloss.errors import IsoglossError
from isogloss.languages import DISTANCE_KINDS, Language, all_languages, distance, distances, nearest, resolve

SHARED = Path(os.environ.get("ISOGLOSS_SHARED", Path(__file__).parents[2] / "shared"))
URIEL = SHARED / "data" / "uriel"
needs_uriel = pytest.mark.skipif(not URIEL.exists(), reason="needs data/uriel of ISOGLOSS_SHARED")
some_language = st.sampled_from(all_languages())
some_kind = st.sampled_from(DISTANCE_KINDS)
# URIEL lists no family for these; ours is that of their macrolanguage (see docs/languages.md).
BORROWED = {"ltg", "lvs", "nno", "nob", "twi"}


def _rows(name: str) -> list[dict[str, str]]:
    with gzip.open(URIEL / name, "rt", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t"))


@given(some_kind, some_language, some_language)
def test_distances_are_symmetric_and_within_bounds(kind: str, a: Language, b: Language) -> None:
    there, back = distance(kind, a, b), distance(kind, b, a)
    assert there.value == pytest.approx(back.value, abs=1e-12) if there.value is not None else back.value is None
    assert there.imputed == back.imputed
    assert 0 <= there.imputed <= 1
    assert there.value is None or 0 <= there.value <= 1


@given(some_kind, some_language)
def test_a_language_is_at_no_distance_from_itself(kind: str, language: Language) -> None:
    assert distance(kind, language, language).value == 0


def test_script_does_not_matter() -> None:
    assert distance("featural", "zho_Hans", "zho_Hant").value == 0
    assert distances("srp_Latn", "slk") == distances("srp_Cyrl", "slk")
    assert tuple(distances("sk", "cs")) == DISTANCE_KINDS


@needs_uriel
def test_values_agree_with_those_computed_from_the_published_vectors() -> None:
    borrowed = set()
    languages = {iso: resolve(f"{iso}_Latn") for iso in {row["iso639_3"] for row in _rows("family.tsv.gz")}}
    for row in _rows("distances_computed.tsv.gz")[::7]:
        a, b = row["lang1"], row["lang2"]
        for kind in ("syntactic", "phonological", "inventory", "featural", "genetic"):
            found = distance(kind, languages[a], languages[b])
            if kind == "genetic" and found.imputed:
                borrowed |= {a, b} & BORROWED
                assert {a, b} & BORROWED, row
            else:
                assert found.value == pytest.approx(float(row[kind]), abs=1e-3), (kind, row)
    assert borrowed == BORROWED


@needs_uriel
def test_imputed_is_the_share_of_features_without_a_source() -> None:
    rows = {row["iso639_3"]: row for row in _rows("features_average.tsv.gz")}
    for a, b in [("eng", "slk"), ("eng", "deu"), ("fra", "swh"), ("tam", "tel"), ("yor", "ace")]:
        for kind, prefix in [
            ("syntactic", "S_"),
            ("phonological", "P_"),
            ("inventory", "INV_"),
            ("featural", ""),
        ]:
            names = [n for n in rows[a] if n.startswith(prefix) and n != "iso639_3"]
            gaps = sum(rows[a][n] == "--" or rows[b][n] == "--" for n in names)
            assert distance(kind, a, b).imputed == pytest.approx(gaps / len(names))


def test_unattested_features_are_said() -> None:
    found = distance("syntactic", "slk", "eng")
    assert found.imputed == 1
    assert "slk" in found.note


@pytest.mark.skipif(find_spec("lang2vec") is None, reason="needs lang2vec, the source of the places")
def test_places_agree_with_the_grid_distances_they_were_found_from() -> None:
    spec = find_spec("lang2vec")
    assert spec is not None and spec.origin is not None
    with np.load(Path(spec.origin).parent / "data" / "geocoord_features.npz", allow_pickle=False) as stored:
        row = {str(code): i for i, code in enumerate(stored["langs"])}
        grid = stored["data"][:, :, 0].astype(float)
    rng = np.random.default_rng(0)
    languages = [language for language in all_languages() if language.iso639_3 in row]
    for i, j in rng.integers(len(languages), size=(200, 2)):
        found = distance("geographic", languages[i], languages[j]).value
        if found is None:
            continue
        a, b = grid[row[languages[i].iso639_3]], grid[row[languages[j].iso639_3]]
        # Triangle inequality through each of the 299 grid points; the best point leaves little room.
        assert np.abs(a - b).max() - 0.01 <= found <= (a + b).min() + 0.01
        assert found - np.abs(a - b).max() <= 0.02


def test_geographic_distance_against_places_on_the_map() -> None:
    def arc(lat1: float, lon1: float, lat2: float, lon2: float) -> float:  # haversine formula
        p, q, d = np.radians([lat1, lat2, lon2 - lon1])
        return float(2 * np.arcsin(np.sqrt(np.sin((p - q) / 2) ** 2 + np.cos(p) * np.cos(q) * np.sin(d / 2) ** 2)))

    # WALS: English 52 N 0, Slovak 49 N 20 E, Japanese 37 N 140 E.
    assert distance("geographic", "eng", "slk").value == pytest.approx(arc(52, 0, 49, 20) / np.pi, abs=0.01)
    assert distance("geographic", "eng", "jpn").value == pytest.approx(arc(52, 0, 37, 140) / np.pi, abs=0.01)


def test_families() -> None:
    assert distance("genetic", "slk", "ces").value < distance("genetic", "slk", "rus").value < 1  # type: ignore[operator]
    assert distance("genetic", "slk", "hun").value == 1
    basque = distance("genetic", "eus", "spa")
    assert (basque.value, basque.imputed) == (1, 0)
    assert "isolate" in basque.note
    assert resolve("eus").family == ""
    norwegian = distance("genetic", "nob", "swe")
    assert norwegian.value is not None and norwegian.value < 0.5
    assert norwegian.imputed == 1 and "nor" in norwegian.note


def test_a_language_that_uriel_lacks_has_no_value_but_a_note() -> None:
    found = distance("featural", "cnr", "slk")  # Montenegrin, in ISO 639-3 since 2017
    assert found.value is None
    assert "cnr" in found.note


def test_nearest() -> None:
    found = nearest("slk", "genetic", count=3)
    assert len(found) == 3
    assert "ces" in [language.iso639_3 for language, _ in found]
    values = [d.value for _, d in nearest("slk", "featural", count=20)]
    assert values == sorted(values)  # type: ignore[type-var]
    among = nearest("zho_Hans", "geographic", among=["zho_Hant", "de", "ja", "cnr"])
    assert [language.code for language, _ in among] == ["jpn_Jpan", "deu_Latn"]


def test_errors() -> None:
    with pytest.raises(IsoglossError, match="'featurel'; did you mean featural"):
        distance("featurel", "sk", "cs")
    with pytest.raises(IsoglossError, match="Unknown kind of distance 'x'; use one of genetic"):
        nearest("sk", "x")
    with pytest.raises(IsoglossError, match="count of nearest languages is 0"):
        nearest("sk", count=0)
    with pytest.raises(IsoglossError, match="'Slovk'"):
        distance("genetic", "Slovk", "cs")


def test_import_reads_no_table_and_no_torch() -> None:
    code = (
        "import sys, isogloss.languages, isogloss.languages._table as t, isogloss.languages._distance as d;"
        "assert t.table.cache_info().currsize == 0 and d._uriel.cache_info().currsize == 0;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

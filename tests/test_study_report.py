"""The report of a study: settings, groups with missing languages, verdicts, files that agree, markup shown as text."""

import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from _report_tools import EVIL, example, scored
from test_report import read_html

from isogloss.errors import IsoglossError
from isogloss.languages import distances
from isogloss.report.latex import escape
from isogloss.report.statistics import score
from isogloss.report.study_compare import compare
from isogloss.report.study_data import (
    GateTable,
    LearningCurve,
    PlannedScore,
    PoolAttention,
    PublishedScore,
    StudyData,
    StudyScore,
)
from isogloss.report.study_distance import links_of, log_shares
from isogloss.report.study_effects import effects_of
from isogloss.report.study_figures import cost_figure, win_matrix
from isogloss.report.study_groups import groups_of
from isogloss.report.study_index import arms_of, boards_of
from isogloss.report.study_page import write_study_report
from isogloss.report.study_published import published_table
from isogloss.report.study_sets import aligned_sets
from isogloss.report.study_tables import difference_table, language_table, standing_table, summary_table
from isogloss.report.study_training_figures import pool_entropy
from isogloss.report.study_words import draws_sentence, freezing_sentence, missing_sentence, task_sentence, verdict

rng = np.random.default_rng(0)
BASE = (rng.random(120) < 0.5).astype(int)


def better(share: float, seed: int = 0) -> list[int]:
    """BASE with some wrong answers put right."""
    fixed = np.random.default_rng(1000 + seed).random(len(BASE)) < share
    return np.maximum(BASE, fixed).tolist()


def study(scores: list[StudyScore], **given: object) -> StudyData:
    return StudyData("a study", "what wins?", scores, **given)  # type: ignore[arg-type]


def result_of(data: StudyData, draws: int = 400):  # type: ignore[no-untyped-def]
    boards, _ = boards_of(data)
    return compare(boards[0], data, draws=draws)


def test_settings_are_named_by_what_tells_them_apart() -> None:
    def one(**factors: object) -> StudyScore:
        return StudyScore("s", factors, "t", "eng_Latn", "deu_Latn", 1, "accuracy", 50.0, 10)  # type: ignore[arg-type]

    scores = [
        one(cell="TP", freeze=frozen, length=length, task_module=f"prompt:{length}", backbone="b", language_seed=42)
        for frozen in (True, False)
        for length in (5, 20)
    ] + [one(cell="TA", freeze=True, length=None, task_module="adapter:16", backbone="b", language_seed=None)]
    names = {arm.name for arm in arms_of(scores).values()}
    assert names == {"TP · frozen · length 5", "TP · frozen · length 20", "TP · unfrozen · length 5", "TP · unfrozen · length 20", "TA · frozen"}  # fmt: skip
    assert [arm.name for arm in arms_of(scores[:1]).values()] == ["TP"]


def test_long_seeds_are_told_apart() -> None:
    scores = [scored("LA+TA", "deu_Latn", None, value=50, language_seed=seed) for seed in (20240101, 20240102)]
    assert len({arm.name for arm in arms_of(scores).values()}) == 2


def test_a_planted_winner_is_found_and_equals_are_left_open() -> None:
    scores = []
    for code in ("deu_Latn", "slk_Latn", "tur_Latn"):
        for seed in (1, 2, 3):
            scores += [
                scored("LP+TA", code, better(0.5, seed), seed=seed),
                scored("TA", code, better(0.1, seed), seed=seed),
                scored("TP", code, better(0.1, seed + 10), seed=seed),
            ]
    result = result_of(study(scores), 2000)
    assert result.main.standings[0].arm.name == "LP+TA" and verdict(result.main) == "sure"
    assert result.main.standings[0].best == pytest.approx(1.0, abs=0.02)
    assert "Sure: ahead of all" in task_sentence(result)
    weaker = next(pair for pair in result.main.pairs if {pair.first.name, pair.second.name} == {"TA", "TP"})
    assert not weaker.surer and weaker.adjusted > 0.05
    equal = result_of(study([one for one in scores if one.factors["cell"] != "LP+TA"]))
    assert verdict(equal.main).startswith("open: ") and [arm.name for arm in equal.main.rivals()] != []


def test_means_are_over_languages_that_all_settings_have() -> None:
    codes = ("deu_Latn", "slk_Latn", "tur_Latn", "swh_Latn")
    scores = [scored("TA", code, better(0.1 * place)) for place, code in enumerate(codes)]
    scores += [scored("TP", code, better(0.2)) for code in codes[:3]]
    scores += [scored("LP+TA", codes[0], better(0.9))]
    data = study(scores)
    result = result_of(data)
    main = result.main
    assert [one.arm.name for one in main.standings] == ["TP", "TA"] and main.left_out == ["swh_Latn"]
    expected = np.mean([100 * np.mean(better(0.1 * place)) for place in range(3)])
    assert main.standings[1].estimate.value == pytest.approx(expected)
    ((arm, value, missing),) = main.unranked
    assert arm.name == "LP+TA" and set(missing) == set(codes[1:]) and value == pytest.approx(100 * np.mean(better(0.9)))
    table = standing_table(result, data)
    assert any("Swahili" in note for note in table.notes) and any("LP+TA is not ranked" in note for note in table.notes)
    assert table.rows[-1][0] == "LP+TA (on 1 of 4 only)"
    # The language stands in the table by language all the same.
    assert next(row for row in language_table(result, data).rows if row[0] == "Swahili")[3] is None


def test_groups_of_languages() -> None:
    codes = ["eng_Latn", "deu_Latn", "rus_Cyrl", "bul_Cyrl", "swh_Latn", "tur_Latn"]
    scores = [scored("TA", code, better(0.1), seen=code in ("eng_Latn", "tur_Latn")) for code in codes]
    shares = {"deu_Latn": 0.2, "rus": 0.1, "bul_Cyrl": 0.0002, "eng_Latn": 0.5}
    data = study(scores, shares={"": shares}, groups={"east": ["bul", "rus_Cyrl", "tur_Latn"]})
    (board,), _ = boards_of(data)
    found = {group.name: {language for _, language in group.units} for group in groups_of(board, data)}
    assert found["zero-shot"] == {"deu_Latn", "rus_Cyrl", "bul_Cyrl", "swh_Latn"}
    assert found["source"] == {"eng_Latn"} and found["helped training"] == {"tur_Latn"} and found["all"] == set(codes)
    assert found["seen in pre-training"] == {"deu_Latn", "rus_Cyrl", "bul_Cyrl"} and found["unseen"] == {"swh_Latn"}
    assert found["low-resource"] == {"bul_Cyrl", "swh_Latn"}
    # Trained on by some setting, and so left out; the same languages under two names are shown once.
    assert found["east"] == {"bul_Cyrl", "rus_Cyrl"} and "script Cyrl" not in found
    assert found["script Latn"] == {"deu_Latn", "swh_Latn"}
    # Who looks for the group that is not shown is told which one it is.
    table = standing_table(result_of(data), data)
    assert "east and script Cyrl are the same languages here, and stand in one column." in table.notes


def test_a_studys_own_groups_are_not_taken_for_others_of_their_name() -> None:
    """Their means stood in the columns of both, and the gap was taken to a few of the zero-shot languages."""
    codes = ["eng_Latn", "deu_Latn", "rus_Cyrl", "swh_Latn", "hin_Deva"]
    scores = [scored("TA", code, None, value=90.0 - 20 * place) for place, code in enumerate(codes)]
    groups = {"unseen": ["rus", "swh"], "all": ["deu", "rus"], "zero-shot": ["swh", "hin"]}
    data = study(scores, groups=groups, shares={"": {"eng": 0.9, "deu": 0.1}})
    result = result_of(data)
    names = [one.group.name for one in result.groups]
    assert len(set(names)) == len(names) and result.group("unseen").standings[0].estimate.value == 40  # type: ignore[union-attr]
    table = standing_table(result, data)
    shown = dict(zip([column.name for column in table.columns], table.rows[0], strict=True))
    assert shown["all"] == 50 and shown["all (study file)"] == 60 and shown["unseen"] == 40
    assert shown["zero-shot (study file)"] == 20 and result.gaps[0][1].value == 50


def test_shares_are_those_of_each_settings_backbone() -> None:
    codes = ["eng_Latn", "deu_Latn", "rus_Cyrl", "swh_Latn", "tur_Latn", "hin_Deva"]
    shares = {
        "a": {"eng": 0.6, "deu": 0.3, "rus": 0.0999, "swh": 0.0001},
        "b": {"eng": 0.5, "rus": 0.2, "swh": 0.2, "tur": 0.1},
    }

    def made(backbones: tuple[str, ...], known: dict[str, object]) -> tuple[StudyData, dict[str, set[str]]]:
        scores = [
            scored("TP", code, better(0.1 * place), backbone=name, freeze=frozen)
            for name in backbones for frozen in (True, False) for place, code in enumerate(codes)
        ]  # fmt: skip
        data = study(scores, shares=known)
        found = groups_of(boards_of(data)[0][0], data)
        return data, {one.name: {language for _, language in one.units} for one in found}

    data, groups = made(("a", "b"), shares)
    assert groups["seen by a"] == {"deu_Latn", "rus_Cyrl", "swh_Latn"} and "seen in pre-training" not in groups
    assert groups["unseen by b"] == {"deu_Latn", "hin_Deva"} and groups["low-resource for a"] >= {"swh_Latn"}
    # Only a backbone's own settings are ranked on what it has seen.
    result = result_of(data)
    assert {one.arm.factors["backbone"] for one in result.group("seen by a").standings} == {"a"}
    assert result.group("seen by a").unranked == [] and len(result.main.standings) == 4
    links = links_of(result.board, data)
    german = links.units.index(("eng_Latn", "deu_Latn"))
    columns = {arm.factors["backbone"]: links.shares[arm][german] for arm in result.board.arms}
    assert columns == {"a": pytest.approx(np.log10(0.3)), "b": pytest.approx(np.log10(0.05))}
    assert {link.arm.factors["backbone"] for link in links.links if link.predictor == "log share"} == {"a", "b"}
    assert "log share" in links.freezing

    # Backbones that agree have groups in common; one that is not known has none.
    _, groups = made(("a", "c"), {**shares, "c": shares["a"]})
    assert groups["seen in pre-training"] == {"deu_Latn", "rus_Cyrl", "swh_Latn"} and "seen by a" not in groups
    data, groups = made(("a", "x"), shares)
    assert "seen by a" in groups and not {"seen in pre-training", "seen by x"} & set(groups)
    assert "log share" not in links_of(boards_of(data)[0][0], data).freezing
    # A list says what was seen, and not how much of it.
    data, groups = made(("a",), {"a": {"deu": None, "eng": None}})
    assert groups["seen in pre-training"] == {"deu_Latn"} and not any("low" in name for name in groups)
    assert not any(link.predictor == "log share" for link in links_of(boards_of(data)[0][0], data).links)


def test_languages_that_no_setting_has_are_named() -> None:
    codes = ["eng_Latn", "deu_Latn", "slk_Latn", "rus_Cyrl"]
    scores = [scored(cell, code, better(0.2)) for cell in ("TA", "TP") for code in codes]
    asked = [*codes, "bul_Cyrl", "swh_Latn", "tur_Latn"]
    planned = [PlannedScore("topic", "eng_Latn", code, code in ("eng_Latn", "tur_Latn")) for code in asked]
    groups = {"east": ["bul", "rus", "slk"]}
    data = study(scores, planned=[*planned, PlannedScore("ner", "eng_Latn", "deu_Latn")], groups=groups)
    result = result_of(data)
    lacking = {one.group.name: one.group.lacking for one in result.groups}
    # Turkish helps training, and so is missing from no zero-shot group.
    assert lacking["zero-shot"] == ["bul_Cyrl", "swh_Latn"] and lacking["source"] == []
    assert lacking["all"] == ["bul_Cyrl", "swh_Latn", "tur_Latn"] and lacking["east"] == ["bul_Cyrl"]
    table = summary_table([result], data)
    assert {row[0]: row[-1] for row in table.rows}["topic: zero-shot"] == "Bulgarian and Swahili"
    notes = " ".join(standing_table(result, data).notes)
    assert "no setting has a score there: Bulgarian and Swahili." in notes and "all: without Turkish." in notes
    said = missing_sentence(data, [result])
    assert "topic has no score in 3 of 7 languages (Bulgarian, Swahili and Turkish)" in said
    assert "no score at all for ner" in said
    assert missing_sentence(study(scores, planned=planned[:4]), [result_of(study(scores, planned=planned[:4]))]) is None


def test_gap_differences_and_wins_by_hand() -> None:
    values = {"eng_Latn": (80.0, 84.0), "deu_Latn": (60.0, 66.0), "slk_Latn": (50.0, 48.0)}
    scores = []
    for code, (ta, lp) in values.items():
        for seed, shift in ((1, -1.0), (2, 1.0)):
            scores += [scored("TA", code, None, seed=seed, value=ta + shift)]
            scores += [scored("LP+TA", code, None, seed=seed, value=lp + shift)]
    data = study(scores)
    result = result_of(data)
    gaps = {arm.name: estimate for arm, estimate in result.gaps}
    assert gaps["TA"].value == pytest.approx(25) and gaps["LP+TA"].value == pytest.approx(27)
    # The same shift in both seeds' source and target: the gap does not vary over seeds.
    assert gaps["TA"].sd == pytest.approx(0)
    table = difference_table(result, data)
    by_name = {row[0]: row[1].value for row in table.rows}
    assert by_name == {"English (source)": pytest.approx(4), "German": pytest.approx(6), "Slovak": pytest.approx(-2)}
    arms = {arm.name: arm for arm in result.board.arms}
    assert win_matrix(result.board, [arms["LP+TA"], arms["TA"]], result.board.units)[0][1] == pytest.approx(200 / 3)
    assert result.draws == 0 and all(pair.test == "seeds" for pair in result.main.pairs if pair.p is not None)


def test_one_seed_without_parts_is_untested_not_sure() -> None:
    result = result_of(study([scored("TA", "deu_Latn", None, value=70), scored("TP", "deu_Latn", None, value=20)]))
    assert result.main.pairs[0].p is None and verdict(result.main).startswith("untested")
    assert "untested" in task_sentence(result).lower()


def test_too_few_draws_for_the_correction_are_said() -> None:
    """With many settings the least p-value that so many draws can give is above 0.05 once corrected."""
    scores = [scored(f"T{place}", "deu_Latn", better(0.3 * place)) for place in range(4)]
    said = draws_sentence(result_of(study(scores), draws=99))
    assert said is not None and "99 draws" in said and "6 pairs" in said
    assert draws_sentence(result_of(study(scores), draws=2000)) is None


def test_the_bars_of_the_cost_figure_are_drawn() -> None:
    scores = [scored(cell, "deu_Latn", better(share)) for cell, share in (("TA", 0.1), ("TP", 0.3))]
    scores = [replace(one, trained_parameters=1000 + place) for place, one in enumerate(scores)]
    result = result_of(study(scores))
    figure = cost_figure(result, 0)
    bare = [replace(one, estimate=replace(one.estimate, low=None, high=None)) for one in result.main.standings]
    without = cost_figure(replace(result, groups=[replace(result.main, standings=bare)]), 0)
    assert figure is not None and without is not None
    assert "95% intervals" in figure.notes[0] and figure.svg.count("<path") > without.svg.count("<path")


def test_one_seed_is_sure_for_these_runs_only() -> None:
    scores = [scored(cell, code, better(share)) for code in ("deu_Latn", "slk_Latn") for cell, share in (("TA", 0.0), ("LP+TA", 0.7))]  # fmt: skip
    assert verdict(result_of(study(scores)).main) == "sure for these runs: one seed"


def test_sure_only_where_both_sides_have_seeds() -> None:
    scores = [scored("LP+TA", "deu_Latn", better(0.9, seed), seed=seed) for seed in (1, 2, 3)]
    scores += [scored("TA", "deu_Latn", BASE.tolist(), seed=seed) for seed in (1, 2, 3)]
    assert verdict(result_of(study(scores), 2000).main) == "sure"
    scores.append(scored("TP", "deu_Latn", better(0.02)))
    assert verdict(result_of(study(scores), 2000).main) == "sure for these runs: one seed of TP"


def test_other_numbers_of_seeds_count_each_seed_alike() -> None:
    def spans(cell: str, seed: int) -> StudyScore:
        parts = np.random.default_rng(seed).integers([0, 2, 2], [2, 6, 6], (40, 3))
        right, guessed, gold = parts.sum(axis=0)
        one = scored(cell, "deu_Latn", None, seed=seed, value=200 * right / (guessed + gold))
        return replace(one, metric="f1", parts=parts.tolist(), items=[str(number) for number in range(40)])

    data = study([spans(cell, seed) for cell, seeds in (("TA", (1, 2)), ("TP", (1, 2, 3))) for seed in seeds])
    (board,), _ = boards_of(data)
    (found,) = aligned_sets(board)[0].values()
    for row, arm in enumerate(board.arms):
        again = score(found.form, found.columns[row].sum(axis=1), 40.0).mean()
        assert again == pytest.approx(board.value(arm, board.units[0]))


def test_seeds_that_disagree_leave_a_clear_test_open() -> None:
    scores = []
    for seed, share in ((1, 0.9), (2, 0.05), (3, 0.6)):
        scores += [scored("LP+TA", "deu_Latn", better(share, seed), seed=seed), scored("TA", "deu_Latn", BASE.tolist(), seed=seed)]  # fmt: skip
    (pair,) = result_of(study(scores), 2000).main.pairs
    assert pair.ran_higher and not pair.surer and pair.difference.low < 0
    assert verdict(result_of(study(scores), 2000).main) == "sure for these runs; other seeds may favour TA"


def test_parts_that_do_not_give_the_score_are_not_trusted() -> None:
    right, wrong = scored("TA", "deu_Latn", better(0.1)), scored("TP", "deu_Latn", better(0.5))
    data = study([right, replace(wrong, value=wrong.value + 5)])
    result = result_of(data)
    assert any("do not give the score" in note for note in result.notes)
    assert result.main.pairs[0].p is None
    short = study([right, replace(wrong, items=["a"])])
    assert any("another number of names" in note for note in result_of(short).notes)


def test_examples_are_matched_by_name() -> None:
    names = [f"s{i}" for i in range(120)]
    order = np.random.default_rng(4).permutation(120)
    straight = study([scored("TA", "deu_Latn", BASE.tolist()), scored("TP", "deu_Latn", better(0.1))])
    mixed = study([
        scored("TA", "deu_Latn", BASE.tolist()),
        scored("TP", "deu_Latn", np.array(better(0.1))[order].tolist(), items=[names[i] for i in order]),
    ])  # fmt: skip
    assert result_of(straight).main.pairs[0].p == result_of(mixed).main.pairs[0].p


def test_odd_scores_are_left_out_and_said() -> None:
    ok = scored("TA", "deu_Latn", BASE.tolist())
    odd = [replace(ok, metric="macro_f1"), replace(ok, value=float("nan"), seed=2), replace(ok, value=1.0)]
    boards, problems = boards_of(study([ok, scored("TP", "deu_Latn", better(0.2)), *odd]))
    assert len(problems) == 3 and any("macro_f1" in one for one in problems)
    assert boards[0].by_seed(boards[0].arms[0], boards[0].units) == {1: ok.value}


def test_several_sources_at_once_are_one_source() -> None:
    scores = [scored("TA", code, better(0.1), source="eng_Latn+deu_Latn", seen=False) for code in ("eng_Latn", "deu_Latn", "nld_Latn")]  # fmt: skip
    data = study(scores)
    (board,), _ = boards_of(data)
    assert {group.name: len(group.units) for group in groups_of(board, data)} == {"zero-shot": 1, "all": 3, "source": 2}
    links = links_of(board, data)
    near = min(distances(source, "nld_Latn")["featural"].value for source in ("eng_Latn", "deu_Latn"))
    assert links.columns["featural"] == [pytest.approx(near)]


def test_languages_that_helped_training_are_in_no_correlation() -> None:
    codes = ["deu_Latn", "fra_Latn", "slk_Latn", "hin_Deva"]
    scores = [scored("full", code, better(0.1 * place), update="none") for place, code in enumerate(codes)]
    scores += [scored("full", code, better(0.2), update="gates", seen=code == "hin_Deva") for code in codes]
    data = study(scores)
    (board,), _ = boards_of(data)
    links = links_of(board, data)
    assert {language for _, language in links.units} == {"deu_Latn", "fra_Latn", "slk_Latn"}
    assert all(link.pearson.n <= 3 for link in links.links)


def test_what_freezing_does_to_the_pull_of_distance_is_said_with_its_reserve() -> None:
    codes = ["deu_Latn", "fra_Latn", "slk_Latn", "hin_Deva", "swh_Latn", "tel_Telu", "rus_Cyrl", "jpn_Jpan", "fin_Latn"]
    near = [1.0 - float(distances("eng_Latn", code)["geographic"].value or 0.0) for code in codes]
    scores = [scored("TP", code, None, value=100 * one, freeze=False) for code, one in zip(codes, near, strict=True)]
    scores += [scored("TP", code, None, value=40.0 + place % 2, freeze=True) for place, code in enumerate(codes)]
    data = study(scores)
    (board,), _ = boards_of(data)
    said = freezing_sentence([links_of(board, data)])
    assert said is not None and "weaker for" in said and "geographic" in said and "not corrected" in said


def test_unknown_languages_have_no_distance_but_stay() -> None:
    codes = ["deu_Latn", "qqq_Zzzz", "slk_Latn", "tur_Latn", "fra_Latn"]
    data = study([scored("TA", code, better(0.1 * place)) for place, code in enumerate(codes)])
    (board,), _ = boards_of(data)
    links = links_of(board, data)
    assert links.missing == ["qqq_Zzzz"] and {link.pearson.n for link in links.links} == {4}
    assert any("qqq_Zzzz" in row for row in language_table(result_of(data), data).rows)


def test_log_shares_count_absent_languages_with_half_the_smallest() -> None:
    assert log_shares({"a": 0.1, "b": 0.01}, ["a", "b", "c"]) == pytest.approx([-1, -2, np.log10(0.005)])
    assert np.isnan(log_shares({}, ["a"])).all() and np.isnan(log_shares({"a": 0.1, "b": None}, ["a"])).all()


def test_effects_hold_all_else_fixed() -> None:
    def value(frozen: bool, length: int) -> float:
        return 50.0 + 8 * frozen - length / 10

    scores = [
        scored("TP", "deu_Latn", None, seed=seed, value=value(frozen, length) + seed, freeze=frozen, length=length, task_module=f"prompt:{length}")
        for seed in (1, 2) for frozen in (True, False) for length in (5, 10, 20)
    ]  # fmt: skip
    effects = {(one.factor, one.first, one.second): one for one in effects_of(result_of(study(scores)))}
    assert (
        effects["freeze", True, False].difference.value == pytest.approx(8) and effects["freeze", True, False].wins == 3
    )
    assert effects["length", 5, 10].difference.value == pytest.approx(0.5)
    assert len(effects) == 3, "the module's spec says the length again"


def test_effects_of_a_prompts_options_are_of_one_option_each() -> None:
    def value(frozen: bool, length: int, way: str) -> float:
        return 50.0 + 8 * frozen - length / 10 + 3 * (way == "mlp")

    scores = [
        scored("TP", "deu_Latn", None, seed=seed, value=value(frozen, length, way) + seed,
               task_module=f"prompt:{length},reparameterisation={way}", freeze=frozen, length=length, reparameterisation=way)
        for seed in (1, 2) for frozen in (True, False) for length in (5, 20) for way in ("none", "mlp")
    ]  # fmt: skip
    effects = {(one.factor, one.first, one.second): one for one in effects_of(result_of(study(scores)))}
    assert {found: (one.difference.value, len(one.pairs)) for found, one in effects.items()} == {
        ("freeze", True, False): (pytest.approx(8), 4),
        ("length", 5, 20): (pytest.approx(1.5), 4),
        ("reparameterisation", "mlp", "none"): (pytest.approx(3), 4),
    }


def test_published_means_are_not_taken_from_other_languages() -> None:
    """A group of the same languages as another one has its numbers; without zero-shot languages there is no such mean."""
    rows = [
        PublishedScore("topic", "TA", name, "accuracy", 50.0, "mt0", "Table 1") for name in ("zero-shot", "mean", "low")
    ]
    found = {}
    for codes in (["deu_Latn", "slk_Latn"], ["eng_Latn"]):
        data = study(
            [scored("TA", code, better(0.1)) for code in codes], published=rows, groups={"low": ["deu", "slk"]}
        )
        table = published_table([result_of(data)], data)
        found[codes[0]] = [row[6] for row in table.rows]
    ours = pytest.approx(100 * np.mean(better(0.1)))
    assert found == {"deu_Latn": [ours, ours, ours], "eng_Latn": [None, ours, None]}


def test_published_numbers_stand_beside_the_same_metric_only() -> None:
    scores = [scored("TA", code, better(0.1)) for code in ("deu_Latn", "slk_Latn")]
    rows = [
        PublishedScore("topic", "TA", "Slovak", "accuracy", 50.0, "mt0", "Table 1"),
        PublishedScore("topic", "TA", "zero-shot", "accuracy", 50.0, "mt0", "Table 1"),
        PublishedScore("topic", "TA", "slk", "macro_f1", 50.0, "mt0", "Table 1"),
        PublishedScore("qa", "TA", "slk", "em", 50.0, "mt0", "Table 2"),
    ]
    data = study(scores, published=rows)
    table = published_table([result_of(data)], data)
    ours = 100 * np.mean(better(0.1))
    assert [row[6] for row in table.rows] == [pytest.approx(ours), pytest.approx(ours), None, None]
    assert table.rows[0][7] == pytest.approx(ours - 50) and table.rows[3][9] == "Table 2"


def test_published_numbers_stand_beside_the_setting_that_they_name() -> None:
    codes = ("eng_Latn", "deu_Latn", "slk_Latn")
    scores = [
        scored("full", code, None, value=value + gain, update=update)
        for code, value in zip(codes, (90.0, 60.0, 50.0), strict=True)
        for update, gain in (("none", 0.0), ("xmaml", 2.0))
    ]
    rows = [
        PublishedScore("topic", "X-MAML (hi)", "slk_Latn", "accuracy", 51.0, "mBERT", "T1", {"update": "xmaml"}),
        PublishedScore("topic", "mBERT", "mean", "accuracy", 60.0, "mBERT", "T1", {"update": "none"}),
        PublishedScore("topic", "mBERT", "west", "accuracy", 60.0, "mBERT", "T1", {"update": "none"}),
        PublishedScore("topic", "mBERT", "zero-shot", "accuracy", 60.0, "mBERT", "T1", {"cell": "full"}),
        PublishedScore("topic", "mBERT", "tur_Latn", "accuracy", 60.0, "mBERT", "T1", {"update": "none"}),
        PublishedScore("topic", "XLM-Align", "slk_Latn", "accuracy", 76.0, "base", "T2"),
    ]
    data = study(scores, published=rows, groups={"west": ["deu", "eng"]})
    table = published_table([result_of(data)], data)
    found = [(row[5], row[6], row[8]) for row in table.rows]
    assert found == [
        ("update xmaml", 52.0, None),
        ("no update", pytest.approx(200 / 3), 3),  # a mean of theirs has the source in it
        ("no update", 60.0, 1),
        ("no update", 55.0, 2),
        ("update xmaml", 57.0, 2),
        ("no update", None, None),
        (None, None, None),
    ]
    assert "no scored setting of this study corresponds: topic, XLM-Align." in table.notes[1]
    assert table.notes[2].endswith("has no such score: topic, mBERT (Turkish, accuracy).") and len(table.notes) == 3


def test_test_sets_are_no_settings() -> None:
    scores = [
        replace(scored(cell, code, better(gain + easier)), test=test)
        for cell, gain in (("TA", 0.1), ("TP", 0.3)) for code in ("deu_Latn", "slk_Latn")
        for test, easier in (("news", 0.0), ("plays", 0.5))
    ]  # fmt: skip
    rows = [PublishedScore("topic", "TA", "deu", "accuracy", 1.0, "b", "T", test=test) for test in ("plays", "")]
    planned = [PlannedScore("topic", "eng_Latn", "tur_Latn", test="plays")]
    data = study(scores, published=rows, planned=planned)
    boards, problems = boards_of(data)
    assert [board.task for board in boards] == ["topic: news", "topic: plays"] and not problems
    assert all([arm.name for arm in board.arms] == ["TA", "TP"] for board in boards)
    assert [board.absent for board in boards] == [[], [("eng_Latn", "tur_Latn")]]
    results = [compare(board, data, draws=50) for board in boards]
    assert results[0].main.standings[0].estimate.value == pytest.approx(100 * np.mean(better(0.3)))
    table = published_table(results, data)
    assert [row[5] for row in table.rows] == ["TA", "TA (news)", "TA (plays)"]
    assert table.rows[0][6] == pytest.approx(100 * np.mean(better(0.6))) == table.rows[2][6]


def test_entropy_of_pools() -> None:
    pool = PoolAttention("s", "l", ["deu_Latn", "slk_Latn"], [[0.25] * 4, [1.0, 0, 0, 0]])
    assert pool_entropy(pool) == pytest.approx([2.0, 0.0])


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyData]:
    data = example().cells_study(languages=6, examples=40, seeds=2)
    data = replace(data, scores=[one for one in data.scores if one.task != "ner"])
    data = replace(data, name=f"Study {EVIL}", description=EVIL, missing=[(EVIL, "failed")], curves=[*data.curves, LearningCurve("s", EVIL, "dev score", [1, 2], [1.0, 2.0])])  # fmt: skip
    out = tmp_path_factory.mktemp("study") / "report"
    assert write_study_report(data, out, draws=300) == out / "report.html"
    return out, data


def test_all_files_are_there_and_the_page_is_whole(written: tuple[Path, StudyData]) -> None:
    out, _ = written
    assert {item.name for item in out.iterdir()} == {"report.html", "report.md", "tables.tex", "scores.csv", "comparisons.csv", "correlations.csv", "figures"}  # fmt: skip
    text = (out / "report.html").read_text(encoding="utf-8")
    reader = read_html(text)
    assert len(reader.ids) == len(set(reader.ids)) and set(reader.refers) <= set(reader.ids)
    assert set(reader.links) == {"data:,"} and reader.tags.count("script") == 1 and reader.handlers == []
    assert "mathdefault" not in text and "<image" not in text
    figures = list((out / "figures").glob("*.svg"))
    assert len(figures) == reader.tags.count("svg") >= 12
    for path in figures:
        assert "var(" not in ElementTree.parse(path).getroot().get("style", "") and "var(--" not in path.read_text(encoding="utf-8")  # fmt: skip
        assert f"figures/{path.name}" in (out / "report.md").read_text(encoding="utf-8")
    flat = " ".join(reader.text.split())
    for part in ("What won", "Distance and pre-training", "Parameters and cost", "Gates", "Prompt pool", "Learning curves", "Published numbers", "Failed or missing", "How to read this"):  # fmt: skip
        assert part in flat


def test_markup_is_text_in_every_form(written: tuple[Path, StudyData]) -> None:
    out, _ = written
    reader = read_html((out / "report.html").read_text(encoding="utf-8"))
    assert " ".join(reader.text.split()).count(EVIL) >= 4 and reader.tags.count("script") == 1
    markdown = (out / "report.md").read_text(encoding="utf-8")
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    latex = (out / "tables.tex").read_text(encoding="utf-8")
    body = [line for line in latex.splitlines() if not line.startswith("%")]
    assert escape(EVIL) in latex and not any(EVIL in line for line in body)


def test_every_score_leads_to_its_step(written: tuple[Path, StudyData]) -> None:
    out, data = written
    rows = list(csv.DictReader(io.StringIO((out / "scores.csv").read_text(encoding="utf-8"))))
    assert len(rows) == len(data.scores)
    for row, one in zip(rows, data.scores, strict=True):
        assert (row["step"], int(row["seed"]), row["command"], row["commit"]) == (one.step, one.seed, one.command, one.commit)  # fmt: skip
        assert float(row["value"]) == one.value and row["setting"] == one.factors["cell"]
    text = " ".join(read_html((out / "report.html").read_text(encoding="utf-8")).text.split())
    assert all(one.step[:12] in text and one.command in text for one in data.scores)


def test_the_page_says_what_the_tables_say(written: tuple[Path, StudyData]) -> None:
    out, data = written
    boards, _ = boards_of(data)
    text = " ".join(read_html((out / "report.html").read_text(encoding="utf-8")).text.split())
    comparisons = list(csv.DictReader(io.StringIO((out / "comparisons.csv").read_text(encoding="utf-8"))))
    for board in boards:
        result = compare(board, data, draws=300)
        assert task_sentence(result) in text
        ours = [row for row in comparisons if row["task"] == board.task and row["group"] == "zero-shot"]
        assert len(ours) == 21 and float(ours[0]["p"]) == result.main.pairs[0].p
    correlations = list(csv.DictReader(io.StringIO((out / "correlations.csv").read_text(encoding="utf-8"))))
    assert {row["predictor"] for row in correlations} == {"genetic", "geographic", "syntactic", "phonological", "inventory", "featural", "log share"}  # fmt: skip


def test_latex_rows_have_all_their_cells(written: tuple[Path, StudyData]) -> None:
    text = (written[0] / "tables.tex").read_text(encoding="utf-8")
    tables = re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, flags=re.DOTALL)
    assert len(tables) >= 10 and text.count(r"\begin{table}") == text.count(r"\end{table}") == len(tables)
    for shape, body in tables:
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == len(shape) - 1 for row in rows)
    # Nothing that LaTeX would act upon is left bare.
    assert not re.search(r"(?<!\\)[#^~]", "\n".join(line for line in text.splitlines() if not line.startswith("%")))


def test_writing_again_needs_leave_and_gives_the_same_bytes(written: tuple[Path, StudyData], tmp_path: Path) -> None:
    out, data = written
    with pytest.raises(IsoglossError, match="already holds something"):
        write_study_report(data, out, draws=300)
    small = study([scored(cell, "deu_Latn", better(0.2)) for cell in ("TA", "TP")])
    write_study_report(small, tmp_path / "a", draws=100)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.*")}
    write_study_report(small, tmp_path / "a", overwrite=True, draws=100)
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*.*")} == before and len(before) >= 7


def test_backbones_of_unknown_pretraining_are_named(tmp_path: Path) -> None:
    scores = [scored("TA", "deu_Latn", None, value=1.0, backbone=name) for name in ("known", "strange")]
    write_study_report(study(scores, shares={"known": {"deu": 1.0}}), tmp_path / "r")
    text = (tmp_path / "r" / "report.md").read_text(encoding="utf-8")
    assert "Which languages strange was trained on is not known here" in text


def test_a_study_without_scores_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IsoglossError, match="no score yet"):
        write_study_report(study([]), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_the_smallest_study_has_a_page(tmp_path: Path) -> None:
    data = study(
        [scored("TA", "deu_Latn", None, value=0.0)],
        gates=[GateTable("s", "g", ["layer 0"], [[0.5]])],
        pools=[PoolAttention("s", "p", ["deu_Latn"], [[1.0]])],
        curves=[LearningCurve("s", "l", "loss", [1], [float("nan")])],
    )
    text = write_study_report(data, tmp_path / "r").read_text(encoding="utf-8")
    assert "no other setting was scored there" in read_html(text).text


def test_sources_are_compared(tmp_path: Path) -> None:
    data = example().sources_study(examples=20, seeds=1)
    text = write_study_report(data, tmp_path / "r", draws=100).read_text(encoding="utf-8")
    assert "from each source to each target" in text and "Sources compared" in text

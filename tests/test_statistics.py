"""Statistics of studies against scipy, brute force over all arrangements, plain loops, and simulations of coverage."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from isogloss.report.statistics import (
    ScoredSet,
    as_columns,
    benjamini_hochberg,
    correlate,
    correlation_difference,
    draws_for,
    estimate,
    form_of,
    holm,
    paired_seed_error,
    partial_correlation,
    resample,
    score,
    seed_error,
    seeds_p,
)
from isogloss.tasks.metrics import accuracy, macro_f1, span_f1

ONE = np.ones((1, 1))


def make(parts: list[np.ndarray], metric: str, items: list[str] | None = None, classes: int = 3) -> ScoredSet:
    """Parts [systems][seeds, n, width]."""
    form = form_of(metric, parts[0].shape[-1])
    columns = np.stack([[as_columns(form, run, classes) for run in system] for system in parts])
    names = items or [f"s{number}" for number in range(columns.shape[2])]
    return ScoredSet(names, columns, np.ones(len(parts), dtype=bool), form)


def random_parts(metric: str, generator: np.random.Generator, seeds: int, n: int) -> np.ndarray:
    if metric == "accuracy":
        return (generator.random((seeds, n, 1)) < 0.6).astype(float)
    if metric == "f1":
        gold = generator.integers(0, 3, n)
        predicted = generator.integers(0, 3, (seeds, n))
        hits = np.minimum(gold, predicted) * (generator.random((seeds, n)) < 0.7)
        return np.stack([hits, predicted, np.broadcast_to(gold, (seeds, n))], axis=-1).astype(float)
    gold = np.arange(n) % 3
    predicted = np.where(generator.random((seeds, n)) < 0.5, gold, generator.integers(-1, 3, (seeds, n)))
    return np.stack([predicted, np.broadcast_to(gold, (seeds, n))], axis=-1).astype(float)


def plain_metric(metric: str, parts: np.ndarray) -> float:
    """[n, width] the slow way."""
    if metric == "accuracy":
        return 100 * float(np.mean(parts[:, 0]))
    if metric == "f1":
        hits, predicted, gold = parts.sum(axis=0)
        return 200 * hits / (predicted + gold) if predicted + gold else 0.0
    predicted = [None if label < 0 else int(label) for label in parts[:, 0]]
    return macro_f1([int(label) for label in parts[:, 1]], predicted)


METRICS = ["accuracy", "f1", "macro_f1"]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_corrections_are_the_definitions(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(stats.false_discovery_control(p))
    order = sorted(range(len(p)), key=lambda place: p[place])
    expected, highest = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, p[place] * (len(p) - rank)))
        expected[place] = highest
    assert holm(p) == pytest.approx(expected)


def test_corrections_do_not_count_what_was_not_tested() -> None:
    assert holm([0.01, math.nan, 0.04])[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(holm([0.01, math.nan])[1]) and math.isnan(benjamini_hochberg([math.nan])[0])


@pytest.mark.parametrize("metric", METRICS)
def test_scores_from_sums_are_the_metrics(metric: str) -> None:
    for seed in range(5):
        parts = random_parts(metric, np.random.default_rng(seed), 1, 30)[0]
        form = form_of(metric, parts.shape[1])
        columns = as_columns(form, parts, 3)
        assert float(score(form, columns.sum(axis=0), 30.0)) == pytest.approx(plain_metric(metric, parts))


def test_plain_metrics_are_those_of_the_tasks() -> None:
    gold, guess = [["B-A", "I-A", "O"], ["B-B", "O", "B-A"]], [["B-A", "I-A", "B-B"], ["O", "O", "B-A"]]
    counts = [[1, 2, 1], [1, 1, 2]]
    assert float(score("counts", np.sum(counts, axis=0).astype(float), 2.0)) == pytest.approx(
        span_f1(gold, guess)["f1"]
    )
    right = [[1.0], [0.0], [1.0]]
    assert float(score("mean", np.sum(right, axis=0), 3.0)) == pytest.approx(accuracy([1, 1, 0], [1, 0, 0]))
    assert float(score("counts", np.zeros(3), 1.0)) == 0.0 and float(score("labels", np.zeros(9), 1.0)) == 0.0
    assert form_of("f1", 2) is None and form_of("accuracy", 4) is None


@pytest.mark.parametrize("metric", METRICS)
def test_permutation_is_brute_force_over_all_swaps(metric: str) -> None:
    """Two systems of two seeds on one sentence set in two languages: a sentence is swapped with both."""
    generator = np.random.default_rng(3)
    n = 7
    languages = [[random_parts(metric, generator, 2, n) for _ in range(2)] for _ in range(2)]
    found = resample([make(parts, metric) for parts in languages], [(0, 1)], np.array([[0.5, 0.5]]), draws=50)

    def gap(swap: tuple[int, ...], chosen: list[list[np.ndarray]]) -> float:
        total = 0.0
        for first, second in chosen:
            mask = np.array(swap, dtype=bool)[None, :, None]
            a, b = np.where(mask, second, first), np.where(mask, first, second)
            total += np.mean([plain_metric(metric, run) for run in a]) - np.mean(
                [plain_metric(metric, run) for run in b]
            )
        return float(total / len(chosen))

    swaps = list(itertools.product([0, 1], repeat=n))
    for p, chosen in ((found.p[0, 0], languages), (found.unit_p[0, 1], languages[1:])):
        real = abs(gap((0,) * n, chosen))
        assert p == pytest.approx(np.mean([abs(gap(swap, chosen)) >= real - 1e-9 for swap in swaps]))


def test_permutation_of_means_is_scipys() -> None:
    generator = np.random.default_rng(5)
    first, second = ((generator.random((1, 11, 1)) < share).astype(float) for share in (0.8, 0.3))
    p = resample([make([first, second], "accuracy")], [(0, 1)], ONE, draws=10).p[0, 0]
    reference = stats.permutation_test(
        ((first - second)[0, :, 0],), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert p == pytest.approx(reference.pvalue)


def test_random_permutations_come_near_to_all_of_them() -> None:
    generator = np.random.default_rng(6)
    difference = generator.normal(0.35, 1, 15)
    columns = np.stack([difference, np.zeros(15)])[:, None, :, None]
    one = ScoredSet([str(place) for place in range(15)], columns, np.ones(2, dtype=bool), "mean")
    found = resample([one], [(0, 1)], ONE, draws=8000).p[0, 0]
    reference = stats.permutation_test(
        (difference,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=np.inf
    )
    assert found == pytest.approx(reference.pvalue, abs=0.02) and 0.02 < reference.pvalue < 0.9


@pytest.mark.parametrize("metric", ["f1", "macro_f1"])
def test_bootstrap_is_a_plain_loop(metric: str) -> None:
    generator = np.random.default_rng(8)
    systems = [random_parts(metric, generator, 2, 40) for _ in range(2)]
    found = resample([make(systems, metric)], [(0, 1)], ONE, draws=4000)
    plain = np.empty((1500, 2))
    for draw in plain:
        rows = generator.integers(0, 40, 40)
        draw[:] = [np.mean([plain_metric(metric, run[rows]) for run in system]) for system in systems]
    assert found.boot[:, :, 0].mean(axis=0) == pytest.approx(plain.mean(axis=0), abs=0.6)
    assert found.unit_error[:, 0] == pytest.approx(plain.std(axis=0), rel=0.1)
    assert found.pair_error[0, 0] == pytest.approx((plain[:, 0] - plain[:, 1]).std(), rel=0.1)
    assert found.unit_pair_error[0, 0] == pytest.approx(found.pair_error[0, 0], rel=0.02)


def test_a_translation_is_no_new_sentence() -> None:
    parts = [(np.random.default_rng(9).random((1, 300, 1)) < 0.5).astype(float) for _ in range(2)]
    alone = resample([make(parts, "accuracy")], [(0, 1)], ONE, draws=3000).pair_error[0, 0]
    half = np.array([[0.5, 0.5]])
    same = resample([make(parts, "accuracy"), make(parts, "accuracy")], [(0, 1)], half, draws=3000).pair_error[0, 0]
    other = make(parts, "accuracy", items=[f"t{number}" for number in range(300)])
    apart = resample([make(parts, "accuracy"), other], [(0, 1)], half, draws=3000).pair_error[0, 0]
    assert same == pytest.approx(alone, rel=0.05)
    assert apart == pytest.approx(alone / math.sqrt(2), rel=0.06)


def test_a_missing_system_leaves_the_others_alone() -> None:
    generator = np.random.default_rng(10)
    parts = [(generator.random((1, 50, 1)) < 0.5).astype(float) for _ in range(3)]
    whole, part = make(parts, "accuracy"), make(parts, "accuracy")
    part = ScoredSet(part.items, part.columns, np.array([True, False, True]), part.form)
    pairs = [(0, 1), (0, 2)]
    found = resample([whole, part], pairs, np.array([[0.5, 0.5], [1.0, 0.0]]), draws=200)
    assert np.isnan(found.p[0, 0]) and np.isnan(found.boot[:, 1, 0]).all() and np.isnan(found.unit_p[0, 1])
    assert not np.isnan(found.p[1]).any() and not np.isnan(found.p[0, 1])


def test_no_difference_gives_even_p_values() -> None:
    generator = np.random.default_rng(11)
    p = []
    for _ in range(150):
        hard = generator.random(60)
        parts = [(generator.random((2, 60)) < hard)[..., None].astype(float) for _ in range(2)]
        p.append(resample([make(parts, "accuracy")], [(0, 1)], ONE, draws=300).p[0, 0])
    # Scores are whole numbers of examples, so p is discrete and a little too large.
    shares = [float(np.mean(np.array(p) <= level)) for level in (0.1, 0.3, 0.6)]
    assert 0.03 <= shares[0] <= 0.17 and 0.18 <= shares[1] <= 0.4 and 0.42 <= shares[2] <= 0.7


def test_intervals_cover_the_truth_over_examples_and_seeds() -> None:
    """True difference of two methods whose seeds and test examples are both drawn anew each time."""
    generator = np.random.default_rng(12)
    covered = narrow = 0
    rounds = 200
    for _ in range(rounds):
        hard = generator.normal(0, 1, 80)
        runs = []
        for skill in (0.4, 0.0):
            skills = skill + generator.normal(0, 0.35, 3)
            chance = 1 / (1 + np.exp(-(skills[:, None] + hard)))
            runs.append((generator.random((3, 80)) < chance)[..., None].astype(float))
        found = resample([make(runs, "accuracy")], [(0, 1)], ONE, draws=200)
        values = [{seed: 100 * float(run.mean()) for seed, run in enumerate(system)} for system in runs]
        seeds, freedom = paired_seed_error(*values)
        gap = float(np.mean(list(values[0].values())) - np.mean(list(values[1].values())))
        both, one = (
            estimate(gap, examples_error=found.pair_error[0, 0], examples=80, seeds_error=error, seeds_freedom=freedom)
            for error in (seeds, None)
        )
        # Mean over the normal skill, seed and difficulty (sum of variances) by quadrature.
        truth = 100 * (logistic_mean(0.4) - logistic_mean(0.0))
        covered += both.low <= truth <= both.high
        narrow += one.low <= truth <= one.high
    assert covered / rounds >= 0.93
    # Without the seeds the interval promises too much: what it is for.
    assert narrow / rounds < 0.9


def logistic_mean(skill: float) -> float:
    points, weights = np.polynomial.hermite_e.hermegauss(40)
    spread = math.sqrt(1 + 0.35**2)
    return float((weights / (1 + np.exp(-(skill + spread * points)))).sum() / weights.sum())


def test_seed_errors_are_the_t_tests() -> None:
    generator = np.random.default_rng(13)
    a, b = generator.normal(1, 1, 5), generator.normal(0, 2, 5)
    same = paired_seed_error(dict(enumerate(a)), dict(enumerate(b)))
    assert seeds_p(float((a - b).mean()), *same) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    error, freedom = paired_seed_error(dict(enumerate(a)), {seed + 9: value for seed, value in enumerate(b)})
    welch = stats.ttest_ind(a, b, equal_var=False)
    assert error == pytest.approx((a.mean() - b.mean()) / welch.statistic) and freedom == int(welch.df)
    assert paired_seed_error({1: 3.0}, {1: 2.0, 2: 4.0}) == (None, 0)
    assert seed_error([4.0]) == (4.0, None) and seed_error(list(a))[1] == pytest.approx(stats.sem(a))
    assert seeds_p(1.0, None, 0) is None and seeds_p(0.0, 0.0, 3) == 1.0


def test_estimates_of_one_error_are_students_and_of_none_are_bare() -> None:
    found = estimate(50.0, examples_error=None, examples=0, seeds_error=2.0, seeds_freedom=4)
    half = 2.0 * stats.t.ppf(0.975, 4)
    assert (found.low, found.high, found.covers) == (pytest.approx(50 - half), pytest.approx(50 + half), "seeds")
    bare = estimate(50.0, examples_error=None, examples=0, seeds_error=None, seeds_freedom=0)
    assert (bare.low, bare.high, bare.covers) == (None, None, "")
    assert (
        estimate(99.0, examples_error=2.0, examples=9, seeds_error=None, seeds_freedom=0, bounds=(0, 100)).high == 100
    )


def test_correlations_are_scipys() -> None:
    generator = np.random.default_rng(14)
    x = generator.normal(size=25)
    y = x + generator.normal(size=25)
    found, reference = correlate(x, y), stats.pearsonr(x, y)
    interval = reference.confidence_interval()
    assert (found.r, found.p) == (pytest.approx(reference.statistic), pytest.approx(reference.pvalue))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    ranked, other = correlate(np.exp(3 * x), y, ranks=True), stats.spearmanr(x, y)
    assert (ranked.r, ranked.p) == (pytest.approx(other.statistic), pytest.approx(other.pvalue))
    assert ranked.high - ranked.low > found.high - found.low - 0.2


def test_partial_correlation_is_that_of_residuals() -> None:
    generator = np.random.default_rng(15)
    z, w = generator.normal(size=(2, 30))
    x, y = z + generator.normal(size=30), z - w + generator.normal(size=30)

    def residual(values: np.ndarray) -> np.ndarray:
        design = np.stack([np.ones(30), z, w], axis=1)
        return values - design @ np.linalg.lstsq(design, values, rcond=None)[0]

    found = partial_correlation(x, y, [z, w])
    assert found.r == pytest.approx(np.corrcoef(residual(x), residual(y))[0, 1])
    freedom = 30 - 2 - 2
    statistic = found.r * math.sqrt(freedom / (1 - found.r**2))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(statistic), freedom))
    assert math.atanh(found.high) - math.atanh(found.r) == pytest.approx(stats.norm.ppf(0.975) / math.sqrt(30 - 3 - 2))


def test_blocks_are_centred_and_clusters_drawn_whole() -> None:
    generator = np.random.default_rng(16)
    blocks = ["a"] * 12 + ["b"] * 12
    target = [f"t{number % 12}" for number in range(24)]
    x = generator.normal(size=24)
    # A source that is better everywhere must not look like an effect of distance.
    y = -x + generator.normal(size=24) + np.repeat([0.0, 30.0], 12)
    found = correlate(x, y, blocks=blocks, clusters=target, draws=4000)
    centred = [values - np.repeat([values[:12].mean(), values[12:].mean()], 12) for values in (x, y)]
    assert found.r == pytest.approx(np.corrcoef(*centred)[0, 1]) and found.interval == "bootstrap" and found.p is None
    plain = []
    for _ in range(1500):
        rows = np.concatenate([[pick, pick + 12] for pick in generator.integers(0, 12, 12)])
        parts = [np.concatenate([v[rows[rows < 12]] - v[rows[rows < 12]].mean(), v[rows[rows >= 12]] - v[rows[rows >= 12]].mean()]) for v in (x, y)]  # fmt: skip
        plain.append(np.corrcoef(*parts)[0, 1])
    assert (found.low, found.high) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.04)


def test_correlation_intervals_cover() -> None:
    generator = np.random.default_rng(17)
    hits = {"pearson": 0, "spearman": 0}
    truth = {"pearson": 0.6, "spearman": 6 / math.pi * math.asin(0.3)}
    for _ in range(300):
        x, y = generator.multivariate_normal([0, 0], [[1, 0.6], [0.6, 1]], 16).T
        for name in hits:
            found = correlate(x, y, ranks=name == "spearman")
            hits[name] += found.low <= truth[name] <= found.high
    assert all(0.91 <= count / 300 <= 0.985 for count in hits.values()), hits


def test_correlations_that_are_not_defined_say_so() -> None:
    nan = math.nan
    assert correlate([1, 2, nan, 4, 5], [2, nan, 3, 5, 4]).n == 3
    assert correlate([1, 1, 1, 1], [1, 2, 3, 4]).r is None
    assert correlate([0.1 + 0.2, 0.3, 0.3], [1.0, 2.0, 3.0]).r is None  # equal but for rounding
    assert correlate([1, 2], [2, 1]).r is None
    three = correlate([1, 2, 3], [1, 3, 2])
    assert three.r == pytest.approx(0.5) and three.low is None and three.p is not None
    assert partial_correlation([1, 2, 3, 4], [2, 4, 6, 9], [[1, 2, 3, 4]]).r is None


def test_difference_of_correlations() -> None:
    generator = np.random.default_rng(18)
    x = generator.normal(size=40)
    strong, weak = -x + 0.3 * generator.normal(size=40), -0.2 * x + generator.normal(size=40)
    found = correlation_difference(x, weak, strong)
    assert found.r == pytest.approx(np.corrcoef(x, weak)[0, 1] - np.corrcoef(x, strong)[0, 1])
    assert 0 < found.low < found.r < found.high
    same = correlation_difference(x, strong, strong)
    assert (same.r, same.low, same.high) == pytest.approx((0, 0, 0))


def test_draws_suffice_for_the_correction() -> None:
    for pairs in (1, 21, 190):
        assert pairs / (draws_for(pairs, 1.0) + 1) < 0.05
    assert draws_for(496, 1e9) == 1000

"""What a study found, in sentences made from its numbers, and how to read them."""

from collections.abc import Sequence

from isogloss.report.statistics import Estimate
from isogloss.report.study_compare import LEVEL, GroupResult, TaskResult
from isogloss.report.study_data import StudyData
from isogloss.report.study_distance import SHARE, Links
from isogloss.report.study_index import Arm, language_names, metric_name


def listed(names: Sequence[str], most: int = 4) -> str:
    """`a, b and c`, cut after some."""
    kept = list(names[:most])
    left = len(names) - len(kept)
    if left:
        kept.append(f"{left} more")
    return kept[0] if len(kept) == 1 else f"{', '.join(kept[:-1])} and {kept[-1]}" if kept else ""


def number(value: float) -> str:
    """With one decimal."""
    return f"{value:.1f}"


def interval(estimate: Estimate) -> str:
    """` [low, high]`, or nothing."""
    if estimate.low is None or estimate.high is None:
        return ""
    return f" [{estimate.low:.1f}, {estimate.high:.1f}]"


def verdict(result: GroupResult) -> str:
    """How sure it is that the best setting is the best."""
    if len(result.standings) < 2:
        return "the only setting" if result.standings else "nothing to compare"
    against = [pair for pair in result.pairs if pair.first == result.standings[0].arm]
    if all(pair.p is None for pair in against):
        return "untested: one seed, no per-example results"
    names = [arm.name for arm in result.rivals()]
    if not names:
        single = [pair.second.name for pair in against if "seeds" not in pair.difference.covers]
        if len(single) == len(against):
            return "sure for these runs: one seed"
        return f"sure for these runs: one seed of {listed(single, 3)}" if single else "sure"
    if all(pair.ran_higher for pair in against):
        return f"sure for these runs; other seeds may favour {listed(names, 3)}"
    return f"open: {listed(names, 3)} may be as good"


def task_sentence(result: TaskResult) -> str:
    """One sentence on a task's winner."""
    main = result.main
    best = main.standings[0]
    count = len({language for _, language in main.units})
    where = f"{count} {main.group.name} {'language' if count == 1 else 'languages'}"
    text = (
        f"{result.board.task}: {best.arm.name} is highest with a mean {metric_name(result.board)} of "
        f"{number(best.estimate.value)}{interval(best.estimate)} over {where}"
    )
    if len(main.standings) == 1:
        return f"{text}; no other setting was scored there."
    second = main.standings[1]
    gap = main.pairs[0].difference
    return f"{text}, {number(gap.value)} points{interval(gap)} ahead of {second.arm.name}. {_long(main)}."


def _long(main: GroupResult) -> str:
    said = verdict(main)
    if said == "sure":
        return "Sure: ahead of all other settings after correction, over examples and seeds"
    return f"{said[0].upper()}{said[1:]}"


def group_sentence(results: Sequence[TaskResult]) -> str | None:
    """Where the winner changes with the group of languages."""
    changes = []
    for result in results:
        best = result.main.standings[0].arm
        others: dict[Arm, list[str]] = {}
        for one in result.groups[1:]:
            # Where only one backbone's settings are ranked, the winner of all may have no part.
            whole = one.group.name != "all" and one.group.backbone is None
            if whole and one.standings and one.standings[0].arm != best:
                others.setdefault(one.standings[0].arm, []).append(one.group.name)
        changes += [f"{result.board.task}, {listed(names, 3)}: {arm.name}" for arm, names in others.items()]
    return f"Another setting is highest in: {'; '.join(changes[:6])}." if changes else None


def missing_sentence(data: StudyData, results: Sequence[TaskResult]) -> str | None:
    """That something is missing, said on top."""
    parts = []
    if data.missing:
        count = len(data.missing)
        parts.append(f"{count} {'step' if count == 1 else 'steps'} failed or did not run (listed at the end)")
    absent: dict[str, list[str]] = {}
    for result in results:
        for code in result.main.left_out:
            absent.setdefault(language_names([code])[code], []).append(result.board.task)
    if absent:
        said = [f"{name} ({', '.join(tasks)})" for name, tasks in sorted(absent.items())]
        parts.append(f"left out of the means because a setting lacks them: {listed(said)}")
    boards = {result.board.task: result.board for result in results}
    for task in dict.fromkeys(one.board for one in data.planned):
        if task not in boards:
            parts.append(f"no score at all for {task}")
            continue
        without = language_names(language for _, language in boards[task].absent)
        if without:
            whole = {*without, *boards[task].languages}
            parts.append(
                f"{task} has no score in {len(without)} of {len(whole)} languages ({listed([*without.values()])})"
            )
    return f"Not complete: {'; '.join(parts)}." if parts else None


def draws_sentence(result: TaskResult) -> str | None:
    """That differences are open for want of draws, not of evidence: no p-value can be below one in the draws + 1."""
    least = 1.001 / (result.draws + 1)
    short = [
        len(one.pairs)
        for one in result.groups
        for pair in one.pairs
        if pair.test == "permutation" and pair.p is not None and pair.p <= least and not pair.ran_higher
    ]
    if not short:
        return None
    return (
        f"{result.board.task}: {len(short)} {'difference is' if len(short) == 1 else 'differences are'} as clear as "
        f"{result.draws:,} draws can show and still open after correction for {max(short):,} pairs of settings; `draws` of "
        "write_study_report takes more."
    )


def freezing_sentence(links: Sequence[Links]) -> str | None:
    """Whether freezing weakens the pull of distance."""
    found = []
    for one in links:
        weaker = [
            name
            for name, (_, _, difference) in one.freezing.items()
            if name != SHARE and difference.low is not None and difference.low > 0
        ]
        stronger = [
            name
            for name, (_, _, difference) in one.freezing.items()
            if name != SHARE and difference.high is not None and difference.high < 0
        ]
        if not one.freezing:
            continue
        parts = [
            f"weaker for {listed(weaker, 6)} distance" if weaker else "",
            f"stronger for {listed(stronger, 6)} distance" if stronger else "",
        ]
        said = " and ".join(part for part in parts if part) or "not told apart for any distance"
        found.append(f"{one.board.task}: {said}")
    if not found:
        return None
    # Six differences at 95%, with nothing found, would show one such every fourth time.
    return (
        f"Correlation of score with distance, frozen against unfrozen backbone: {'; '.join(found)} "
        "(95% intervals over languages, not corrected for the number of distances)."
    )


def method_notes(results: Sequence[TaskResult]) -> list[str]:
    """How the numbers were made, for the section that explains them."""
    draws = sorted({result.draws for result in results if result.draws})
    tested = (
        f"Paired tests and bootstrap over examples with {listed([f'{count:,}' for count in draws])} draws: "
        if draws
        else "There are no per-example results, so the tests are over seeds: "
    )
    return [
        "A score is the mean over seeds; a group's score is the unweighted mean over its languages (pairs of source and "
        "target), on test sets that all ranked settings have. Settings that lack more than half of a group's test sets are "
        "shown apart.",
        "95% intervals (in brackets) join two errors: over test examples, by a bootstrap that draws a sentence for all "
        "languages that have it at once, and over seeds, by their standard error (for differences seed by seed). With one "
        "seed they cover the examples only. They do not cover other languages, data or backbones.",
        tested
        + "two settings change places example by example, with all seeds and in all translations of the sentence; F1 is "
        "recomputed from the summed counts of each draw, macro F1 from its label pairs. p-values of one table are corrected "
        "by Holm (chance of one wrong finding or more) over all pairs of settings of that task and group; those by language "
        "by Benjamini and Hochberg (share of wrong findings).",
        f"Sure: against every other setting the corrected p is below {LEVEL} and the 95% interval of the difference leaves 0 out. "
        "Sure for these runs: the trained models differ, but with so few seeds a new training might not. Open: not even that. "
        "'Best in' is the share of resamples, of examples and seeds, in which a setting is the highest.",
        "Correlations are over languages, without those trained on. With one source the intervals are Fisher's, p-values are "
        "corrected by Benjamini and Hochberg; with several, levels of the sources are taken out and intervals come from a "
        "bootstrap over target languages. Partial correlations take out the logarithm of the pre-training share. A language "
        "that is not in that text counts with half of the smallest share. URIEL fills in unattested features, so distances "
        "of less studied languages are partly predicted.",
    ]

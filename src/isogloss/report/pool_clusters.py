"""Languages clustered by what they attend to in a prompt pool, beside what linguists and writing systems say.

XLM-P (https://arxiv.org/abs/2306.07610) calls this "soft language clustering": languages that share prompts should share
structure. Families and scripts are the check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.cluster import hierarchy
from scipy.spatial.distance import pdist, squareform

from isogloss.errors import IsoglossError
from isogloss.languages import Language, resolve
from isogloss.report.drawing import COLOURS, GRID, INK, SHAPES, Figure, canvas, finish
from isogloss.report.heat_map import heat_map
from isogloss.report.study_data import PoolAttention
from isogloss.report.tables import Column, Table

# More keys than this make columns thinner than a line.
_KEYS_DRAWN = 64
# Families and scripts that get a colour and shape of their own; the others share the last.
_MARKED = len(COLOURS) - 1
_PERMUTATIONS = 1000


@dataclass(frozen=True)
class PoolClusters:
    """A hierarchical clustering of languages.

    Attributes:
        languages: In the order of the record.
        distances: [L, L], Jensen-Shannon distance (base 2, from 0 to 1) between mean attention vectors.
        linkage: scipy's table of an average-linkage tree; [0, 4] for one language.
        order: Positions in `languages` as the tree's leaves stand.
    """

    languages: Sequence[str]
    distances: npt.NDArray[np.float64]
    linkage: npt.NDArray[np.float64]
    order: Sequence[int]


@dataclass(frozen=True)
class Agreement:
    """Whether languages of one group (family, script) attend more alike than others.

    Attributes:
        kind: family or script.
        within: Mean distance of two languages of one group; None when no group has two.
        between: Mean distance of two languages of different groups; None when there is one group.
        p: Share of permutations of the groups with a difference at least as large; None without both means.
    """

    kind: str
    within: float | None
    between: float | None
    p: float | None


def cluster_languages(pool: PoolAttention) -> PoolClusters:
    """Clusters the languages of a pool by their mean attention.

    Raises:
        IsoglossError: No language, rows of different lengths, or attention that is not positive.
    """
    table = np.asarray(pool.attention, dtype=np.float64)
    if table.ndim != 2 or len(table) != len(pool.languages) or not len(table):
        raise IsoglossError(
            f"The attention of pool '{pool.label}' must have one row for each of its {len(pool.languages)} languages and one column a key."
        )
    if not np.isfinite(table).all() or (table < 0).any() or (table.sum(1) <= 0).any():
        raise IsoglossError(f"The attention of pool '{pool.label}' holds numbers that are no shares.")
    if len(table) == 1:
        return PoolClusters(tuple(pool.languages), np.zeros((1, 1)), np.zeros((0, 4)), (0,))
    share = table / table.sum(1, keepdims=True)
    condensed = pdist(share, _jensen_shannon)
    tree = hierarchy.linkage(condensed, method="average", optimal_ordering=True)
    return PoolClusters(
        tuple(pool.languages), squareform(condensed), tree, tuple(int(leaf) for leaf in hierarchy.leaves_list(tree))
    )


def _jensen_shannon(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    middle = (one + other) / 2
    kinds = [float((p[p > 0] * np.log2(p[p > 0] / middle[p > 0])).sum()) for p in (one, other)]
    return float(np.sqrt(max(0.0, sum(kinds) / 2)))


def agreement(clusters: PoolClusters, kind: str, group: Callable[[Language], str]) -> Agreement:
    """Compares the distances within and between the groups that languages belong to."""
    groups = np.array([group(resolve(code)) or f"?{code}" for code in clusters.languages])
    upper = np.triu_indices(len(groups), 1)
    values = clusters.distances[upper]

    def means(labels: npt.NDArray[np.str_]) -> tuple[float | None, float | None]:
        same = (labels[:, None] == labels[None, :])[upper]
        return (
            float(values[same].mean()) if same.any() else None,
            float(values[~same].mean()) if (~same).any() else None,
        )

    within, between = means(groups)
    if within is None or between is None:
        return Agreement(kind, within, between, None)
    draw = np.random.default_rng(0)
    at_least = 0
    for _ in range(_PERMUTATIONS):
        inside, outside = means(draw.permutation(groups))
        assert inside is not None and outside is not None
        at_least += outside - inside >= between - within - 1e-12
    return Agreement(kind, within, between, (at_least + 1) / (_PERMUTATIONS + 1))


UNTRAINED = (
    "Queries are made of word embeddings, in which relatives lie together: keys that never learned cluster languages too "
    "(docs/prompt-pool.md)."
)


def agreement_table(clusters: PoolClusters) -> Table:
    """Families and scripts: distances within and between them."""
    found = [
        agreement(clusters, "family", lambda item: item.family),
        agreement(clusters, "script", lambda item: item.script),
    ]
    return Table(
        "Do relatives attend alike?",
        [
            Column("group"),
            Column("within", numeric=True, digits=3, note="mean Jensen-Shannon distance of two languages of one group"),
            Column("between", numeric=True, digits=3, note="of two languages of different groups"),
            Column("p", numeric=True, digits=3, note=f"one-sided, {_PERMUTATIONS} permutations of the groups"),
        ],
        [[item.kind, item.within, item.between, item.p] for item in found],
        notes=["Distances go from 0 (the same attention) to 1 (no key in common).", UNTRAINED],
    )


def dendrogram(name: str, pool: PoolAttention, clusters: PoolClusters) -> Figure:
    """The tree, with a mark for the family and one for the script of each language.

    Args:
        name: Unique on the page, letters, digits and dashes.
        pool: Where the attention is from.
        clusters: From `cluster_languages`.

    Raises:
        IsoglossError: Fewer than two languages.
    """
    if len(clusters.languages) < 2:
        raise IsoglossError("A tree needs two languages at least; name more.")
    found = [resolve(clusters.languages[place]) for place in clusters.order]
    drawn = hierarchy.dendrogram(clusters.linkage, no_plot=True)
    marks = {
        "family": _marks([item.family or "isolate or unknown" for item in found]),
        "script": _marks([item.script for item in found]),
    }
    legends = sum(len(kinds) for _, kinds in marks.values())
    with canvas(name, 7.2, 1.2 + 0.24 * len(found) + 0.2 * ((legends + 3) // 3)) as drawing:
        axes = drawing.add_subplot()
        axes.patch.set_visible(False)
        for across, along in zip(drawn["dcoord"], drawn["icoord"], strict=True):
            axes.plot(across, along, color=INK, linewidth=1.1)
        top = max(float(clusters.linkage[:, 2].max()), 1e-6)
        places = [10 * place + 5 for place in range(len(found))]
        for column, (labels, kinds) in enumerate(marks.values()):
            for label, number in kinds.items():
                chosen = [place for place, own in zip(places, labels, strict=True) if own == label]
                axes.plot(
                    [-top * (0.03 + 0.045 * column)] * len(chosen),
                    chosen,
                    linestyle="none",
                    marker=SHAPES[number],
                    markersize=6,
                    color=COLOURS[number],
                    markeredgewidth=0,
                    label=label,
                    clip_on=False,
                )
        axes.set_xlim(-top * 0.1, top * 1.04)
        axes.set_ylim(10 * len(found), 0)
        axes.yaxis.tick_left()
        axes.set_yticks(places, [f"{item.name} ({item.code})" for item in found])
        axes.set_xlabel("Jensen-Shannon distance of mean attention")
        axes.grid(axis="x", color=GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        drawing.legend(loc="outside upper center", ncols=3, frameon=False, fontsize=8.5)
        nearest = np.where(np.eye(len(clusters.languages), dtype=bool), np.inf, clusters.distances)
        one, other = divmod(int(nearest.argmin()), len(clusters.languages))
        names = [resolve(clusters.languages[place]).name for place in (one, other)]
        return finish(
            drawing,
            name,
            f"Languages clustered by their attention: {pool.label}",
            f"Most alike: {names[0]} and {names[1]}, at a distance of {nearest.min():.3f}.",
            ["First mark: family; second mark: script. Average linkage."],
        )


def _marks(labels: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """Labels, those beyond the most frequent called `other`, and a number for each that is left."""
    counts = {label: labels.count(label) for label in dict.fromkeys(labels)}
    frequent = sorted(counts, key=lambda label: -counts[label])
    kept = frequent if len(frequent) <= _MARKED else frequent[: _MARKED - 1]
    shown = [label if label in kept else "other" for label in labels]
    return shown, {label: number for number, label in enumerate(dict.fromkeys([*kept, *shown]))}


def attention_map(name: str, pool: PoolAttention, clusters: PoolClusters) -> Figure:
    """Languages in the order of the tree, keys with the language that uses them most, most used ones first."""
    table = np.asarray(pool.attention, dtype=np.float64)[list(clusters.order)]
    used = np.argsort(-table.mean(0), kind="stable")[:_KEYS_DRAWN]
    # Keys beside the language that uses them most make blocks along the diagonal.
    keys = sorted(
        (int(key) for key in used), key=lambda key: (int(table[:, key].argmax()), -float(table[:, key].max()))
    )
    left = table.shape[1] - len(keys)
    found = [resolve(clusters.languages[place]) for place in clusters.order]
    strongest = divmod(int(table.argmax()), table.shape[1])
    return heat_map(
        name,
        f"Attention to the keys: {pool.label}",
        [f"{item.name} · {item.branch or item.family or 'isolate'} · {item.script}" for item in found],
        [str(key) for key in keys],
        table[:, keys].tolist(),
        scale="mean attention",
        column_axis="key",
        digits=2,
        alt=f"Strongest: {found[strongest[0]].name} attends to key {strongest[1]} with {table.max():.2f}.",
        notes=[
            "Languages stand as in the tree, with branch or family and script; keys by the language that uses them most.",
            *([f"{left} less used keys are not drawn."] if left else []),
        ],
    )

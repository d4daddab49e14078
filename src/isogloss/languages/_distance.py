"""Distances between languages after URIEL (Littell et al. 2017, "URIEL and lang2vec", EACL).

Five kinds are 1 - cosine of URIEL's vectors: syntactic, phonological, inventory and featural (the three
together) on the 0/1 vectors whose gaps URIEL filled from related and neighbouring languages, genetic on the
0/1 vectors of Glottolog groups. Geographic is the great-circle distance divided by half the circumference
of the Earth (section 3 of the paper). All lie in 0..1.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from isogloss.errors import IsoglossError
from isogloss.languages._language import Language
from isogloss.languages._resolve import all_languages, resolve
from isogloss.languages._table import DATA, table

if TYPE_CHECKING:  # Every command imports this package; only questions of distance need numpy.
    import numpy as np
    import numpy.typing as npt

DistanceKind = Literal["genetic", "geographic", "syntactic", "phonological", "inventory", "featural"]
DISTANCE_KINDS: tuple[DistanceKind, ...] = get_args(DistanceKind)

_PREFIXES = {
    "syntactic": ("S_",),
    "phonological": ("P_",),
    "inventory": ("INV_",),
    "featural": ("S_", "P_", "INV_"),
}
_Flags: TypeAlias = "npt.NDArray[np.bool_]"


@dataclass(frozen=True)
class Distance:
    """How far two languages are apart in one respect.

    Attributes:
        kind: Which respect.
        value: 0 (same) to 1; None where URIEL has nothing to compare.
        imputed: Share (0..1) of what was compared that is not attested but predicted: features with no
            source for at least one of the two languages.
        note: What a reader should know about this number; empty if nothing.
    """

    kind: DistanceKind
    value: float | None
    imputed: float
    note: str = ""


@dataclass(frozen=True)
class _Uriel:
    row: dict[str, int]
    columns: dict[str, _Flags]  # kind -> [F] which features count
    predicted: _Flags  # [L, F]
    attested: _Flags  # [L, F]
    families: list[frozenset[int]]
    position: "npt.NDArray[np.float64]"  # [L, 3] unit vectors, 0 where unknown


def distance(kind: str, a: str | Language, b: str | Language) -> Distance:
    """How far two languages are apart in one respect. The script does not matter.

    Args:
        kind: One of `DISTANCE_KINDS`.
        a: A language, or a text that `resolve` takes.
        b: The other language.

    Raises:
        IsoglossError: Unknown kind or language.
    """
    checked = _kind(kind)
    first, second = _as_language(a), _as_language(b)
    uriel = _uriel()
    missing = [x for x in dict.fromkeys((first.iso639_3, second.iso639_3)) if x not in uriel.row]
    if missing:
        value = 0.0 if first.iso639_3 == second.iso639_3 else None
        return Distance(checked, value, 1.0, f"URIEL does not have {' and '.join(missing)}.")
    measure = _MEASURES.get(checked, _typological)
    return measure(checked, first, second)


def distances(a: str | Language, b: str | Language) -> dict[str, Distance]:
    """All six distances between two languages, by kind."""
    first, second = _as_language(a), _as_language(b)
    return {kind: distance(kind, first, second) for kind in DISTANCE_KINDS}


def nearest(
    language: str | Language,
    kind: str = "featural",
    among: Iterable[str | Language] | None = None,
    count: int = 10,
) -> list[tuple[Language, Distance]]:
    """The languages nearest to one, nearest first; the language itself and those without a distance left out.

    Args:
        language: Where to start.
        kind: One of `DISTANCE_KINDS`.
        among: Candidates; by default `all_languages()`.
        count: How many at most, at least 1.

    Raises:
        IsoglossError: Unknown kind or language, or a count below 1.
    """
    if count < 1:
        raise IsoglossError(f"The count of nearest languages is {count}; give 1 or more.")
    centre = _as_language(language)
    candidates = all_languages() if among is None else [_as_language(item) for item in among]
    ranked: list[tuple[float, str, Language, Distance]] = []
    for other in dict.fromkeys(candidates):
        if other.iso639_3 != centre.iso639_3:
            found = distance(kind, centre, other)
            if found.value is not None:
                ranked.append((found.value, other.code, other, found))
    ranked.sort(key=lambda item: item[:2])
    return [(other, found) for _, _, other, found in ranked[:count]]


def _as_language(item: str | Language) -> Language:
    return item if isinstance(item, Language) else resolve(item)


def _kind(kind: str) -> DistanceKind:
    for known in DISTANCE_KINDS:
        if kind.strip().lower() == known:
            return known
    near = get_close_matches(kind.lower(), DISTANCE_KINDS, n=1)
    hint = f"did you mean {near[0]}" if near else f"use one of {', '.join(DISTANCE_KINDS)}"
    raise IsoglossError(f"Unknown kind of distance {kind!r}; {hint}.")


@cache
def _uriel() -> _Uriel:
    import numpy as np

    with (DATA / "uriel.npz").open("rb") as file, np.load(file, allow_pickle=False) as stored:
        names = [str(name) for name in stored["features"]]
        start, nodes = stored["family_start"], stored["family_nodes"]
        return _Uriel(
            row={str(code): i for i, code in enumerate(stored["languages"])},
            columns={k: np.array([n.startswith(p) for n in names]) for k, p in _PREFIXES.items()},
            predicted=np.unpackbits(stored["predicted"], axis=1, count=len(names)).astype(bool),
            attested=np.unpackbits(stored["attested"], axis=1, count=len(names)).astype(bool),
            families=[frozenset(nodes[i:j].tolist()) for i, j in pairwise(start.tolist())],
            position=stored["position"].astype(np.float64),
        )


def _cosine_distance(shared: int, size_a: int, size_b: int) -> float:
    """1 - cosine of two 0/1 vectors from counts; exactly 0 for equal ones."""
    return max(0.0, 1.0 - shared / math.sqrt(size_a * size_b))


def _typological(kind: DistanceKind, a: Language, b: Language) -> Distance:
    uriel = _uriel()
    i, j = uriel.row[a.iso639_3], uriel.row[b.iso639_3]
    column = uriel.columns[kind]
    x, y = uriel.predicted[i, column], uriel.predicted[j, column]
    both = uriel.attested[i, column] & uriel.attested[j, column]
    imputed = 1.0 - float(both.mean())
    bare = [
        language.iso639_3
        for language, row in ((a, i), (b, j))
        if not bool(uriel.attested[row, column].any())
    ]  # fmt: skip
    note = ""
    if bare:
        what = "features" if kind == "featural" else f"{kind} features"
        note = f"No {what} of {' and '.join(dict.fromkeys(bare))} are attested; all are predicted."
    if not x.any() or not y.any():
        return Distance(kind, None, imputed, "One of the vectors has no feature set, so it has no direction.")
    return Distance(kind, _cosine_distance(int((x & y).sum()), int(x.sum()), int(y.sum())), imputed, note)


def _genetic(kind: DistanceKind, a: Language, b: Language) -> Distance:

    uriel = _uriel()
    x, y = uriel.families[uriel.row[a.iso639_3]], uriel.families[uriel.row[b.iso639_3]]
    if a.iso639_3 == b.iso639_3:
        return Distance(kind, 0.0, 0.0)
    entries = table().entries
    notes = []
    borrowed = False
    for language, path in ((a, x), (b, y)):
        source = entries[language.iso639_3].family_from
        if source:
            borrowed = True
            notes.append(f"URIEL gives no family for {language.iso639_3}; that of {source} is used.")
        elif not path:
            notes.append(f"URIEL puts {language.iso639_3} in no family (an isolate, or not placed): counted unrelated.")
    value = _cosine_distance(len(x & y), len(x), len(y)) if x and y else 1.0
    return Distance(kind, value, 1.0 if borrowed else 0.0, " ".join(notes))


def _geographic(kind: DistanceKind, a: Language, b: Language) -> Distance:
    import numpy as np

    uriel = _uriel()
    x, y = uriel.position[uriel.row[a.iso639_3]], uriel.position[uriel.row[b.iso639_3]]
    if a.iso639_3 == b.iso639_3:
        return Distance(kind, 0.0, 0.0)
    if not x.any() or not y.any():
        return Distance(kind, None, 1.0, "URIEL has no place for one of the languages.")
    # atan2 keeps its precision for near and for antipodal places, where the arc cosine loses it.
    arc = math.atan2(float(np.linalg.norm(np.cross(x, y))), float(x @ y))
    return Distance(kind, arc / math.pi, 0.0)


_MEASURES: dict[DistanceKind, Callable[[DistanceKind, Language, Language], Distance]] = {
    "genetic": _genetic,
    "geographic": _geographic,
}

"""Groups that transfer results are averaged over: seen by the backbone or not, near to the source or far, much text or little."""

from collections.abc import Mapping, Sequence

from isogloss.languages import Language, distance, resolve

_THIRDS = ("near", "middle", "far")


def groups(
    codes: Sequence[str],
    *,
    source: str = "eng_Latn",
    seen: Sequence[str] = (),
    text: Mapping[str, int] | None = None,
    kind: str = "syntactic",
) -> dict[str, list[str]]:
    """Sorts languages into named groups; a group without a language is left out.

    Args:
        codes: The targets; the source itself is in no distance group.
        source: Where distances are measured from.
        seen: Languages that the backbone was pre-trained on; empty when that is not known.
        text: Size of each language's pre-training text, in any unit; the lower half of the seen targets is low-resource.
        kind: Of the distance (URIEL); languages without one are in no distance group.
    """
    found: dict[str, list[str]] = {}
    if seen:
        spoken = {resolve(code).code for code in seen}
        found["seen"] = [code for code in codes if code in spoken]
        found["unseen"] = [code for code in codes if code not in spoken]
    if text:
        known = sorted((code for code in codes if text.get(code)), key=lambda code: (text[code], code))
        half = len(known) // 2
        low = set(known[:half])
        found["low-resource"] = [code for code in codes if code in low]
        found["high-resource"] = [code for code in codes if code in known and code not in low]
    origin: Language = resolve(source)
    measured = [
        (value, code)
        for code in codes
        if code != origin.code and (value := distance(kind, origin, code).value) is not None
    ]
    # Equal distances stay together, so thirds may differ in size.
    values = sorted(value for value, _ in measured)
    for place, name in enumerate(_THIRDS):
        low_end = values[place * len(values) // 3] if values else 0.0
        high_end = values[(place + 1) * len(values) // 3] if place < 2 and values else float("inf")
        found[f"{name} ({kind})"] = [
            code for code in codes for value, own in measured if own == code and low_end <= value < high_end
        ]
    return {name: members for name, members in found.items() if members}


def group_means(scores: Mapping[str, float], found: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Unweighted mean of each group over the languages that have a score."""
    means = {}
    for name, members in found.items():
        values = [scores[code] for code in members if code in scores]
        if values:
            means[name] = sum(values) / len(values)
    return means

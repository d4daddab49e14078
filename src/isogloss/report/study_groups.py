"""The groups of languages that the scores of a study are averaged over."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from isogloss.report.study_data import StudyData
from isogloss.report.study_index import Board, Unit, backbone_of, language_of, own, resolve_code, shares_of

# Languages with less than this share of the pre-training text count as low in resources where the study names no group.
LOW_SHARE = 0.001


@dataclass(frozen=True)
class Group:
    """Languages whose scores are averaged.

    Attributes:
        name: Shown as the group's name.
        units: Its test sets.
        note: What the name means.
        absent: Test sets that belong to it and that no setting has a score on.
        backbone: The backbone whose settings it is about; None for all settings.
        also: Other names of the same languages.
    """

    name: str
    units: Sequence[Unit]
    note: str = ""
    absent: Sequence[Unit] = ()
    backbone: str | None = None
    also: Sequence[str] = ()

    @property
    def lacking(self) -> list[str]:
        """Languages of the absent test sets."""
        return list(dict.fromkeys(language for _, language in self.absent))


def groups_of(board: Board, data: StudyData) -> list[Group]:
    """The groups of languages that a task's scores are averaged over; empty groups are left out."""
    everything = [*board.units, *board.absent]
    fresh = [unit for unit in everything if unit not in board.trained_on]
    found = [
        _group(board, "zero-shot", fresh, "languages that took no part in training or choosing anything"),
        _group(board, "all", everything, "every language, the source too"),
        _group(board, "source", [unit for unit in everything if own(unit)], "the language trained on"),
        _group(
            board,
            "helped training",
            [unit for unit in everything if unit in board.trained_on and not own(unit)],
            "not the source, but used in training or choosing by some setting",
        ),
        *_by_share(board, data, fresh),
    ]
    taken = {one.name for one in found}
    for name, codes in data.groups.items():
        known = {resolve_code(code) for code in codes}
        members = [unit for unit in fresh if unit[1] in known]
        # Two groups of one name would be taken for one another wherever a name finds its group.
        shown = f"{name} (study file)" if name in taken else name
        found.append(_group(board, shown, members, "zero-shot, named in the study file"))
    for kind in ("script", "family"):
        by_value: dict[str, list[Unit]] = defaultdict(list)
        for unit in fresh:
            known_language = language_of(unit[1])
            if known_language and (value := getattr(known_language, kind)):
                by_value[value].append(unit)
        for value, units in sorted(by_value.items()):
            made = _group(board, f"{kind} {value}", units, f"zero-shot languages of this {kind}")
            # A group of one language stands in the table of languages already.
            if len({language for _, language in made.units}) > 1 and len(made.units) < len(found[0].units):
                found.append(made)
    kept: list[Group] = []
    for one in found:
        # Two names for the same languages and settings would look like two findings.
        same = next(
            (
                place
                for place, other in enumerate(kept)
                if set(one.units) == set(other.units) and one.backbone == other.backbone
            ),
            None,
        )
        if one.units and same is None:
            kept.append(one)
        elif one.units and same is not None:
            kept[same] = replace(kept[same], also=(*kept[same].also, one.name))
    return kept


def _group(board: Board, name: str, members: Iterable[Unit], note: str, backbone: str | None = None) -> Group:
    listed, absent = list(members), set(board.absent)
    return Group(
        name,
        [unit for unit in listed if unit not in absent],
        note,
        [unit for unit in listed if unit in absent],
        backbone,
    )


def _by_share(board: Board, data: StudyData, fresh: Sequence[Unit]) -> list[Group]:
    """Seen, unseen and low-resource languages: for all settings where their backbones agree, else for each backbone's."""
    backbones = {backbone_of(arm) for arm in board.arms}
    seen: dict[str, list[Unit]] = {}
    unseen: dict[str, list[Unit]] = {}
    low: dict[str, list[Unit]] = {}
    for name, shares in shares_of(board, data).items():
        # A share of None is that of a language that is known to be in the text, no more.
        seen[name] = [unit for unit in fresh if shares.get(unit[1], 0.0) != 0]
        unseen[name] = [unit for unit in fresh if shares.get(unit[1], 0.0) == 0]
        known = {code: share for code, share in shares.items() if share is not None}
        if len(known) == len(shares):
            poor = [unit for unit in fresh if known.get(unit[1], 0.0) < LOW_SHARE]
            if len(poor) < len(fresh):
                low[name] = poor

    def made(by_backbone: Mapping[str, list[Unit]], name: str, within: str, note: str) -> list[Group]:
        if name in data.groups:  # The study says itself which languages these are.
            return []
        ways = {tuple(units) for units in by_backbone.values()}
        if len(ways) == 1 and by_backbone.keys() == backbones:
            return [_group(board, name, ways.pop(), f"zero-shot, {note} the backbone's text")]
        return [
            _group(board, f"{within} {backbone}", units, f"zero-shot, {note} its text; its settings only", backbone)
            for backbone, units in by_backbone.items()
        ]

    return [
        *made(seen, "seen in pre-training", "seen by", "in"),
        *made(unseen, "unseen", "unseen by", "not in"),
        *made(low, "low-resource", "low-resource for", f"less than {LOW_SHARE:.1%} of"),
    ]

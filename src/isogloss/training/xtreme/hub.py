"""The suite's data from the Hugging Face Hub, written once as the local folders that the suite reads.

Languages go by one at a time; English brings its training and development rows, the others only what is scored. BUCC is
left out: the Hub's copy of XTREME holds its pairs alone, without the sentences they have to be found among.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.storage import write_text
from isogloss.tasks import _hub
from isogloss.training.xtreme.data import ENGLISH, check_names
from isogloss.training.xtreme.settings import SUITE

HUB_SUITE = "hub:xtreme"
_XTREME = "google/xtreme"
# As the Hub spells a configuration.
_SPELT = {"Afrikans": "Afrikaans"}


@dataclass(frozen=True)
class HubData:
    """One data set of the suite on the Hub.

    Attributes:
        data: Its id.
        folder: Below the suite's data folder.
        prefix: What its configurations begin with; the last piece behind it, if any, names the language.
        splits: The Hub's splits to ours; the last one is scored, and the others are taken in English alone.
        language: Of all rows, where no configuration says it.
        by_id: Whether the language stands at the beginning of each row's id instead (`arabic-238...`).
        columns: Columns under other names, the only ones that are kept; empty keeps all.
    """

    data: str
    folder: str
    prefix: str = ""
    splits: Mapping[str, str] = field(
        default_factory=lambda: {"train": "train", "validation": "dev", "test": "test"}, hash=False
    )
    language: str | None = None
    by_id: bool = False
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)

    def scored(self) -> str:
        """Our name of the split that every language brings."""
        return list(self.splits.values())[-1]


_LEARNED = {"train": "train", "validation": "dev"}
_SQUAD = HubData(_XTREME, "squad", "SQuAD", _LEARNED, language=ENGLISH)

HUB: Mapping[str, tuple[HubData, ...]] = {
    # XTREME's own copy has one configuration for all languages and no training rows.
    "xnli": (HubData("facebook/xnli", "xnli"),),
    "paws-x": (HubData("google-research-datasets/paws-x", "paws-x"),),
    "udpos": (HubData(_XTREME, "udpos", "udpos."),),
    "panx": (HubData(_XTREME, "panx", "PAN-X."),),
    "xquad": (HubData(_XTREME, "xquad", "XQuAD.", {"validation": "test"}), _SQUAD),
    "mlqa": (HubData(_XTREME, "mlqa", "MLQA.", {"test": "test"}), _SQUAD),
    "tydiqa": (HubData(_XTREME, "tydiqa-goldp", "tydiqa", _LEARNED, by_id=True),),
    "tatoeba": (
        HubData(
            _XTREME,
            "tatoeba",
            "tatoeba.",
            {"validation": "test"},
            columns={"source_sentence": "text", "target_sentence": "eng"},
        ),
    ),
}


def fetch_suite(
    folder: str | Path, names: Sequence[str] = (), *, tell: Callable[[str], None] = lambda text: None
) -> Path:
    """Writes the data of the suite's tasks as local folders; files that are there already are left as they are.

    Args:
        folder: The suite's data folder to be.
        names: Tasks; empty takes all that the Hub has.
        tell: Where to say what is being read.

    Returns:
        The folder.

    Raises:
        IsoglossError: An unknown task, one that the Hub does not have whole, or a data set that cannot be loaded.
    """
    check_names(names)
    lacking = [name for name in names if name not in HUB]
    if lacking:
        raise IsoglossError(
            f"--tasks {lacking[0]}: the Hub has no whole copy of it; give a folder with '{SUITE[lacking[0]].folders[0]}' in it."
        )
    for part in dict.fromkeys(part for name in names or HUB for part in HUB[name]):
        for config, code in _configs(part).items():
            _fetch(part, config, code, Path(folder).expanduser() / part.folder, tell)
    return Path(folder).expanduser()


def _configs(part: HubData) -> dict[str, str | None]:
    """Configurations of a data set to their languages; None where the rows say it."""
    if part.by_id or part.language:
        return {part.prefix: part.language}
    found: dict[str, str | None] = {}
    for config in _hub.configs(part.data):
        pieces = config.removeprefix(part.prefix).split(".")
        # MLQA also pairs questions of one language with contexts of another.
        if not config.startswith(part.prefix) or len(set(pieces)) > 1:
            continue
        try:
            found[config] = resolve(_SPELT.get(pieces[-1], pieces[-1])).code
        except IsoglossError:
            continue
    return found


def _fetch(part: HubData, config: str, code: str | None, folder: Path, tell: Callable[[str], None]) -> None:
    there = None
    for split, name in part.splits.items():
        # A file of all languages is written last; it stands for the whole of a split whose rows say their languages.
        target = folder / (code or ENGLISH) / f"{name}.jsonl"
        if target.is_file() or (code not in (None, ENGLISH) and name != part.scored()):
            continue
        there = _hub.splits(part.data, config) if there is None else there
        if split not in there:
            continue
        tell(f"{part.data} {config}/{split}")
        lines: dict[str, list[str]] = {}
        for language, values in _rows(part, config, split, code):
            lines.setdefault(language, []).append(json.dumps(values, ensure_ascii=False))
        for language in sorted(lines, key=lambda language: language == ENGLISH):
            if language == ENGLISH or name == part.scored():
                write_text(folder / language / f"{name}.jsonl", "\n".join(lines[language]) + "\n")


def _rows(part: HubData, config: str, split: str, code: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Language and columns of each row."""
    for row in _hub.rows(part.data, config, split):
        values = dict(row.values)
        if part.columns:
            # The lines of Tatoeba's files still have their ends.
            values = {ours: str(values[theirs]).strip() for theirs, ours in part.columns.items()}
        yield code or resolve(str(values["id"]).split("-")[0]).code, values

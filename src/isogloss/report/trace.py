"""Where numbers come from: what every table and page says about its origin."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Trace:
    """The origin of a table's numbers.

    Attributes:
        command: What to type to get them again.
        seeds: Every seed that was run.
        backbone: Its name.
        fingerprint: Of the backbone.
        date: ISO 8601, UTC.
        version: Of isogloss.
        data: Name of the data set, and the split.
        steps: Which steps of a study they come from, in words.
        commit: Version control commit of the code.
    """

    command: str
    seeds: Sequence[int]
    backbone: str
    fingerprint: str
    date: str
    version: str
    data: str = ""
    steps: str = ""
    commit: str = ""

    def facts(self) -> list[tuple[str, str]]:
        """Name and value, in the order they are shown."""
        found = [
            ("command", self.command),
            ("seed" if len(self.seeds) == 1 else "seeds", ", ".join(str(seed) for seed in self.seeds)),
            ("backbone", f"{self.backbone} (fingerprint {self.fingerprint})" if self.fingerprint else self.backbone),
            ("data", self.data),
            ("steps", self.steps),
            ("date", self.date),
            ("isogloss", self.version),
            ("commit", self.commit),
        ]
        return [(name, value) for name, value in found if value]

    def line(self) -> str:
        """All of it in one line of text."""
        return "; ".join(f"{name}: {value}" for name, value in self.facts())

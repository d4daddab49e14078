"""Steps, plans and jobs: plain data that can be written to the store and sent to a worker."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.storage import content_key, read_json, write_text

FORMAT = 1
# Raised with a change after which a kind of step computes something else from the same spec, so that old results are not
# taken for new ones: other batches, losses, defaults or metrics, a mended mistake. Not for what moves results by rounding
# alone, and not for the kinds above it, whose keys hold those of the steps that they need.
# update 2: modules and unfrozen backbones drop out in meta-training too.
CODE: Mapping[str, int] = {"language": 1, "update": 2, "task": 1, "evaluation": 1}


@dataclass(frozen=True)
class Step:
    """One piece of work whose result is kept.

    Attributes:
        key: Content key of `spec`; the name of its folder.
        kind: language, update, task or evaluation.
        label: What a person reads.
        group: Steps of one group are done together by one worker (all languages of a model, seeds of one shape).
        needs: Keys of the steps whose results it uses.
        spec: Everything that decides the result.
        inputs: Where things lie: paths and names, which do not decide it.
    """

    key: str
    kind: str
    label: str
    group: str
    needs: tuple[str, ...]
    spec: Mapping[str, Any]
    inputs: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` gives the step back."""
        return asdict(self)

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> "Step":
        """The step that `to_json` described."""
        return Step(**{**values, "needs": tuple(values["needs"])})


def step_key(kind: str, spec: Mapping[str, Any]) -> str:
    """Content key of a step, 24 hex digits."""
    return content_key({"kind": kind, "code": CODE[kind], "spec": spec})[:24]


@dataclass
class Plan:
    """All steps of a study, in an order in which each comes after what it needs.

    Attributes:
        name, description: Of the study.
        steps: By key.
        points: One trained model each: factors, task, source, seed, key of its task step, and its evaluations as
            (language, test set, key).
        notes: What a person should know: languages that are left out and why.
        options: How it is run: retries, tokens_per_batch.
        published: Numbers from papers.
        seconds: Estimated seconds by key, where measured.
    """

    name: str
    description: str
    steps: dict[str, Step] = field(default_factory=dict)
    points: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)
    published: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Steps by kind."""
        found: dict[str, int] = {}
        for step in self.steps.values():
            found[step.kind] = found.get(step.kind, 0) + 1
        return found

    def groups(self) -> dict[str, list[Step]]:
        """Steps by group, groups in order of their first step."""
        found: dict[str, list[Step]] = {}
        for step in self.steps.values():
            found.setdefault(step.group, []).append(step)
        return found

    def save(self, path: Path) -> None:
        """Writes the plan so that a status or a report needs no study file."""
        import json

        content = {"format": FORMAT, **asdict(self), "steps": [step.to_json() for step in self.steps.values()]}
        write_text(path, json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n")

    @staticmethod
    def load(path: Path) -> "Plan":
        """Reads a saved plan.

        Raises:
            IsoglossError: It is missing, damaged or of a newer format.
        """
        content = read_json(path)
        number = content.pop("format", None) if isinstance(content, dict) else None
        if not isinstance(number, int) or number > FORMAT:
            raise IsoglossError(
                f"The plan '{path}' has the format {number}, but {FORMAT} is the newest known; update isogloss."
            )
        steps = [Step.from_json(item) for item in content.pop("steps")]
        return Plan(steps={step.key: step for step in steps}, **content)


@dataclass(frozen=True)
class Job:
    """What a worker gets: steps of one group that are to be done together, and how.

    Attributes:
        group: Their group.
        steps: In order.
        options: `tokens_per_batch`, `threads`, `command`, `commit`, `cache` ...
    """

    group: str
    steps: Sequence[Step]
    options: Mapping[str, Any]

    @property
    def backbone(self) -> str:
        """The backbone that the job needs; a worker that has it loaded is asked first."""
        return str(self.steps[0].inputs.get("backbone", ""))

    @property
    def label(self) -> str:
        """What a person reads."""
        first = self.steps[0].label
        return first if len(self.steps) == 1 else f"{first} and {len(self.steps) - 1} more"

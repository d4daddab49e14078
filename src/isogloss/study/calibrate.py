"""How long a study will take and how much it will store: counted, and measured on this machine in some seconds."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from isogloss.errors import IsoglossError
from isogloss.modules import PromptConfig, format_module, parse_module
from isogloss.study import sources
from isogloss.study.costs import Bench, Cost
from isogloss.study.steps import Plan, Step

_BYTES = 4
_NAMED = 4  # So many shapes are named in a sentence at most.


@dataclass
class Estimate:
    """What a plan will cost.

    Attributes:
        seconds: By step key, on one worker.
        stored: Bytes by step key.
        shapes: Label of a shape -> its cost.
        problems: What could not be measured, and why.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    stored: dict[str, int] = field(default_factory=dict)
    shapes: dict[str, Cost] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _Shape(NamedTuple):
    """What decides how much a training costs. Shapes of one family take about the same time."""

    kind: str
    backbone: str
    family: str
    rest: str


def estimate(plan: Plan, *, limit_seconds: float = 30.0, tell: Callable[[str], None] = lambda text: None) -> Estimate:
    """Counts the parameters of every shape of training, measures a step or two on real rows, and reckons up.

    Args:
        plan: Of the study; its `seconds` are filled in.
        limit_seconds: After this time no further shape is measured, but the first of its kind on each backbone and of each
            method of learning an update: the slowest one that is alike stands for the rest, and `problems` names them.
        tell: Gets a line for each shape.
    """
    out = Estimate()
    shapes: dict[_Shape, list[Step]] = {}
    for step in plan.steps.values():
        if step.kind != "evaluation":
            shapes.setdefault(_shape(step), []).append(step)
    names = labels(plan)
    bench = Bench()
    costs: dict[_Shape, Cost] = {}
    broken: set[str] = set()
    spent: dict[str, float] = {}
    share = limit_seconds / max(1, len({shape.backbone for shape in shapes}))
    for shape in _in_order(shapes):
        step = shapes[shape][0]
        if (away := _away(step)) is not None:
            # A plan fetches nothing.
            problem = f"{away} is not on this machine"
            out.problems += [] if problem in out.problems else [problem]
            continue
        if shape.backbone in broken:
            continue
        try:
            cost = bench.count(step)
            alike = _alike(costs, shape)
            if alike is None or spent.get(shape.backbone, 0.0) < share:
                tell(f"measuring {names[step.key]}")
                began = time.monotonic()
                cost = bench.time(step, cost)
                spent[shape.backbone] = spent.get(shape.backbone, 0.0) + time.monotonic() - began
            else:
                cost = cost.timed_as(alike)
        except (IsoglossError, RuntimeError, OSError) as problem:
            out.problems.append(f"{names[step.key]}: {problem}")
            if bench.loaded is None:
                broken.add(shape.backbone)
            continue
        costs[shape] = cost
    for shape, steps in shapes.items():
        for step in steps if shape in costs else ():
            out.seconds[step.key] = costs[shape].seconds
            out.stored[step.key] = costs[shape].stored * _BYTES
            out.shapes.setdefault(names[step.key], costs[shape])
    of_step = {step.key: costs[shape] for shape, steps in shapes.items() if shape in costs for step in steps}
    for step in plan.steps.values():
        if step.kind == "evaluation" and (model := of_step.get(step.spec["task"])) is not None:
            rows = bench.scored_rows(step)
            out.seconds[step.key] = rows * model.row_seconds
            out.stored[step.key] = 200 + 24 * rows
    out.problems += _gaps(plan, out)
    plan.seconds = dict(out.seconds)
    return out


def labels(plan: Plan) -> dict[str, str]:
    """Step key -> what tells the shape of a training from the others of its plan, for a person."""
    points: dict[str, dict[str, Any]] = {}
    for point in plan.points:
        points.setdefault(point["step"], point)
        points.setdefault(plan.steps[point["step"]].spec.get("update", ""), point)
    several = len({step.inputs["backbone"] for step in plan.steps.values()}) > 1
    found = {}
    for step in plan.steps.values():
        if step.kind == "evaluation":
            continue
        words = [step.inputs["backbone"]] if several else []
        module = _without_text(step.spec["module"])
        if step.kind == "language":
            words += ["language module", module]
        else:
            factors, shots = points[step.key]["factors"], step.spec.get("shots")
            cell = factors["cell"] if step.kind == "task" else factors["update"]
            words += [step.kind, points[step.key]["task"], cell, "" if module == "none" else module]
            words.append(points[step.key]["source"])
            words += [f"{shots} shots" if shots else "", "" if step.spec["freeze"] else "unfrozen"]
            if step.kind == "task":
                words += [f"{name} {factors[name]}" for name in ("update", "pool") if factors[name] != "none"]
        found[step.key] = " ".join(word for word in words if word)
    return found


def _shape(step: Step) -> _Shape:
    spec = step.spec
    rest: list[Any] = [_without_text(spec["module"]), sorted(spec["stage"].items(), key=str)]
    if step.kind == "language":
        return _Shape(step.kind, step.inputs["backbone"], spec["module"].split(":")[0], str(rest))
    # Of how many rows: the contents of the data say it.
    rest += [spec["task"], sorted(spec["train"].values()), spec["limit"], spec.get("shots")]
    family = (spec["task"]["name"], spec["freeze"], spec.get("method"))
    rest += [sorted(spec["auxiliary"].values())] if step.kind == "update" else [sorted(spec["dev"].values())]
    return _Shape(step.kind, step.inputs["backbone"], str(family), str(rest))


def _without_text(module: str) -> str:
    """A spec without the words that a prompt starts from, which differ from language to language and cost nothing."""
    config = parse_module(module)
    return format_module(replace(config, text="…")) if isinstance(config, PromptConfig) and config.text else module


def _in_order(shapes: Mapping[_Shape, Any]) -> list[_Shape]:
    """Backbone by backbone, so that each is loaded once; the first shape of every family ahead of the others."""
    first: dict[tuple[str, ...], _Shape] = {}
    for shape in shapes:
        first.setdefault(shape[:3], shape)
    backbones = list(dict.fromkeys(shape.backbone for shape in shapes))
    return sorted(shapes, key=lambda shape: (backbones.index(shape.backbone), first[shape[:3]] != shape))


def _alike(costs: Mapping[_Shape, Cost], shape: _Shape) -> Cost | None:
    """The slowest measured one of the same kind on the same backbone, of the same family where there is one.

    Methods of learning an update differ too much to stand for one another.
    """
    for same in (3,) if shape.kind == "update" else (3, 2):
        alike = [cost for other, cost in costs.items() if cost.measured and other[:same] == shape[:same]]
        if alike:
            return max(alike, key=lambda cost: cost.step_seconds / cost.batch)
    return None


def _away(step: Step) -> str | None:
    """The backbone or data set of a training that would have to be fetched or made first."""
    if not sources.backbone_is_here(step.inputs["backbone"]):
        return str(step.inputs["backbone"])
    data = [*step.inputs.get("data", {}).values(), *step.inputs.get("auxiliary", {}).values()]
    return next((name for name in data if not sources.data_is_here(name)), None)


def _gaps(plan: Plan, found: Estimate) -> list[str]:
    """What the sums leave out, and which times are not a shape's own."""
    lines = []
    guessed = [name for name, cost in found.shapes.items() if not cost.measured]
    if guessed:
        shown = "; ".join(guessed[:_NAMED]) + (f"; and {len(guessed) - _NAMED} more" if len(guessed) > _NAMED else "")
        lines.append(
            f"the time of {len(guessed)} of {len(found.shapes)} trainings, which is that of others alike: {shown}"
        )
    for kind, count in plan.counts().items():
        lacking = count - sum(plan.steps[key].kind == kind for key in found.seconds)
        if lacking:
            lines.append(f"{lacking} of {count} {kind} steps, which the sums leave out")
    return lines

"""What the prompt pools of a study are used for: attention of its languages over keys, measured on texts it is scored on."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from isogloss.errors import IsoglossError
from isogloss.formats import load_module, read_info
from isogloss.modules import parse_module
from isogloss.report.study_data import PoolAttention
from isogloss.stack import Stack, retrieval
from isogloss.study import sources
from isogloss.study.desk import Desk, asked_task, shared_modules
from isogloss.study.steps import Plan, Step
from isogloss.study.store import MODULE, Store
from isogloss.training.pool_usage import pool_usage

# What tells one pool from another, what it is called, its step, and how it is stacked.
_Found = tuple[tuple[Any, ...], str, str, Callable[[], Stack]]


def pool_attention(
    store: Store, plan: Plan, count: int, tell: Callable[[str], None] = lambda text: None
) -> tuple[list[PoolAttention], list[tuple[str, str]]]:
    """Measures every pool of a study once: of a backbone, one that serves every language, a task module (its first seed).

    Only embeddings are read where the pool's query needs no more, so some texts a language cost seconds.

    Args:
        store: Of the study.
        plan: Of the study.
        count: Texts of each language: the first ones of the data that the study scores it on.
        tell: Is told what is measured.

    Returns:
        Attention, and (pool, reason) of those that could not be measured.
    """
    desk, done = Desk(store), store.done(plan.steps)
    found: list[PoolAttention] = []
    lacking: list[tuple[str, str]] = []
    met: set[tuple[Any, ...]] = set()
    for point in plan.points:
        step = plan.steps[point["step"]]
        for identity, label, key, make in _pools(step, desk, step.key in done):
            if identity in met:
                continue
            met.add(identity)
            tell(f"attention of {label}")
            try:
                texts, source = _texts(plan, point, desk, count)
                stack = make()
                # The pool in question stands last of those that the stack has.
                usage = pool_usage(stack, texts, slot=retrieval.retrievals(stack.slots)[-1][0].name)
                found.append(PoolAttention(key, label, list(texts), usage.attention, source))
            except IsoglossError as problem:
                lacking.append((f"attention of {label}", str(problem)))
    return found, lacking


def _pools(step: Step, desk: Desk, done: bool) -> Iterator[_Found]:
    """The pools that texts of a task step meet, the backbone's first."""
    name, spec = step.inputs["backbone"], step.spec
    own = sources.backbone_card(name).get("pool")
    if own:
        yield ("backbone", spec["backbone"]), f"{own} of {name}", "", lambda: Stack(desk.backbone(name))
    if "pool" in step.inputs and read_info(step.inputs["pool"]).method == "pool":
        folder = step.inputs["pool"]
        yield (
            ("shared", spec["backbone"], spec["pool"]),
            f"{folder} on {name}",
            "",
            lambda: Stack(desk.backbone(name), shared_modules(step, desk, desk.backbone(name))),
        )
    if done and parse_module(spec["module"]).method == "pool":

        def trained() -> Stack:
            backbone = desk.backbone(name)
            # Language modules are left out: a pool's query never sees them.
            own = load_module(desk.store.place(step.key) / MODULE, backbone)
            return Stack(backbone, [*shared_modules(step, desk, backbone), own])

        rest = repr(sorted((part, str(value)) for part, value in spec.items() if part != "seed"))
        yield ("task", rest), step.label, step.key, trained


def _texts(plan: Plan, point: Mapping[str, Any], desk: Desk, count: int) -> tuple[dict[str, list[str]], str]:
    """The first texts of each language that a point is scored on, and where they are from."""
    task = asked_task(plan.steps[point["step"]].spec)
    found: dict[str, list[str]] = {}
    places: dict[str, None] = {}
    for code, _, key in point["evaluations"]:
        if code in found:
            continue
        spec, data = plan.steps[key].spec, plan.steps[key].inputs["data"]
        rows = desk.examples(data, code, spec["split"], task, count, spec["bad_rows"])
        found[code] = [row.content() for row in rows]
        places[f"{data} ({spec['split']})"] = None
    return found, f"At most {count} texts a language, the first ones of {', '.join(places)}."

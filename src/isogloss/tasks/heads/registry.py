"""Heads by name, and which one a task uses unless another is chosen."""

import difflib
import inspect
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from pydantic import TypeAdapter, ValidationError

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.tasks.heads._base import Head
from isogloss.tasks.heads.linear_classification import LinearClassification
from isogloss.tasks.heads.linear_tagging import LinearTagging
from isogloss.tasks.heads.span_qa import SpanQA
from isogloss.tasks.heads.text_to_text import TextToText
from isogloss.tasks.heads.verbaliser import VerbaliserHead
from isogloss.tasks.task import Task

# A name may stand for several classes, which then serve different kinds of task. A new head is one more
# entry.
HEADS: Mapping[str, tuple[type[Head], ...]] = {
    "linear": (LinearClassification, LinearTagging),
    "span": (SpanQA,),
    "verbaliser": (VerbaliserHead,),
    "text": (TextToText,),
}

_DEFAULTS: Mapping[str, Mapping[str, str]] = {
    "encoder": {
        "classification": "linear",
        "pair-classification": "linear",
        "choice": "linear",
        "tagging": "linear",
        "qa": "span",
    },
    "decoder": {
        "classification": "verbaliser",
        "pair-classification": "verbaliser",
        "choice": "linear",
        "tagging": "linear",
        "qa": "text",
    },
    "encoder-decoder": {
        "classification": "text",
        "pair-classification": "text",
        "choice": "text",
        "tagging": "text",
        "qa": "text",
    },
}


def head_names() -> tuple[str, ...]:
    """All names that `make_head` knows."""
    return tuple(HEADS)


def default_head(task: Task, kind: str) -> str:
    """The head that a task uses on a kind of backbone.

    As S1 (encoder-decoder), S2 (decoder) and XTREME (encoder) do.

    Raises:
        IsoglossError: The task trains no head.
    """
    found = _DEFAULTS.get(kind, {}).get(task.kind)
    if found is None:
        raise IsoglossError(
            f"Task {task.name!r} ({task.kind}) has no head on a {kind}: it compares sentence vectors and "
            "trains nothing."
        )
    return found


def make_head(
    name: str | None,
    task: Task,
    backbone: Backbone,
    labels: Sequence[str] | None = None,
    *,
    default_seed: int | None = None,
    **options: Any,
) -> Head:
    """Builds a head.

    Args:
        name: `linear`, `span`, `verbaliser` or `text`; None takes the default.
        task: What is asked.
        backbone: What it is asked of.
        labels: Label set, if the task does not know it yet.
        default_seed: Of the head's first weights, when it has some and `options` give no seed.
        **options: Of the head's class.

    Raises:
        IsoglossError: Unknown name or option, or a head that cannot serve the task or the backbone.
    """
    chosen = name or default_head(task, backbone.kind)
    if labels is not None and task.has_labels and task.labels is None:
        task = task.with_labels(labels)
    head = _head_class(chosen, task, backbone.kind)
    known = _check_options(chosen, head, options)
    if default_seed is not None and "seed" in known:
        options.setdefault("seed", default_seed)
    try:
        return head(task, backbone, **options)
    except ValueError as problem:
        raise IsoglossError(f"The head '{chosen}' cannot be made so: {problem}") from problem


def check_head(name: str | None, task: Task, kind: str | None, options: Mapping[str, Any]) -> None:
    """Refuses what `make_head` would, as far as that can be told before a backbone is loaded.

    Args:
        name: As for `make_head`.
        task: What is asked.
        kind: Of the backbone; None when it is not known yet, and then one kind on which it can work is enough.
        options: Of the head's class.

    Raises:
        IsoglossError: Unknown name or option, or a head that cannot serve the task.
    """
    if name is None and kind is None:
        *others, last = _DEFAULTS
        for other in others:
            with suppress(IsoglossError):
                return check_head(None, task, other, options)
        return check_head(None, task, last, options)
    chosen = name or default_head(task, str(kind))
    head = _head_class(chosen, task, kind)
    if chosen == "text" and kind == "encoder":
        raise IsoglossError(
            "The head 'text' needs a model that writes text, and an encoder does not; use another head."
        )
    _check_options(chosen, head, options)


def _head_class(chosen: str, task: Task, kind: str | None) -> type[Head]:
    if chosen not in HEADS:
        raise IsoglossError(f"There is no head '{chosen}'; use one of {', '.join(HEADS)}.")
    for head in HEADS[chosen]:
        if task.kind in head.kinds:
            return head
    able = [
        other
        for other, classes in HEADS.items()
        if any(task.kind in head.kinds for head in classes) and (other != "text" or kind != "encoder")
    ]
    advice = f"use {' or '.join(able)}" if able else "it trains no head"
    raise IsoglossError(f"The head '{chosen}' cannot serve task {task.name!r} ({task.kind}); {advice}.")


def head_from_json(values: Mapping[str, Any], backbone: Backbone) -> Head:
    """The head that `to_json` described; load its weights with `load_state_dict` when it has some.

    Raises:
        IsoglossError: The description is damaged.
    """
    missing = [key for key in ("head", "task", "options") if key not in values]
    if missing:
        raise IsoglossError(f"A saved head needs head, task and options, but {missing[0]} is missing.")
    return make_head(values["head"], Task.from_dict(values["task"]), backbone, **values["options"])


def _check_options(name: str, head: type[Head], options: Mapping[str, Any]) -> list[str]:
    known = [key for key, item in inspect.signature(head.__init__).parameters.items() if item.kind is item.KEYWORD_ONLY]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}" if near else f"it takes {', '.join(known)}"
            raise IsoglossError(f"The head '{name}' has no option '{key}'; {hint}.")
    wanted = typing.get_type_hints(head.__init__)
    for key, value in options.items():
        if "Literal" in str(wanted[key]):
            continue  # the heads name the choices themselves
        try:
            TypeAdapter(wanted[key]).validate_python(value, strict=True)
        except ValidationError:
            kind = (
                str(getattr(wanted[key], "__name__", wanted[key]))
                if isinstance(wanted[key], type)
                else str(wanted[key])
            )
            kind = kind.replace("collections.abc.", "").replace(" | None", "")
            raise IsoglossError(
                f"The option '{key}' of the head '{name}' is {value!r}, but must be of type {kind}."
            ) from None
    return known

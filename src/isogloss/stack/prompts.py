"""The prompts of a stack: how many vectors there are, what they are for a batch, and whether they fit."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from isogloss.errors import IsoglossError
from isogloss.modules import PromptAction, RetrievalAction
from isogloss.stack import retrieval
from isogloss.stack.assembly import PlacedPrompt
from isogloss.stack.bank import Rows, Slot

if TYPE_CHECKING:
    from isogloss.stack.stack import Stack


def prompt_actions(slots: Sequence[Slot], side: str) -> list[tuple[Slot, PromptAction | RetrievalAction]]:
    """Every prompt of one side, in the stack's order."""
    return [
        (slot, action)
        for slot in slots
        for action in slot.actions
        if isinstance(action, PromptAction | RetrievalAction) and action.side == side
    ]


def prompt_length(stack: "Stack", side: str) -> int:
    """Prompt vectors on a side."""
    lengths: dict[str, list[int]] = {}
    for slot, action in prompt_actions(stack.slots, side):
        copies = 2 if stack.double_language_prompt and slot.name == "language" else 1
        lengths.setdefault(action.placement, []).extend([action.length] * copies)
    fuse = max if stack.prompt_fusion == "average" else sum
    return sum(fuse(found) for found in lengths.values())


def placed_prompts(stack: "Stack", side: str, rows: Rows, batch_size: int) -> tuple[list[PlacedPrompt], list[Tensor]]:
    """The prompts of one side with their vectors for this batch, and the losses [B] that came with choosing them."""
    found: list[PlacedPrompt] = []
    losses: list[Tensor] = []
    for slot, action in prompt_actions(stack.slots, side):
        if isinstance(action, RetrievalAction):
            retrieved = retrieval.retrieve(slot, action, rows)
            found.append(retrieval.placed(stack.backbone, action, retrieved))
            losses += [] if retrieved.loss is None else [retrieved.loss]
            continue
        vectors = action.vectors(rows.weights(slot, action.group, batch_size))
        found.append(PlacedPrompt(vectors, action.placement))
        if stack.double_language_prompt and stack.training and slot.name == "language":
            found.append(found[-1])
    if stack.prompt_fusion == "average":
        found = [
            _average([prompt for prompt in found if prompt.placement == place])
            for place in dict.fromkeys(prompt.placement for prompt in found)
        ]
    return found, losses


def check_prompts(stack: "Stack") -> None:
    """Refuses prompts that leave no room for text, or that cannot be fused.

    Raises:
        IsoglossError: Says which.
    """
    if stack.prompt_fusion not in ("concatenate", "average"):
        raise IsoglossError(f"The prompt fusion '{stack.prompt_fusion}' is unknown; use concatenate or average.")
    budget = stack.text_budget
    if budget is not None and budget < 4:
        raise IsoglossError(
            f"The prompts take {stack.prompt_length()} of the {stack.backbone.max_length} positions of {stack.backbone.name} and "
            "leave no room for text; shorten them."
        )
    if stack.prompt_fusion == "average":
        for side in stack.backbone.sites.sides:
            lengths = {action.length for _, action in prompt_actions(stack.slots, side)}
            if len(lengths) > 1:
                raise IsoglossError(
                    f"Prompts can only be averaged when they are equally long, but they have {sorted(lengths)} vectors."
                )


def _average(prompts: Sequence[PlacedPrompt]) -> PlacedPrompt:
    """S1's `avg`."""
    vectors = [prompt.vectors for prompt in prompts]
    mean = sum(vectors[1:], start=vectors[0]) / len(vectors)
    return PlacedPrompt(mean, prompts[0].placement, prompts[0].positions)

"""Banks and slots: K modules of one shape, gathered per row (design 5.2)."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.errors import IsoglossError
from isogloss.modules import Action, PromptText, TransferModule


class Bank(nn.Module):
    """K modules of one shape; a route says which one a row uses.

    Frozen modules are held as one stacked tensor a weight, made once; trained ones are stacked anew in every forward, so
    that gradients reach the modules themselves and each can be saved by itself.

    Args:
        modules: At least one; same method, tensors and behaviour.
    """

    def __init__(self, modules: Sequence[TransferModule]) -> None:
        super().__init__()
        if not modules:
            raise IsoglossError("A bank needs at least one module.")
        for module in modules[1:]:
            if module.shape_key != modules[0].shape_key:
                raise IsoglossError(
                    f"A bank holds modules of one shape, but '{modules[0].method}:{modules[0].info.label}' and "
                    f"'{module.method}:{module.info.label}' differ; give them to stacks of their own."
                )
        self.members = nn.ModuleList(modules)
        self._stacked: dict[str, dict[str, Tensor]] = {}

    def __len__(self) -> int:
        """K."""
        return len(self.members)

    @property
    def first(self) -> TransferModule:
        """The member whose config and actions speak for all."""
        return self.members[0]  # type: ignore[return-value]

    @property
    def labels(self) -> tuple[str, ...]:
        """What each member stands for, in order."""
        return tuple(cast(TransferModule, member).info.label for member in self.members)

    def stacked(self, group: str) -> dict[str, Tensor]:
        """The group's tensors of all members, [K, ...] each."""
        # Asked of the parameters and not of the stacked tensors: under `no_grad` (validation) those never require gradients,
        # and keeping them would cut trained members off from then on.
        members: Any = self.members
        trained = any(member.is_trained(group) for member in members)
        if not trained and group in self._stacked:
            return self._stacked[group]
        weights = [member.weights(group) for member in members]
        stacked = {name: torch.stack([member[name] for member in weights]) for name in weights[0]}
        if trained:
            self._stacked.clear()
        else:
            self._stacked[group] = stacked
        return stacked

    def forget_stacked(self) -> None:
        """Drops the stacked copies; call it after changing a member's weights in place."""
        self._stacked.clear()


class Slot:
    """One place of a stack: a single module, or a bank with a route.

    Attributes:
        name: What routes call it.
        modules: The members.
    """

    def __init__(self, name: str, content: TransferModule | Bank) -> None:
        self.name = name
        self.bank = content if isinstance(content, Bank) else None
        self.single = content if isinstance(content, TransferModule) else content.first
        self.modules: tuple[TransferModule, ...] = (
            (content,) if isinstance(content, TransferModule) else tuple(content.members)  # type: ignore[arg-type]
        )

    @property
    def actions(self) -> Sequence[Action]:
        """The actions of the slot."""
        return self.single.actions()


class Rows:
    """The routes of one batch: which member of each bank each row uses.

    Args:
        slots: The stack's slots.
        routes: Slot name -> [B]; a slot with one member needs none.
        batch_size: B.

    Raises:
        IsoglossError: A bank has no route, a route names no slot, or an index is out of range.
    """

    def __init__(self, slots: Sequence[Slot], routes: dict[str, Tensor], batch_size: int) -> None:
        names = {slot.name for slot in slots}
        for name in routes:
            if name not in names:
                raise IsoglossError(
                    f"The batch has a route for '{name}', but the stack's slots are {', '.join(sorted(names)) or 'none'}."
                )
        self._index: dict[str, Tensor] = {}
        self._member: dict[str, int] = {}
        # What the texts of the batch offer to prompts that are chosen by them; set by the stack where there are such.
        self.text: PromptText | None = None
        self.told: dict[str, Tensor] = {}
        for slot in slots:
            if slot.bank is None and slot.name in routes:
                self.told[slot.name] = routes[slot.name]
            if slot.bank is None:
                continue
            route = routes.get(slot.name)
            if route is None:
                if len(slot.bank) > 1:
                    raise IsoglossError(
                        f"The slot '{slot.name}' holds {len(slot.bank)} modules, so the batch needs routes['{slot.name}'] with one index a row."
                    )
                self._member[slot.name] = 0
                continue
            if route.shape != (batch_size,):
                raise IsoglossError(
                    f"The route of '{slot.name}' has shape {tuple(route.shape)}, but the batch has {batch_size} rows."
                )
            low, high = (int(bound) for bound in route.aminmax())
            if low < 0 or high >= len(slot.bank):
                raise IsoglossError(
                    f"The route of '{slot.name}' goes from {low} to {high}, but the bank holds modules 0 to {len(slot.bank) - 1}."
                )
            if low == high:
                self._member[slot.name] = low
            else:
                self._index[slot.name] = route
        self._gathered: dict[tuple[str, str, int], dict[str, Tensor]] = {}

    @property
    def is_uniform(self) -> bool:
        """Whether every row uses the same modules."""
        return not self._index

    def combinations(self) -> tuple["Rows", Tensor | None]:
        """The distinct rows (for work that depends on the modules alone), and which of them each row is.

        Returns:
            Routes for the U distinct combinations, and [B] indices into them; None when there is only one.
        """
        if self.is_uniform:
            return self, None
        table = torch.stack(list(self._index.values()), dim=1)
        distinct, which = torch.unique(table, dim=0, return_inverse=True)
        rows = Rows.__new__(Rows)
        rows._member = self._member
        rows._index = {name: distinct[:, column] for column, name in enumerate(self._index)}
        rows._gathered = {}
        return rows, which

    def weights(self, slot: Slot, group: str, batch_size: int) -> dict[str, Tensor]:
        """The tensors a group's action uses: as they are for one module, or [batch_size, ...] gathered per row.

        A batch that generation has expanded (beams) has a multiple of the routed rows; each row then stands for
        `batch_size / B` neighbours.
        """
        key = (slot.name, group, batch_size if slot.name in self._index else 0)
        if key not in self._gathered:
            index = self._index.get(slot.name)
            rows = None if index is None else index.repeat_interleave(batch_size // len(index))
            self._gathered[key] = self._gather(slot, group, rows)
        return self._gathered[key]

    def weights_of(self, slot: Slot, group: str, rows: Tensor) -> dict[str, Tensor]:
        """The same for single states: `rows` [N] says which row of the batch each belongs to."""
        index = self._index.get(slot.name)
        if index is None:
            return self.weights(slot, group, 1)
        expanded = index.repeat_interleave(max(1, (int(rows.max()) + 1) // len(index))) if len(rows) else index
        return self._gather(slot, group, expanded.index_select(0, rows))

    def _gather(self, slot: Slot, group: str, index: Tensor | None) -> dict[str, Tensor]:
        if index is None:
            return slot.modules[self._member.get(slot.name, 0)].weights(group)
        assert slot.bank is not None
        return {name: tensor.index_select(0, index) for name, tensor in slot.bank.stacked(group).items()}


def name_slots(modules: Sequence[TransferModule | Bank]) -> list[Slot]:
    """Slots named by role; a second module of a role is `task_2` and so on."""
    slots: list[Slot] = []
    taken: dict[str, int] = {}
    for content in modules:
        role = (content.first if isinstance(content, Bank) else content).info.role
        taken[role] = taken.get(role, 0) + 1
        slots.append(Slot(role if taken[role] == 1 else f"{role}_{taken[role]}", content))
    return slots


def refuse_foreign(module: TransferModule, backbone: Backbone) -> None:
    """Raises when a module was made for another backbone."""
    if module.info.fingerprint and module.info.fingerprint != backbone.fingerprint:
        raise IsoglossError(
            f"The module '{module.method}:{module.info.label}' was made for {module.info.backbone} (fingerprint {module.info.fingerprint}), "
            f"but the backbone is {backbone.name} (fingerprint {backbone.fingerprint}); load the backbone that it was made for."
        )

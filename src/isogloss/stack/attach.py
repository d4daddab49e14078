"""Attaching a stack's actions to a backbone, and taking them off again: one context manager, ordinary hooks.

Design 5.1. For each adapter A in order, at the end of a block: pre-norm `s <- s + A(s)` on the block's output;
post-norm `s <- s + A(LN(s))` on the input of the block's last norm.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.backbones.products import fast_linears
from isogloss.backbones.sites import BlockSite
from isogloss.errors import IsoglossError
from isogloss.modules import BlockAction, EmbeddingAction, LinearAction
from isogloss.stack.bank import Rows, Slot

Bound = tuple[Slot, Any]


class Attachment:
    """The actions of a stack, sorted by site once, attached for each forward.

    Args:
        backbone: The backbone.
        slots: The stack's slots in order.

    Raises:
        IsoglossError: A module wants a site that the backbone's family does not name.
    """

    def __init__(self, backbone: Backbone, slots: Sequence[Slot]) -> None:
        self._backbone = backbone
        self._stream: dict[tuple[str, int], list[Bound]] = defaultdict(list)
        self._sublayer: dict[tuple[str, int, str], list[Bound]] = defaultdict(list)
        self._linear: dict[tuple[str, int, str], list[Bound]] = defaultdict(list)
        self.embedding: list[Bound] = []
        head = backbone.model.get_output_embeddings()
        self._products = [part for part in backbone.model.modules() if type(part) is nn.Linear and part is not head]
        for slot in slots:
            for action in slot.actions:
                if isinstance(action, BlockAction):
                    self._add_block_action(slot, action)
                elif isinstance(action, LinearAction):
                    self._linear[(action.side, action.block, action.role)].append((slot, action))
                elif isinstance(action, EmbeddingAction):
                    self.embedding.append((slot, action))

    def _add_block_action(self, slot: Slot, action: BlockAction) -> None:
        site = self._site(action.side, action.block)
        if action.point == "stream":
            self._stream[(action.side, action.block)].append((slot, action))
            return
        named = {"attention": site.attention_output, "ffn": site.ffn_output, "parallel": site.ffn_output}[action.point]
        if named is None or (action.point == "parallel" and site.ffn_input is None):
            raise IsoglossError(
                f"The adapter acts at the {action.point} sublayer, but the family '{self._backbone.family.name}' names no such site; "
                "use variant=seq_bn, which acts at the end of a block."
            )
        self._sublayer[(action.side, action.block, action.point)].append((slot, action))

    def _site(self, side: str, block: int) -> BlockSite:
        return self._backbone.sites.blocks[side][block]

    @contextmanager
    def attached(self, rows: Rows) -> Iterator[None]:
        """Attaches everything for the forwards inside the block, with the routes of one batch."""
        with ExitStack() as hooks:
            hooks.enter_context(fast_linears(self._products))
            for (side, block), bound in self._stream.items():
                site = self._site(side, block)
                if site.last_norm is not None:
                    hooks.enter_context(
                        _removing(site.last_norm.register_forward_pre_hook(_post_norm_hook(bound, rows)))
                    )
                else:
                    hooks.enter_context(_removing(site.block.register_forward_hook(_output_hook(bound, rows))))
            for (side, block, point), bound in self._sublayer.items():
                self._attach_sublayer(hooks, self._site(side, block), point, bound, rows)
            for (side, block, role), bound in self._linear.items():
                layer = self._site(side, block).linears[role]
                hooks.enter_context(_removing(layer.register_forward_hook(_linear_hook(bound, rows))))
            if self.embedding and self._backbone.sites.embedding_output is not None:
                handle = self._backbone.sites.embedding_output.register_forward_hook(
                    lambda module, inputs, output: self.embed(output, rows)
                )
                hooks.enter_context(_removing(handle))
            yield

    def _attach_sublayer(self, hooks: ExitStack, site: BlockSite, point: str, bound: list[Bound], rows: Rows) -> None:
        if point == "parallel":
            assert site.ffn_input is not None and site.ffn_output is not None
            read: list[Tensor] = []
            hooks.enter_context(
                _removing(site.ffn_input.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0])))
            )
            hooks.enter_context(_removing(site.ffn_output.register_forward_hook(_parallel_hook(bound, rows, read))))
            return
        module = site.attention_output if point == "attention" else site.ffn_output
        assert module is not None
        hooks.enter_context(_removing(module.register_forward_hook(_output_hook(bound, rows))))

    def embed(self, states: Tensor, rows: Rows) -> Tensor:
        """The forward maps at the embedding site, first module first."""
        for slot, action in self.embedding:
            states = action.forward(states, rows.weights(slot, action.group, states.shape[0]))
        return states

    @contextmanager
    def embedding_words(self, rows: Rows) -> Iterator[None]:
        """Within it, tokens that the model embeds itself (generated ones) go through the forward maps as text does."""
        if not self.embedding or self._backbone.sites.embedding_output is not None:
            yield
            return
        words = self._backbone.model.get_input_embeddings()
        hook = words.register_forward_hook(lambda module, inputs, output: self.embed(output, rows))
        with _removing(hook):
            yield

    @property
    def inverts(self) -> bool:
        """Whether anything has to be inverted before the LM head."""
        return any(action.inverse is not None for _, action in self.embedding)

    def before_head(self, states: Tensor, rows: Rows, row_of: Tensor) -> Tensor:
        """The inverses, last module first, on head inputs [N, d] that belong to rows [N] of the batch."""
        states = states.unsqueeze(1)
        for slot, action in reversed(self.embedding):
            if action.inverse is not None:
                states = action.inverse(states, rows.weights_of(slot, action.group, row_of))
        return states.squeeze(1)


@contextmanager
def _removing(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


def _output_hook(bound: list[Bound], rows: Rows) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        for slot, action in bound:
            states = states + action.apply(states, rows.weights(slot, action.group, states.shape[0]))
        return (states, *output[1:]) if isinstance(output, tuple) else states

    return hook


def _post_norm_hook(bound: list[Bound], rows: Rows) -> Any:
    def hook(norm: nn.Module, inputs: Any) -> Any:
        states = inputs[0]
        for slot, action in bound:
            # `forward` and not a call: the norm must not run this hook again.
            states = states + action.apply(norm.forward(states), rows.weights(slot, action.group, states.shape[0]))
        return (states, *inputs[1:])

    return hook


def _parallel_hook(bound: list[Bound], rows: Rows, read: list[Tensor]) -> Any:
    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        source = read.pop()
        # As in `adapters`: each parallel adapter reads the sublayer's input, and the last one takes the others' place.
        slot, action = bound[-1]
        output = output + action.apply(source, rows.weights(slot, action.group, source.shape[0]))
        return output

    return hook


def _linear_hook(bound: list[Bound], rows: Rows) -> Any:
    def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        for slot, action in bound:
            output = output + action.apply(inputs[0], rows.weights(slot, action.group, inputs[0].shape[0]))
        return output

    return hook

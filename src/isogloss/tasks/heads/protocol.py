"""What every task head offers: examples to rows, rows to batches, a loss, predictions, answers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

from torch import Tensor

from isogloss.stack import Stack, TextBatch
from isogloss.tasks.examples import Example

Routes = Mapping[str, Sequence[int] | Tensor]


@dataclass(frozen=True)
class Encoded:
    """One tokenised row. One example may give several (windows of a long context).

    Attributes:
        example: Index into the examples that `encode` was given.
        input_ids: Token ids of the text side, special tokens included.
        token_type_ids: Segments, for models that were trained with them.
        target: What a decoder should write after it, end token included; empty without a label.
        labels: What the head learns: one class index, one tag a labelled word, or start and end of an answer.
        positions: Columns that the labels belong to (labelled sub-tokens, context tokens, masks).
        words: For tagging, the word that each position stands for.
        offsets: For QA, begin and end in the context of the token at each position.
        alternatives: Rows scored together for one answer (choices, mask variants); then `input_ids` is empty.
        language: Code of the example's language.
        lost: Tokens that did not fit.
    """

    example: int
    input_ids: list[int]
    token_type_ids: list[int] | None = None
    target: tuple[int, ...] = ()
    labels: tuple[int, ...] = ()
    positions: tuple[int, ...] = ()
    words: tuple[int, ...] = ()
    offsets: tuple[tuple[int, int], ...] = ()
    alternatives: tuple["Encoded", ...] = ()
    language: str = ""
    lost: int = 0

    @property
    def length(self) -> int:
        """Tokens that it takes in a batch, for length buckets."""
        return len(self.input_ids) + len(self.target) + sum(row.length for row in self.alternatives)


@dataclass(frozen=True)
class TaskBatch:
    """Rows padded to the longest of them.

    Attributes:
        text: What the stack runs to predict; with alternatives several rows for one of `rows`.
        rows: The rows, in order.
        labels: What the head learns, flat; None when a row has no label.
        positions: [N] columns of `text` flattened (row * width + column) that the labels belong to.
        forced: What the stack runs for the loss where that is another text.
        targets: [B, S] tokens to write, padded with -1.
    """

    text: TextBatch
    rows: tuple[Encoded, ...]
    labels: Tensor | None = None
    positions: Tensor | None = None
    forced: TextBatch | None = None
    targets: Tensor | None = None

    def to(self, device: Any) -> "TaskBatch":
        """The same batch on a device."""
        return replace(
            self,
            text=self.text.to(device),
            labels=None if self.labels is None else self.labels.to(device),
            positions=None if self.positions is None else self.positions.to(device),
            forced=None if self.forced is None else self.forced.to(device),
            targets=None if self.targets is None else self.targets.to(device),
        )

    @property
    def tokens(self) -> int:
        """Real tokens, targets included."""
        return self.text.tokens + (0 if self.targets is None else int((self.targets >= 0).sum()))


@dataclass(frozen=True)
class Prediction:
    """What a head says of one row, with numbers; `decode` turns it into an answer.

    Attributes:
        scores: Log-probability of each label or alternative, in class order.
        tags: Tag index at each labelled position.
        spans: For QA the best answers: (score, begin, end) in characters of the context, best first.
        text: What was generated.
    """

    scores: tuple[float, ...] = ()
    tags: tuple[int, ...] = ()
    spans: tuple[tuple[float, int, int], ...] = ()
    text: str = ""


@dataclass(frozen=True)
class Truncation:
    """How much text did not fit.

    Attributes:
        rows: Rows in all.
        cut: Rows that lost something.
        tokens: Tokens lost in all.
    """

    rows: int
    cut: int
    tokens: int


def truncation(rows: Sequence[Encoded]) -> Truncation:
    """Counts what `encode` had to leave out."""
    lost = [row.lost + sum(inner.lost for inner in row.alternatives) for row in rows]
    return Truncation(len(rows), sum(item > 0 for item in lost), sum(lost))


class TaskHead(Protocol):
    """How a task is asked of a backbone, scored, and read back.

    Every head is also an `nn.Module`; `verbaliser` and `text` have no weights.
    """

    name: ClassVar[str]

    def encode(self, examples: Sequence[Example], *, budget: int | None) -> list[Encoded]:
        """Tokenised rows of at most `budget` tokens of text (`Stack.text_budget`); None is no limit."""
        ...

    def collate(self, rows: Sequence[Encoded], routes: Routes | None = None) -> TaskBatch:
        """Pads to the longest row; `routes` holds one index a row of `rows` for each bank."""
        ...

    def loss(self, stack: Stack, batch: TaskBatch) -> tuple[Tensor, int]:
        """Sum of losses and how many they are."""
        ...

    def predict(self, stack: Stack, batch: TaskBatch) -> list[Prediction]:
        """One prediction a row of `batch.rows`."""
        ...

    def decode(
        self, examples: Sequence[Example], rows: Sequence[Encoded], predictions: Sequence[Prediction]
    ) -> list[Any]:
        """One label, tag sequence or answer an example, in their order; predictions go with `rows`."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Everything but weights that is needed to build it again (`registry.head_from_json`)."""
        ...

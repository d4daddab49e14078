"""Episodes: support batches of one language, a query batch of another, so that transfer is what is learned (papers.md 4.1)."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from isogloss.errors import IsoglossError
from isogloss.languages import resolve
from isogloss.tasks import Example
from isogloss.tasks.heads import Encoded
from isogloss.training.buckets import TokenBudgetBatches

Roles = Literal["fixed", "mixed"]


@dataclass(frozen=True)
class Episode:
    """Rows of one outer step.

    Attributes:
        support: One batch an inner step.
        query: What the outer loss is computed on.
        support_language: Code.
        query_language: Code.
    """

    support: tuple[list[Encoded], ...]
    query: list[Encoded]
    support_language: str
    query_language: str


class RowStream:
    """Batches of one language for ever, every row once a pass; any batch can be asked for by its number.

    Args:
        rows: Rows of the language.
        size: Rows of a batch.
        seed: Of the order.
        bucketed: Batches of similar length (less padding); False draws them at random.
    """

    def __init__(self, rows: Sequence[Encoded], size: int, seed: Sequence[int], *, bucketed: bool = True) -> None:
        self._rows, self._seed, self._bucketed = rows, tuple(seed), bucketed
        size = min(size, len(rows))
        # Without the last, shorter batch of a pass, so that all batches are of one size.
        self._size, self._per_pass = size, max(1, len(rows) // size)
        self._pass, self._batches = -1, [np.zeros(0, dtype=np.int64)]

    def batch(self, number: int) -> list[Encoded]:
        """Batch `number`, counted from 0 over all passes, its rows in random order."""
        turn, place = divmod(number, self._per_pass)
        if turn != self._pass:
            self._pass, self._batches = turn, self._cut(turn)
        chosen = np.random.default_rng([*self._seed, turn, place]).permutation(self._batches[place])
        return [self._rows[index] for index in chosen]

    def _cut(self, turn: int) -> list[Any]:
        random = np.random.default_rng([*self._seed, turn])
        if not self._bucketed:
            order = random.permutation(len(self._rows))
            return [order[start : start + self._size] for start in range(0, len(order), self._size)]
        seed = int(random.integers(2**31))
        lengths = [row.length for row in self._rows]
        batches = TokenBudgetBatches(lengths, batch_size=self._size, seed=seed).epoch_batches(0)
        full = [batch for batch in batches if len(batch) == self._size]
        return full or batches


class Episodes:
    """A `BatchSource` of episodes for `fit`: support of one language, query of another.

    Args:
        support: Rows by language that may support.
        query: Rows by language that may query; the same languages, others, or some of both (`share_out`).
        steps: Support batches of an episode.
        support_size: Rows of a support batch.
        query_size: Rows of a query batch.
        seed: Of everything drawn.
        bucketed: See `RowStream`.
    """

    def __init__(
        self,
        support: Mapping[str, Sequence[Encoded]],
        query: Mapping[str, Sequence[Encoded]],
        *,
        steps: int,
        support_size: int,
        query_size: int,
        seed: int,
        bucketed: bool = True,
    ) -> None:
        self._steps, self._seed = steps, seed
        self._supports, self._queries = sorted(support), sorted(query)
        self._streams = {
            (use, code): RowStream(rows[code], size, (seed, number, kind), bucketed=bucketed)
            for kind, (use, rows, size) in enumerate((("support", support, support_size), ("query", query, query_size)))
            for number, code in enumerate(sorted(rows))
        }
        self._number = 0
        self._drawn = {f"{use}/{code}": 0 for use, code in self._streams}

    @property
    def epoch(self) -> int:
        """Always 0: episodes have no passes."""
        return 0

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[Episode]:
        """The next `size` episodes, those of this process."""
        drawn = [self._draw() for _ in range(size)]
        return iter(drawn[rank::world])

    def _draw(self) -> Episode:
        random = np.random.default_rng([self._seed, 7, self._number])
        self._number += 1
        support_language = str(random.choice(self._supports))
        query_language = str(random.choice([code for code in self._queries if code != support_language]))
        support = tuple(self._take("support", support_language) for _ in range(self._steps))
        return Episode(support, self._take("query", query_language), support_language, query_language)

    def _take(self, use: str, code: str) -> list[Encoded]:
        number = self._drawn[f"{use}/{code}"]
        self._drawn[f"{use}/{code}"] = number + 1
        return self._streams[(use, code)].batch(number)

    def steps_in(self, epochs: float, size: int) -> int:
        """Episodes have no epochs.

        Raises:
            IsoglossError: Always.
        """
        raise IsoglossError("Meta-training is counted in outer steps, not in epochs; give --outer-steps.")

    def state_dict(self) -> dict[str, Any]:
        """Place in the stream."""
        return {"number": self._number, "drawn": dict(self._drawn), "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a place in the stream."""
        self._number = int(state["number"])
        self._drawn = {name: int(state["drawn"][name]) for name in self._drawn}


class LanguageDraws:
    """A `BatchSource` of draws: for every auxiliary language the batches of one outer step of a meta-initialisation.

    As X-MAML's code does it, one batch a language is drawn and cut: support first, query last.

    Args:
        rows: Rows by language.
        batches: Batches a language.
        size: Rows of each.
        seed: Of the order.

    Raises:
        IsoglossError: A language has too few rows.
    """

    def __init__(self, rows: Mapping[str, Sequence[Encoded]], *, batches: int, size: int, seed: int) -> None:
        for code, found in rows.items():
            if len(found) < batches * size:
                raise IsoglossError(
                    f"--auxiliary: {_named(code)} has {len(found)} labelled rows, but one outer step takes {batches} batches of "
                    f"{size}; give a smaller --batch-size or fewer --inner-steps."
                )
        self._batches, self._size, self._seed, self._number = batches, size, seed, 0
        self._streams = {
            code: RowStream(found, batches * size, (seed, number, 2), bucketed=False)
            for number, (code, found) in enumerate(sorted(rows.items()))
        }

    @property
    def epoch(self) -> int:
        """Always 0."""
        return 0

    def window(self, size: int, rank: int = 0, world: int = 1) -> Iterator[dict[str, list[list[Encoded]]]]:
        """The next `size` draws, those of this process."""
        numbers = range(self._number, self._number + size)
        self._number += size
        return (self._draw(number) for number in numbers[rank::world])

    def _draw(self, number: int) -> dict[str, list[list[Encoded]]]:
        found = {}
        for code, stream in self._streams.items():
            rows = stream.batch(number)
            found[code] = [rows[part * self._size : (part + 1) * self._size] for part in range(self._batches)]
        return found

    def steps_in(self, epochs: float, size: int) -> int:
        """Draws have no epochs.

        Raises:
            IsoglossError: Always.
        """
        raise IsoglossError("Meta-training is counted in outer steps, not in epochs; give --outer-steps.")

    def state_dict(self) -> dict[str, Any]:
        """Place in the stream."""
        return {"number": self._number, "seed": self._seed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes to a place in the stream."""
        self._number = int(state["number"])


def check_languages(source: Sequence[str], auxiliary: Sequence[str], targets: Sequence[str] = ()) -> None:
    """Refuses languages that would make a simulated transfer no transfer.

    Args:
        source: Codes.
        auxiliary: Codes.
        targets: Codes of languages that will be scored as zero-shot.

    Raises:
        IsoglossError: No auxiliary, one that is a source, or one that is a target.
    """
    if not auxiliary:
        raise IsoglossError(
            "--auxiliary is missing: meta-training needs at least one labelled language beside the source."
        )
    both = [code for code in auxiliary if code in source]
    if both:
        raise IsoglossError(
            f"--auxiliary: {_named(both[0])} is also the source; an auxiliary must be another language, as transfer is "
            "what is simulated."
        )
    seen = [code for code in auxiliary if code in targets]
    if seen:
        raise IsoglossError(
            f"--auxiliary: {_named(seen[0])} is also a target of the evaluation, whose score would not be zero-shot; take "
            "it out of --auxiliary or out of --targets."
        )


def _named(code: str) -> str:
    try:
        return f"{resolve(code).name} ({code})"
    except IsoglossError:
        return code


def by_language(
    examples: Sequence[Example], encode: Callable[[Sequence[Example]], list[Encoded]]
) -> dict[str, list[Encoded]]:
    """Rows of each language, in the order of the examples."""
    found: dict[str, list[Example]] = {}
    for example in examples:
        found.setdefault(example.language, []).append(example)
    return {code: encode(part) for code, part in found.items()}


def share_out(
    source: Sequence[Example], auxiliary: Sequence[Example], *, roles: Roles, disjoint: bool
) -> tuple[list[Example], list[Example]]:
    """Which rows may support and which may query.

    Args:
        source: Rows of the source languages.
        auxiliary: Rows of the auxiliary languages.
        roles: `fixed` supports from the sources and queries the auxiliaries; `mixed` draws both from all of them.
        disjoint: Keep rows that hold one item out of both.

    Raises:
        IsoglossError: A language has too few rows to be cut.
    """
    if roles == "mixed":
        everything = [*source, *auxiliary]
        return _halves_of_each(everything) if disjoint else (everything, everything)
    if not disjoint:
        return list(source), list(auxiliary)
    halves = disjoint_halves(source, auxiliary)
    for option, use, rows, left in zip(
        ("--source", "--auxiliary"), ("support", "query"), (source, auxiliary), halves, strict=True
    ):
        there = {example.language for example in left}
        for code in dict.fromkeys(example.language for example in rows):
            if code not in there:
                count = sum(example.language == code for example in rows)
                raise IsoglossError(
                    f"{option}: {_named(code)} has {count} labelled rows, and none is left as a {use} when translations are kept "
                    "apart; give more rows, or --shared-items."
                )
    return halves


def disjoint_halves(source: Sequence[Example], auxiliary: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Parallel data split by item, so that no query is the translation of a support row.

    A test item's translation was not in the training data either; without this a simulated transfer could be solved by
    remembering items. Data whose languages share no items come back whole.

    Args:
        source: Support rows.
        auxiliary: Query rows.

    Returns:
        Support rows and query rows that share no item: two thirds of the shared items go to the support.
    """
    shared = {example.id for example in source} & {example.id for example in auxiliary}
    queries = _third(shared)
    return (
        [example for example in source if example.id not in queries],
        [example for example in auxiliary if example.id not in shared or example.id in queries],
    )


def _halves_of_each(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """Support rows and query rows of every language, two thirds and one third, that share no item over all languages.

    Items of one language alone are cut too: a trajectory goes on over many episodes, so a row that has supported in one
    of them would be remembered when it queries in another.
    """
    spoken: dict[str, set[str]] = {}
    for example in examples:
        spoken.setdefault(example.id, set()).add(example.language)
    pools: dict[str, set[str]] = {}
    for item, codes in spoken.items():
        pools.setdefault("" if len(codes) > 1 else min(codes), set()).add(item)
    queries = set[str]().union(*map(_third, pools.values()))
    halves = (
        [example for example in examples if example.id not in queries],
        [example for example in examples if example.id in queries],
    )
    for code in dict.fromkeys(example.language for example in examples):
        if not all(any(example.language == code for example in half) for half in halves):
            count = sum(example.language == code for example in examples)
            raise IsoglossError(
                f"--roles mixed: {_named(code)} has {count} labelled rows, too few to keep its support rows and its query "
                "rows apart; give more rows, leave the language out, or use --roles fixed."
            )
    return halves


def _third(items: Collection[str]) -> set[str]:
    """A third of the items, drawn at random but always the same."""
    ordered = sorted(items)
    return {ordered[place] for place in np.random.default_rng(0).permutation(len(ordered))[: len(ordered) // 3]}

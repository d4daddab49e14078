"""Guards that no item is both trained on and evaluated on, in whatever language.

In a parallel data set (SIB-200, XNLI, XQuAD, our own) the same sentence stands in every language under the
same id. Training on it in one language and testing on its translation is a leak that raises every transfer
score.
"""

from collections.abc import Iterable, Sequence

from isogloss.errors import IsoglossError
from isogloss.tasks.examples import Example


def check_leaks(train: Iterable[Example], test: Iterable[Example]) -> None:
    """Refuse training and test data that share an item.

    Ids are compared; ``reading`` makes them so that translations share one, and that rows which are merely
    numbered alike in different splits do not.

    Raises:
        IsoglossError: An id is on both sides; says how many are, and names one with its languages.
    """
    trained = {example.id: example.language for example in train}
    shared = [example for example in test if example.id in trained]
    if shared:
        first = shared[0]
        items = len({example.id for example in shared})
        raise IsoglossError(
            f"{items} items are in the training data and in the test data, among them {first.id} "
            f"(trained on in {trained[first.id]}, tested in {first.language}); use different splits."
        )


def duplicate_contents(train: Iterable[Example], test: Iterable[Example]) -> list[str]:
    """Ids of training examples whose whole content stands in the test data too, under whatever id.

    Several releases have such rows (AfriSenti: 926 in Nigerian Pidgin; MasakhaNER, IL-NER): leave them out of
    the training data before scores are reported.
    """
    tested = {example.content() for example in test}
    return [example.id for example in train if example.content() in tested]


def without_duplicates(train: Sequence[Example], test: Iterable[Example]) -> list[Example]:
    """The training examples whose content the test data do not have."""
    tested = {example.content() for example in test}
    return [example for example in train if example.content() not in tested]


def shared_items(train: Iterable[Example], test: Iterable[Example], *, same_data: bool) -> list[Example]:
    """The test examples that stand in the training data too, by what they say or by which item they are.

    Args:
        train: Of any languages.
        test: Of any languages.
        same_data: Both come from one data set, so that equal ids mean one item and its translations. Rows of one
            language that share an id but differ in content show that ids only count rows; these are not taken.
    """
    contents: set[str] = set()
    spoken: dict[tuple[str, str], str] = {}
    ids: set[str] = set()
    for example in train:
        content = example.content()
        contents.add(content)
        spoken[example.language, example.id] = content
        ids.add(example.id)
    found = []
    for example in test:
        content = example.content()
        same_item = same_data and example.id in ids
        other_row = spoken.get((example.language, example.id), content) != content
        if content in contents or (same_item and not other_row):
            found.append(example)
    return found

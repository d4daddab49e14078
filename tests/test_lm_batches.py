"""Segments of a contrast run in groups of similar length: the same vectors, gradients and module losses as in one batch."""

from collections.abc import Callable

import pytest
import torch

from isogloss.backbones import Backbone
from isogloss.corpora import ContrastHalf
from isogloss.stack import Stack
from isogloss.training import lm_batches
from isogloss.training.lm_batches import segment_vectors, text_batch
from tests._stack_tools import make, pad, texts


@pytest.mark.parametrize("name", ["xlmr", "xglm", "mt5"])
@pytest.mark.parametrize(
    "spec", ["pool:2x3,selection=oracle,languages=eng_Latn+deu_Latn", "pool:4x2,selection=top-hard,top=2", "prompt:3"]
)
def test_groups_change_nothing(
    tiny: Callable[[str], Backbone], monkeypatch: pytest.MonkeyPatch, name: str, spec: str
) -> None:
    backbone = tiny(name)
    rows = texts(11, [3, 17, 6, 9], seed=4)
    half = ContrastHalf(*pad(rows, width=20))
    languages = ["eng_Latn" if number % 3 else "deu_Latn" for number in range(len(rows))]
    vectors, gradients, losses, widths = [], [], [], []
    for together in (4, 32):
        monkeypatch.setattr(lm_batches, "_ROWS_TOGETHER", together)
        module = make(backbone, spec).train()
        stack = Stack(backbone, [module])
        run = stack.run
        seen: list[int] = []
        monkeypatch.setattr(stack, "run", lambda batch, run=run, seen=seen: (seen.append(batch.input_ids.shape[1]), run(batch))[1])  # fmt: skip
        found = segment_vectors(stack, half, languages)
        (found**2).sum().backward()
        vectors.append(found.detach())
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
        losses.append(stack.take_module_loss())
        widths.append(seen)
    assert widths == [[6, 9, 17], [17]]
    torch.testing.assert_close(vectors[0], vectors[1], rtol=1e-4, atol=1e-5)
    assert gradients[0]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
    assert (losses[0] is None) == (losses[1] is None)
    if losses[0] is not None:
        torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)
    # Order and padding are those of the half.
    plain = Stack(backbone, [make(backbone, spec)])
    whole = plain.run(text_batch(plain, half.input_ids, half.attention_mask, languages)).pooled_mean()
    torch.testing.assert_close(vectors[0], whole, rtol=1e-4, atol=1e-5)

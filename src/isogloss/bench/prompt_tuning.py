"""Training a soft prompt on a frozen decoder: isogloss, `peft`, and the way of the S2 code, on the same batches.

The model has the shape of XGLM-564M and random weights. The task is classification by a label word: the state in front of
EOS predicts one token, the loss is a cross-entropy over the whole vocabulary, and AdamW takes a step on the prompt.

peft    `peft` prompt tuning, prompt in front, dynamic padding; the model computes logits at every position.
s2      Prompt between text and EOS with its MLP, as in arXiv 2402.03782: everything padded to 128, logits at every
        position. Written from the paper's description.
ours    `Stack` with a prompt, in front (`before`) or between text and EOS with the MLP (`after`).

Before anything is timed, the losses of ours and of the other side are compared in evaluation mode on one batch.
"""

import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.bench.result import Options, Result
from isogloss.bench.shapes import as_backbone, padded, sentences, xglm
from isogloss.bench.timing import Side, claims, interleaved, result_of, timed
from isogloss.errors import IsoglossError
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch

PROMPT = 10
FIXED_LENGTH = 128
HIDDEN = 200
LABELS = 7
NO_PEFT = "peft: not compared; it comes with pip install 'isogloss[peft]'."
Rows = list[list[int]]
Loss = Callable[[Rows, Tensor], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_BATCH = 8


class Trained:
    """A loss and an optimiser on what it trains."""

    def __init__(self, loss: Loss, parts: list[nn.Module], train: Callable[[bool], object]) -> None:
        self.loss, self.train = loss, train
        self.parameters = [p for part in parts for p in part.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(self.parameters, lr=5e-3)

    def step(self, rows: Rows, labels: Tensor) -> float:
        """One optimiser step; returns the loss before it."""
        self.train(True)
        loss = self.loss(rows, labels)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return float(loss.detach())

    def value(self, rows: Rows, labels: Tensor) -> float:
        """The loss without dropout, without a step."""
        self.train(False)
        return float(self.loss(rows, labels).detach())


def ours(backbone: Backbone, placement: str) -> tuple[Trained, Any]:
    """isogloss: a prompt in front, or S2's prompt with its MLP between text and EOS."""
    network = f",reparameterisation=mlp,hidden={HIDDEN}" if placement == "after" else ""
    module = create_module(parse_module(f"prompt:{PROMPT},init=uniform,placement={placement}{network}"), backbone)
    stack = Stack(backbone, [module])

    def loss(rows: Rows, labels: Tensor) -> Tensor:
        output = stack.run(TextBatch(*padded(rows)))
        return stack.lm_loss(output.lm_last, labels) / len(rows)

    return Trained(loss, [module], stack.train), module


def has_peft() -> bool:
    """Whether `peft` is installed."""
    return importlib.util.find_spec("peft") is not None


def peft(model: Any, vectors: Tensor) -> Trained:
    """`peft`: the label word stands at the place of EOS in the labels, which the model's shift moves to the state before it."""
    from peft import PromptTuningConfig, TaskType, get_peft_model

    shape = model.config
    config = PromptTuningConfig(
        task_type=TaskType.CAUSAL_LM,
        num_virtual_tokens=PROMPT,
        # `peft` does not find these in an XGLM configuration.
        num_attention_heads=shape.attention_heads,
        num_layers=shape.num_layers,
        token_dim=shape.d_model,
    )
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        wrapped.prompt_encoder["default"].embedding.weight.copy_(vectors)

    def loss(rows: Rows, labels: Tensor) -> Tensor:
        ids, mask = padded(rows)
        wanted = torch.full_like(ids, -100)
        wanted[torch.arange(len(rows)), mask.sum(1) - 1] = labels
        return wrapped(input_ids=ids, attention_mask=mask, labels=wanted).loss  # type: ignore[no-any-return]

    return Trained(loss, [wrapped.prompt_encoder], wrapped.train)


class PromptAfterText(nn.Module):
    """S2's trained part: vectors W and LayerNorm(Linear(ReLU(Linear(W)))) above them."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        vectors = module.weight_tensors()["prompt.vectors"].detach()
        width = vectors.shape[1]
        self.vectors = nn.Parameter(vectors.clone())
        self.network = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, width), nn.LayerNorm(width))
        own = list(self.network.state_dict())
        self.network.load_state_dict(dict(zip(own, module.network.state_dict().values(), strict=True)))
        self.network[3].requires_grad_(False)

    def forward(self) -> Tensor:
        """[L, d]."""
        return self.network(self.vectors)  # type: ignore[no-any-return]


def s2(model: Any, module: Any) -> Trained:
    """Text, prompt, EOS, padding to 128; the model's own logits and loss."""
    prompt = PromptAfterText(module)

    def loss(rows: Rows, labels: Tensor) -> Tensor:
        eos, holder = rows[0][-1], [3] * PROMPT
        cut = FIXED_LENGTH - PROMPT - 1
        ids, mask = padded([[*row[:-1][:cut], *holder, eos] for row in rows], FIXED_LENGTH)
        ends = mask.sum(1) - 1
        embeddings = model.get_input_embeddings()(ids)
        places = (ends - PROMPT).unsqueeze(1) + torch.arange(PROMPT)
        index = places.unsqueeze(-1).expand(-1, -1, embeddings.shape[-1])
        vectors = prompt().to(embeddings.dtype).expand(len(rows), -1, -1)
        embeddings = embeddings.scatter(1, index, vectors)
        wanted = torch.full_like(ids, -100)
        wanted[torch.arange(len(rows)), ends] = labels
        return model(inputs_embeds=embeddings, attention_mask=mask, labels=wanted).loss  # type: ignore[no-any-return]

    def train(on: bool) -> None:
        model.train(on)

    return Trained(loss, [prompt], train)


def all_sides(model: Any) -> dict[str, Trained]:
    """The four sides on one model; three without `peft`."""
    backbone = as_backbone(model)
    before, front = ours(backbone, "before")
    after, behind = ours(backbone, "after")
    sides = {"ours before": before, "ours after": after}
    if has_peft():
        sides["peft"] = peft(model, front.weight_tensors()["prompt.vectors"].detach())
    return sides | {"s2": s2(model, behind)}


def batches(count: int, size: int, vocabulary: int, seed: int) -> list[tuple[Rows, Tensor]]:
    """Texts with their label words."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            sentences(size, generator, vocabulary),
            torch.randint(10, 10 + LABELS, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def check_losses(sides: dict[str, Trained], batch: tuple[Rows, Tensor], tolerance: float) -> dict[str, float]:
    """The same prompt must give the same loss on both sides."""
    values = {name: side.value(*batch) for name, side in sides.items()}
    for mine, other in (("ours before", "peft"), ("ours after", "s2")):
        if other in values and abs(values[mine] - values[other]) > tolerance * abs(values[other]):
            raise IsoglossError(f"The losses differ, so nothing is compared: {values}")
    return values


def measure(options: Options) -> Result:
    """Times all sides in each precision."""
    model = xglm(quick=options.quick, seed=options.seed)
    drawn = batches(options.rounds, _BATCH, model.config.vocab_size, options.seed)
    sides: dict[str, Trained] = {}
    losses = {}
    for precision in options.precisions:
        # Each precision has weights of its own, so that all sides can be timed in turn.
        own = model if precision == "fp32" else _half(model, options)
        built = all_sides(own)
        losses[precision] = check_losses(built, drawn[0], 1e-3 if precision == "fp32" else 0.02)
        sides |= {f"{name} {precision}": side for name, side in built.items()}

    def step_of(side: Trained) -> Side:
        return timed(lambda number: side.step(*drawn[number]))

    series = interleaved({name: step_of(side) for name, side in sides.items()}, options)
    mean = sum(len(row) for rows, _ in drawn for row in rows) / sum(len(rows) for rows, _ in drawn)
    title = f"Soft prompt of {PROMPT}, one training step, batch {_BATCH}, {mean:.1f} tokens a sentence"
    found = claims(series, _wanted(options))
    result = result_of(title, series, found, losses=losses, mean_length=mean)
    if not has_peft():
        result.notes.append(NO_PEFT)
    return result


def _wanted(options: Options) -> list[tuple[str, str, str, float | None]]:
    wanted: list[tuple[str, str, str, float | None]] = []
    for precision in options.precisions:
        for other in ("peft", "s2"):
            for place in ("before", "after"):
                bar = 2.0 if other == "peft" and not options.quick else None
                text = f"{precision}: {other} / ours {place}"
                wanted.append((text, f"{other} {precision}", f"ours {place} {precision}", bar))
    for place in ("before", "after"):
        # The published code runs at fp32.
        bar = None if options.quick else 8.0
        wanted.append((f"s2 fp32 / ours {place} bf16", "s2 fp32", f"ours {place} bf16", bar))
    return wanted


def _half(model: Any, options: Options) -> Any:
    """The same weights in bf16."""
    half = xglm(quick=options.quick, seed=options.seed)
    half.load_state_dict(model.state_dict())
    return half.to(torch.bfloat16)

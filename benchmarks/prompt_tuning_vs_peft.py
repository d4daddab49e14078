"""Training a soft prompt on a frozen decoder: isogloss, `peft`, and the way of the S2 code, on the same batches.

The model has the shape of XGLM-564M and random weights. The task is classification by a label word: the state in front of
EOS predicts one token, the loss is a cross-entropy over the whole vocabulary, and AdamW takes a step on the prompt.

peft    `peft` prompt tuning, prompt in front, dynamic padding; the model computes logits at every position.
s2      Prompt between text and EOS with its MLP, as in arXiv 2402.03782: everything padded to 128, logits at every
        position. Written from the paper's description.
ours    `Stack` with a prompt, in front (`before`) or between text and EOS with the MLP (`after`).

Before anything is timed, the losses of ours and of the other side are compared in evaluation mode on one batch.
Memory (`--memory`) is measured in a process of its own for each side: the highest resident size during a training step
at batch 32, and what that is above the size with the model loaded.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _models import as_backbone, padded, sentences, xglm
from _timing import arguments, claims, claims_as_list, interleaved, machine, show_claims, show_times, timed, write_json
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from isogloss.backbones import Backbone
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch

PROMPT = 10
FIXED_LENGTH = 128
HIDDEN = 200
LABELS = 7
Rows = list[list[int]]
Loss = Callable[[Rows, Tensor], Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


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
        loss.backward()
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
    """The four sides on one model."""
    backbone = as_backbone(model)
    before, front = ours(backbone, "before")
    after, behind = ours(backbone, "after")
    return {
        "ours before": before,
        "ours after": after,
        "peft": peft(model, front.weight_tensors()["prompt.vectors"].detach()),
        "s2": s2(model, behind),
    }


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
        if abs(values[mine] - values[other]) > tolerance * abs(values[other]):
            raise SystemExit(f"The losses differ, so nothing is compared: {values}")
    return values


def speed(options: Any) -> None:
    """Times the sides and prints the ratios."""
    model = xglm(tiny=options.tiny, seed=options.seed)
    vocabulary = model.config.vocab_size
    drawn = batches(options.rounds, options.batch_size, vocabulary, options.seed)
    sides: dict[str, Any] = {}
    losses = {}
    for precision in options.precisions:
        # Each precision has weights of its own, so that all sides can be timed in turn.
        own = model if precision == "fp32" else as_half(model, options)
        built = all_sides(own)
        losses[precision] = check_losses(built, drawn[0], 1e-3 if precision == "fp32" else 0.02)
        sides |= {f"{name} {precision}": side for name, side in built.items()}
    series = interleaved(
        {name: timed(lambda n, side=side: side.step(*drawn[n])) for name, side in sides.items()}, rounds=options.rounds
    )
    wanted: list[tuple[str, str, str, float | None]] = []
    for precision in options.precisions:
        for place in ("before", "after"):
            wanted.append((f"{precision}: peft / ours {place}", f"peft {precision}", f"ours {place} {precision}", 2.0))
        for place in ("after", "before"):
            fastest = 8.0 if precision == "fp32" and place == "after" else None
            wanted.append((f"{precision}: s2 / ours {place}", f"s2 {precision}", f"ours {place} {precision}", fastest))
    if {"fp32", "bf16"} <= set(options.precisions):
        for place in ("after", "before"):
            wanted.append((f"s2 fp32 / ours {place} bf16", "s2 fp32", f"ours {place} bf16", 8.0))
    found = claims(series, wanted)
    mean = sum(len(row) for rows, _ in drawn for row in rows) / sum(len(rows) for rows, _ in drawn)
    Console(width=120).print(f"{machine()}\nloss in evaluation mode: {losses}\nmean length {mean:.1f} tokens")
    show_times(f"One training step, batch {options.batch_size}", series)
    show_claims("Ratios of seconds, same batch, same round", found)
    write_json(
        options.json,
        {
            "losses": losses,
            "mean_length": mean,
            "times": {name: item.as_dict() for name, item in series.items()},
            "claims": claims_as_list(found),
        },
    )


def as_half(model: Any, options: Any) -> Any:
    """The same weights in bf16."""
    half = xglm(tiny=options.tiny, seed=options.seed)
    half.load_state_dict(model.state_dict())
    return half.to(torch.bfloat16)


# -- memory ---------------------------------------------------------------------------------------------------------


def resident(key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (highest since the last reset) of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) * 1024
    raise SystemExit(f"The kernel does not tell {key}; peak memory is measured on Linux only.")


def measure_memory(options: Any) -> None:
    """In a process of its own: loads the model, takes a step with one side, prints two sizes."""
    precision = options.precisions[0]
    model = xglm(tiny=options.tiny, seed=options.seed).to(DTYPES[precision])
    backbone = as_backbone(model)
    drawn = batches(1, options.memory_batch, model.config.vocab_size, options.seed)
    if options.memory_side.startswith("ours"):
        side, _ = ours(backbone, options.memory_side.split()[1])
    elif options.memory_side == "peft":
        side = peft(model, torch.rand(PROMPT, backbone.hidden_size) - 0.5)
    else:
        side = s2(model, ours(backbone, "after")[1])
    # Building the model may have needed more than the model; "5" sets the mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    loaded = resident("VmRSS")
    for batch in drawn:
        side.step(*batch)
    print(json.dumps({"loaded": loaded, "peak": resident("VmHWM")}))


def memory(options: Any) -> None:
    """Runs `measure_memory` for each side and precision and prints the shares."""
    results: dict[str, dict[str, int]] = {}
    table = Table(
        title=f"Highest resident size in training, batch {options.memory_batch}, GB (10^9)", title_justify="left"
    )
    for column in ("side", "model loaded", "peak", "peak above loaded", "peak / peft", "above / peft", "bar"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for precision in options.precisions:
        sides = ["peft", "ours before", "ours after"]
        for side in sides:
            command = [
                sys.executable, __file__, "--memory-side", side, "--precisions", precision, "--memory-batch",
                str(options.memory_batch), "--seed", str(options.seed), "--threads", str(options.threads),
            ]  # fmt: skip
            done = subprocess.run(command + ["--tiny"] * options.tiny, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{side} {precision} ended with {done.returncode}:\n{done.stderr[-2000:]}")
            sizes = json.loads(done.stdout.strip().splitlines()[-1])
            results[f"{side} {precision}"] = sizes
            reference = results[f"peft {precision}"]
            above, other = sizes["peak"] - sizes["loaded"], reference["peak"] - reference["loaded"]
            table.add_row(
                f"{side} {precision}",
                *(f"{value / 1e9:.2f}" for value in (sizes["loaded"], sizes["peak"], above)),
                f"{sizes['peak'] / reference['peak']:.0%}",
                f"{above / other:.0%}",
                "" if side == "peft" else "<= 60%",
            )
    Console(width=120).print(machine())
    Console(width=120).print(table)
    write_json(options.json, {"memory": results})


def main() -> None:
    """Reads the options."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--precisions", nargs="+", choices=list(DTYPES), default=list(DTYPES))
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    parser.add_argument("--memory-batch", type=int, default=32)
    parser.add_argument("--memory-side", help="(used by --memory itself) measure one side in this process")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.memory_side:
        measure_memory(options)
    elif options.memory:
        memory(options)
    else:
        speed(options)


if __name__ == "__main__":
    main()

"""Time and memory of one outer step of static gates with one inner step, beside plain full fine-tuning steps.

Three sides, same batches, same model (the shape of multilingual BERT base unless --small or --tiny), fp32, every weight trained:

* `plain`: one training step (forward, backward, fused AdamW), as `train task --train all` takes it;
* `two passes`: one outer step as isogloss takes it: a support pass, the gated Adam step, a query pass whose gradients are
  reduced to one number a layer as they come, and the rule's own step;
* `second order`: the straightforward way: the same outer step with the inner gradient kept differentiable and one
  backward pass through everything (plain attention kernels, as fused ones have no second derivative).

    python benchmarks/meta_cost.py --small            # time
    python benchmarks/meta_cost.py --small --memory   # peak memory, a process a side
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from _models import as_backbone, padded, sentences
from _timing import (
    arguments,
    claims,
    claims_as_list,
    interleaved,
    machine,
    show_claims,
    show_times,
    timed,
    write_json,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from isogloss.meta.base_steps import BaseStep
from isogloss.meta.groups import fast_weights
from isogloss.meta.inner import Inner
from isogloss.meta.memory import Shape, estimate, model_shape
from isogloss.meta.objective import Objective, twice_differentiable
from isogloss.meta.outer import first_order, unrolled
from isogloss.meta.rules import make_rule
from isogloss.meta.trajectory import Trajectory
from isogloss.stack import Stack, TextBatch

SIDES = ("plain", "two passes", "second order")
BARS = {"time": 2.5, "memory": 1.3}
Rows = tuple[Tensor, Tensor, Tensor]


class Batch:
    """What a head's `collate` gives, as far as `Objective` asks."""

    def __init__(self, rows: Rows) -> None:
        self.text, self.labels, self.tokens = TextBatch(rows[0], rows[1]), rows[2], int(rows[1].sum())

    def to(self, device: Any) -> "Batch":
        return self


class MeanHead(nn.Module):
    """Mean state -> linear -> cross-entropy."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 3)

    def collate(self, rows: Rows, routes: Any = None) -> Batch:
        return Batch(rows)

    def loss(self, stack: Stack, batch: Batch) -> tuple[Tensor, int]:
        logits = self.layer(stack.run(batch.text).pooled_mean())
        return nn.functional.cross_entropy(logits, batch.labels, reduction="sum"), len(batch.labels)


def model_of(size: str, seed: int) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    shape: dict[str, dict[str, Any]] = {
        "base": dict(vocab_size=119547),
        "small": dict(
            vocab_size=20000, hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536
        ),
        "tiny": dict(
            vocab_size=2000, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
        ),
    }
    torch.manual_seed(seed)
    return BertForMaskedLM(BertConfig(**shape[size]))


class World:
    """One model and the three ways of stepping it."""

    def __init__(self, size: str, seed: int, batch_size: int) -> None:
        self.backbone = as_backbone(model_of(size, seed))
        self.backbone.unfreeze()
        self.head = MeanHead(self.backbone.hidden_size)
        self.stack = Stack(self.backbone)
        self.objective = Objective(self.stack, self.head)  # type: ignore[arg-type]
        self.weights = fast_weights({"head": self.head, "backbone": self.backbone.model}, self.backbone)
        self.batch_size, self.seed = batch_size, seed

    def batch(self, number: int) -> Rows:
        generator = torch.Generator().manual_seed(1000 * self.seed + number)
        ids, mask = padded(sentences(self.batch_size, generator, self.backbone.vocabulary_size), 64)
        return ids[:, :64], mask[:, :64], torch.randint(3, (self.batch_size,), generator=generator)

    def plain(self) -> Callable[[int], object]:
        optimiser = torch.optim.AdamW(list(self.weights.parameters), lr=2e-5, fused=True)

        def step(number: int) -> None:
            optimiser.zero_grad(set_to_none=True)
            self.objective(self.batch(number)).backward()
            nn.utils.clip_grad_norm_(self.weights.parameters, 1.0)
            optimiser.step()

        return step

    def outer(self, straightforward: bool) -> Callable[[int], object]:
        rule = make_rule("gates", self.weights.groups, self.weights.layers)
        inner = Inner(self.weights, rule, BaseStep("adam"), tuple(2e-5 for _ in self.weights.parameters), 1.0)
        trajectory = Trajectory(inner, horizon=10_000)
        optimiser = torch.optim.AdamW(rule.parameters(), lr=0.1)
        names = self.objective.names_of(self.weights)

        def at(values: Sequence[Tensor], rows: Rows) -> Tensor:
            return self.objective.at(dict(zip(names, values, strict=True)), rows)

        def step(number: int) -> None:
            optimiser.zero_grad(set_to_none=True)
            batches = ([self.batch(2 * number)], self.batch(2 * number + 1))
            place = (trajectory.moments, trajectory.state, trajectory.clock)
            if straightforward:
                with twice_differentiable(self.backbone.model):
                    window = unrolled(inner, at, *batches, *place)
            else:
                window = first_order(inner, self.objective, *batches, *place)
            trajectory.advance(window)
            optimiser.step()

        return step

    def side(self, name: str) -> Callable[[int], object]:
        return {
            "plain": self.plain,
            "two passes": lambda: self.outer(False),
            "second order": lambda: self.outer(True),
        }[name]()


def rss() -> int:
    """Peak resident memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_child(size: str, seed: int, batch_size: int, side: str) -> None:
    """Prints peak memory over the libraries, with the model in it, after two steps."""
    world = World("tiny", seed, batch_size)
    for number in range(2):
        world.side(side)(number)
    before = rss()
    world = World(size, seed, batch_size)
    step = world.side(side)
    for number in range(2):
        step(number)
    print(json.dumps(rss() - before))


def memory(options: Any, size: str) -> None:
    found: dict[str, float] = {}
    for side in SIDES:
        command = [sys.executable, __file__, "--child", side, "--batch-size", str(options.batch_size)]
        command += ["--seed", str(options.seed), "--size", size]
        # Every larger tensor in memory of its own that goes back when it is freed: what is measured is what is held, and
        # not how the allocator's heap happens to be cut.
        environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
        found[side] = int(ran.stdout.splitlines()[-1])
        print(f"{side}: {found[side] / 2**20:.0f} MiB", file=sys.stderr, flush=True)
    guesses = estimates(World(size, options.seed, options.batch_size))
    table = Table(
        title=f"peak memory over the libraries, {size}, batch {options.batch_size}, longest row 64",
        title_justify="left",
    )
    for column in ("side", "MiB", "of plain", "bar", "met", "estimated before, MiB"):
        table.add_column(column, justify="left" if column == "side" else "right")
    for side, bytes_ in found.items():
        share = bytes_ / found["plain"]
        bar = BARS["memory"] if side == "two passes" else None
        table.add_row(
            side,
            f"{bytes_ / 2**20:.0f}",
            f"{share:.2f}x",
            "" if bar is None else f"<= {bar}x",
            "" if bar is None else "yes" if share <= bar else "no",
            f"{guesses[side] / 2**20:.0f}" if side in guesses else "",
        )
    Console(width=120).print(table)
    write_json(options.json, {"memory": found, "estimates": guesses, "size": size, "batch_size": options.batch_size})


def estimates(world: World) -> Mapping[str, float]:
    """What `isogloss meta learn` says before it starts."""
    common: dict[str, Any] = dict(
        fast=world.weights.size,
        frozen=0,
        moments=2,
        inner_steps=1,
        tokens=world.batch_size * 64,
        length=64,
        blocks=world.weights.blocks,
        **model_shape(world.backbone.config),
    )
    return {
        "two passes": estimate(Shape(second_order=False, **common)).total,
        "second order": estimate(Shape(second_order=True, **common)).total,
    }


def speed(options: Any, size: str) -> None:
    world = World(size, options.seed, options.batch_size)
    start = [parameter.detach().clone() for parameter in world.weights.parameters]
    losses = []
    for side in SIDES[1:]:
        world.side(side)(0)
        losses.append([parameter.detach().clone() for parameter in world.weights.parameters])
        with torch.no_grad():
            for parameter, value in zip(world.weights.parameters, start, strict=True):
                parameter.copy_(value)
    apart = max(float((one - two).abs().max()) for one, two in zip(*losses, strict=True))
    # Adam turns rounding noise of gradients that are all but 0 into steps of up to the learning rate.
    assert apart < 5e-5, f"the two ways move the weights {apart} apart"
    del start, losses
    steps = {side: world.side(side) for side in SIDES}
    series = interleaved({side: timed(step) for side, step in steps.items()}, rounds=options.rounds)
    show_times(f"one step, {size}, batch {options.batch_size}, {world.weights.size / 1e6:.0f}M weights", series)
    found = claims(
        series,
        [
            ("second order costs, in steps of two passes", "second order", "two passes", None),
            ("two passes cost, in plain steps", "two passes", "plain", None),
            ("second order costs, in plain steps", "second order", "plain", None),
        ],
    )
    show_claims(f"ratios; the bar for two passes is at most {BARS['time']} plain steps", found)
    ratio = found[1][1].ratio.median
    print(
        f"two passes: {ratio:.2f} plain steps of processor time, {'within' if ratio <= BARS['time'] else 'over'} {BARS['time']}"
    )
    write_json(
        options.json,
        {"series": {name: item.as_dict() for name, item in series.items()}, "claims": claims_as_list(found)},
    )


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--small", action="store_true", help="6 blocks of width 384 instead of BERT base's shape")
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--child", choices=SIDES, help="(used by --memory)")
    parser.add_argument("--size", default="base", help="(used by --memory)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.child:
        memory_child(options.size, options.seed, options.batch_size, options.child)
        return
    size = "tiny" if options.tiny else "small" if options.small else "base"
    print(json.dumps(machine()), file=sys.stderr)
    (memory if options.memory else speed)(options, size)


if __name__ == "__main__":
    main()

"""Training a language adapter by masked LM: isogloss and the `adapters` library, on the same batches.

The model has the shape of XLM-R base and random weights; the adapter is `seq_bn` with reduction 2 in every block (MAD-X);
15% of the positions are scored; fp32; AdamW on the adapter alone. `adapters` needs an older `transformers`, so its side
runs in an environment of its own, in a process that stays up while the two take turns. Before anything is timed, the adapter
that `adapters` made is saved by it, imported by isogloss, and the two losses in evaluation mode must agree.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from isogloss.bench.result import Options, Result
from isogloss.bench.shapes import BOS, EOS, as_backbone, xlmr
from isogloss.bench.timing import Side, Spent, claims, interleaved, result_of, timed
from isogloss.errors import IsoglossError
from isogloss.formats import import_module
from isogloss.modules import create_module, parse_module
from isogloss.stack import Stack, TextBatch

Batch = tuple[Tensor, Tensor, Tensor]
_WANTED = 2.5


class Peer:
    """The process of the `adapters` library."""

    def __init__(self, python: Path, folder: Path, threads: int) -> None:
        script = Path(__file__).with_name("_adapters_worker.py")
        command = [str(python), "-W", "ignore", str(script), "--model", str(folder / "model")]
        command += ["--batches", str(folder / "batches.pt"), "--adapter", str(folder / "adapter")]
        self._messages = (folder / "messages.txt").open("w+")
        try:
            self.process = subprocess.Popen(
                [*command, "--threads", str(threads)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._messages,
                text=True,
            )
        except OSError as problem:
            raise IsoglossError(f"--adapters-python: {python} does not run ({problem.strerror}).") from None
        self.about = self._read()

    def ask(self, line: str) -> dict[str, Any]:
        """Sends one command and waits for its answer."""
        assert self.process.stdin is not None
        print(line, file=self.process.stdin, flush=True)
        return self._read()

    def close(self) -> None:
        """Ends the process."""
        if self.process.poll() is None and self.process.stdin is not None:
            self.process.stdin.close()
            self.process.wait()
        self._messages.close()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self._messages.seek(0)
            last = (self._messages.read().strip().splitlines() or ["no message"])[-1]
            raise IsoglossError(
                f"--adapters-python: the `adapters` side ended with status {self.process.wait()} ({last}); it needs an "
                "environment with adapters==1.3.0."
            )
        return dict(json.loads(line))


def draw(count: int, rows: int, length: int, vocabulary: int, seed: int) -> list[Batch]:
    """Batches of masked random ids: [B, T] ids, mask, labels (-100 where nothing is scored)."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        ids = torch.randint(10, vocabulary - 1, (rows, length), generator=generator)
        ids[:, 0], ids[:, -1] = BOS, EOS
        chosen = (torch.rand(ids.shape, generator=generator) < 0.15) & (ids > EOS)
        labels = torch.where(chosen, ids, -100)
        fate = torch.rand(ids.shape, generator=generator)
        noise = torch.randint(10, vocabulary - 1, ids.shape, generator=generator)
        corrupted = torch.where(chosen & (fate < 0.8), vocabulary - 1, ids)
        corrupted = torch.where(chosen & (fate >= 0.9), noise, corrupted)
        found.append((corrupted, torch.ones_like(ids), labels))
    return found


def measure(options: Options) -> Result:
    """Times the two sides, or ours alone where the other is not installed."""
    rows, length = (2, 32) if options.quick else (8, 128)
    model = xlmr(quick=options.quick, seed=options.seed)
    batches = draw(options.rounds, rows, length, model.config.vocab_size, options.seed)
    backbone = as_backbone(model)
    with tempfile.TemporaryDirectory() as name, _peer(options, Path(name), model, batches) as peer:
        if peer is None:
            module = create_module(parse_module("adapter:2"), backbone, seed=options.seed)
        else:
            module = import_module(Path(name) / "adapter", backbone).requires_grad_(True)
        stack = Stack(backbone, [module])
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-4)

        def loss_on(number: int) -> Tensor:
            ids, mask, labels = batches[number]
            positions = (labels.flatten() >= 0).nonzero().squeeze(1)
            output = stack.run(TextBatch(ids, mask))
            return stack.lm_loss(output.at(positions), labels.flatten()[positions]) / len(positions)

        def step(number: int) -> None:
            stack.train()
            loss_on(number).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        sides: dict[str, Side] = {"ours": timed(step)}
        losses: dict[str, float] = {}
        if peer is not None:
            stack.eval()
            with torch.no_grad():
                losses = {"ours": float(loss_on(0)), "adapters": peer.ask("value 0")["loss"]}
            own = sum(parameter.numel() for parameter in trained)
            if abs(losses["ours"] - losses["adapters"]) > 1e-4 * losses["ours"] or own != peer.about["trained"]:
                raise IsoglossError(
                    f"The sides differ, so nothing is compared: {losses}, {own} and {peer.about['trained']} trained numbers."
                )
            sides["adapters"] = _side_of(peer)
        series = interleaved(sides, options)
        found = claims(series, [("fp32: adapters / ours", "adapters", "ours", None if options.quick else _WANTED)])
        about = None if peer is None else peer.about
    result = result_of(
        f"Language adapter, one masked-LM step, batch {rows} x {length}, fp32", series, found, peer=about, losses=losses
    )
    if about is None:
        result.notes.append(
            "adapters: not compared; it needs an older transformers, so give the Python of an environment with adapters==1.3.0 "
            "as --adapters-python."
        )
    else:
        result.notes.append(f"Loss in evaluation mode: ours {losses['ours']:.6f}, adapters {losses['adapters']:.6f}.")
    return result


def _side_of(peer: Peer) -> Side:
    def side(number: int) -> Spent:
        answer = peer.ask(f"step {number}")
        return Spent(answer["wall"], answer["cpu"])

    return side


@contextmanager
def _peer(options: Options, folder: Path, model: Any, batches: list[Batch]) -> Iterator[Peer | None]:
    if options.adapters_python is None:
        yield None
        return
    model.save_pretrained(folder / "model")
    torch.save(batches, folder / "batches.pt")
    peer = Peer(options.adapters_python, folder, options.threads)
    try:
        yield peer
    finally:
        peer.close()

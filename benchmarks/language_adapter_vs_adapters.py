"""Training a language adapter by masked LM: isogloss and the `adapters` library, on the same batches.

The model has the shape of XLM-R base and random weights; the adapter is `seq_bn` with reduction 2 in every block (MAD-X);
15% of the positions are scored; fp32; AdamW on the adapter alone. `adapters` needs an older `transformers`, so its side
runs in an environment of its own (`--peer-python`), in a process that stays up while the two take turns.

Before anything is timed, the adapter that `adapters` made is saved by it, imported by isogloss, and the two losses in
evaluation mode must agree.
"""

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from _models import BOS, EOS, as_backbone, xlmr
from _timing import (
    Spent,
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
from torch import Tensor

from isogloss.formats import import_module
from isogloss.stack import Stack, TextBatch

Batch = tuple[Tensor, Tensor, Tensor]


class Peer:
    """The process of the `adapters` library."""

    def __init__(self, python: Path, model: Path, batches: Path, adapter: Path, threads: int) -> None:
        script = Path(__file__).with_name("_adapters_worker.py")
        command = [str(python), "-W", "ignore", str(script), "--model", str(model), "--batches", str(batches)]
        command += ["--adapter", str(adapter), "--threads", str(threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"The peer process ended with status {self.process.wait()}; its messages are above.")
        return dict(json.loads(line))


def draw(count: int, options: Any, vocabulary: int) -> list[Batch]:
    """Batches of masked random ids: [B, T] ids, mask, labels (-100 where nothing is scored)."""
    generator = torch.Generator().manual_seed(options.seed)
    found = []
    for _ in range(count):
        ids = torch.randint(10, vocabulary - 1, (options.batch_size, options.length), generator=generator)
        ids[:, 0], ids[:, -1] = BOS, EOS
        chosen = (torch.rand(ids.shape, generator=generator) < 0.15) & (ids > EOS)
        labels = torch.where(chosen, ids, -100)
        fate = torch.rand(ids.shape, generator=generator)
        noise = torch.randint(10, vocabulary - 1, ids.shape, generator=generator)
        corrupted = torch.where(chosen & (fate < 0.8), vocabulary - 1, ids)
        corrupted = torch.where(chosen & (fate >= 0.9), noise, corrupted)
        found.append((corrupted, torch.ones_like(ids), labels))
    return found


def compare(options: Any, folder: Path) -> None:
    """Times the two sides and prints the ratio."""
    model = xlmr(tiny=options.tiny, seed=options.seed)
    model.save_pretrained(folder / "model")
    batches = draw(options.rounds, options, model.config.vocab_size)
    torch.save(batches, folder / "batches.pt")
    peer = Peer(options.peer_python, folder / "model", folder / "batches.pt", folder / "adapter", options.threads)
    try:
        backbone = as_backbone(model)
        module = import_module(folder / "adapter", backbone).requires_grad_(True)
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

        def peer_step(number: int) -> Spent:
            answer = peer.ask(f"step {number}")
            return Spent(answer["wall"], answer["cpu"])

        stack.eval()
        with torch.no_grad():
            losses = {"ours": float(loss_on(0)), "adapters": peer.ask("value 0")["loss"]}
        own = sum(parameter.numel() for parameter in trained)
        if abs(losses["ours"] - losses["adapters"]) > 1e-4 * losses["ours"] or own != peer.about["trained"]:
            raise SystemExit(f"The sides differ, so nothing is compared: {losses}, {own} and {peer.about['trained']}")
        series = interleaved({"ours": timed(step), "adapters": peer_step}, rounds=options.rounds)
    finally:
        peer.close()
    found = claims(series, [("fp32: adapters / ours", "adapters", "ours", 2.5)])
    Console(width=120).print(
        f"{machine()}\npeer: {peer.about}\nloss in evaluation mode: {losses}\ntrained parameters: {own}"
    )
    show_times(f"One masked-LM step, batch {options.batch_size} x {options.length}, fp32", series)
    show_claims("Ratio of seconds, same batch, same round", found)
    write_json(
        options.json,
        {
            "peer": peer.about,
            "losses": losses,
            "times": {name: item.as_dict() for name, item in series.items()},
            "claims": claims_as_list(found),
        },
    )


def main() -> None:
    """Reads the options."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--peer-python", type=Path, required=True, help="Python of an environment with adapters==1.3.0")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


if __name__ == "__main__":
    main()

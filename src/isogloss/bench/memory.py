"""Peak memory of training a soft prompt: isogloss and `peft`, a process for each side and precision.

What is measured is the highest resident size during one training step at batch 32, and what that is above the size with
the model loaded. The sides are those of `prompt_tuning.py`.
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from isogloss.bench.prompt_tuning import DTYPES, NO_PEFT, PROMPT, batches, has_peft, ours, peft
from isogloss.bench.result import Options, Result, Table
from isogloss.bench.shapes import as_backbone, xglm
from isogloss.errors import IsoglossError

_BATCH = 32
_STATUS = Path("/proc/self/status")


def measure(options: Options) -> Result:
    """Runs one process after the other; needs Linux."""
    if not _STATUS.exists():
        return Result(notes=["Peak memory: not measured; only the kernel of Linux tells it."])
    sides = ["peft", "ours before", "ours after"] if has_peft() else ["ours before", "ours after"]
    sizes: dict[str, dict[str, int]] = {}
    rows = []
    for precision in options.precisions:
        for side in sides:
            found = sizes[f"{side} {precision}"] = _in_a_process(side, precision, options)
            above = found["peak"] - found["loaded"]
            options.say(f"{side} {precision}: {above / 1e9:.2f} GB above the loaded model")
            shares = ("", "")
            if "peft" in sides:
                other = sizes[f"peft {precision}"]
                shares = (
                    f"{found['peak'] / other['peak']:.0%}",
                    f"{above / max(1, other['peak'] - other['loaded']):.0%}",
                )
            bar = "" if side == "peft" or options.quick else "<= 60%"
            cells = [f"{value / 1e9:.2f}" for value in (found["loaded"], found["peak"], above)]
            rows.append((f"{side} {precision}", *cells, *shares, bar))
    title = f"Highest resident size in one training step, batch {_BATCH}, GB (10^9)"
    columns = ("side", "loaded", "peak", "above", "peak/peft", "above/peft", "wanted")
    return Result([Table(title, columns, rows)], {"memory": sizes}, [] if has_peft() else [NO_PEFT])


def _in_a_process(side: str, precision: str, options: Options) -> dict[str, int]:
    settings = json.dumps(
        {"side": side, "precision": precision, "quick": options.quick, "seed": options.seed, "threads": options.threads}
    )
    command = [sys.executable, "-W", "ignore", "-m", "isogloss.bench.memory", settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise IsoglossError(
            f"The process that measures '{side} {precision}' ended with status {done.returncode} ({last}); at full size it needs "
            "up to 17 GB of memory, with --quick next to nothing."
        )
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def _resident(key: str) -> int:
    """`VmRSS` (now) or `VmHWM` (highest since the last reset) of this process, in bytes."""
    lines = (line.split() for line in _STATUS.read_text().splitlines())
    return next(int(words[1]) * 1024 for words in lines if words[:1] == [key + ":"])


def _child(side: str, precision: str, quick: bool, seed: int, threads: int) -> dict[str, int]:
    """Loads the model, takes a step with one side, gives two sizes."""
    torch.set_num_threads(threads)
    model = xglm(quick=quick, seed=seed).to(DTYPES[precision])
    backbone = as_backbone(model)
    rows, labels = batches(1, _BATCH, model.config.vocab_size, seed)[0]
    if side == "peft":
        trained = peft(model, torch.rand(PROMPT, backbone.hidden_size) - 0.5)
    else:
        trained, _ = ours(backbone, side.split()[1])
    # Building the model may have needed more than the model; "5" sets the mark back to what is resident now.
    Path("/proc/self/clear_refs").write_text("5")
    loaded = _resident("VmRSS")
    trained.step(rows, labels)
    return {"loaded": loaded, "peak": _resident("VmHWM")}


if __name__ == "__main__":
    print(json.dumps(_child(**json.loads(sys.argv[1]))))

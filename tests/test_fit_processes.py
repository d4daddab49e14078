"""Two processes by the ordinary launcher: the same training as one process with twice the accumulation."""

import os
import subprocess
import sys
from pathlib import Path

import torch
from test_fit import Toy

from isogloss.storage import load_tensors
from isogloss.training.config import FitConfig

PROGRAM = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch
from test_fit import Toy
from test_fit_resume import PowerCutError, cut_at, scored, settings
from isogloss.storage import save_tensors
from isogloss.training._interrupts import Interrupted
from isogloss.training._processes import leave_processes
from isogloss.training.config import FitConfig

rank, out = int(os.environ["RANK"]), {out!r}

def keep(name, toy):
    save_tensors(f"{{out}}/{{name}}-{{rank}}.safetensors", toy.weights())

# 1. without dropout: must equal one process
toy = Toy(dropout=0.0, dtype=torch.float64, batch_size=5)
if rank:  # a process that began with other weights gets the main one's
    torch.nn.init.zeros_(toy.model[0].weight)
result = toy.fit(FitConfig(epochs=3, learning_rate=1e-2, accumulation=2))
assert result.steps == 12 and result.tokens == 3 * 64 * 2, result
keep("plain", toy)

# 2. with dropout: cut and resumed must equal uninterrupted
config = settings(checkpoint_every=3, accumulation=1)
toy = Toy(norm=True); toy.fit(config, validate=scored(toy)); keep("whole", toy)
toy = Toy(norm=True)
try:
    toy.fit(config, folder=out + "/run", validate=scored(toy), loss=cut_at(toy, 11))
    raise SystemExit("not cut")
except PowerCutError:
    pass
toy = Toy(norm=True)
assert toy.fit(config, folder=out + "/run", validate=scored(toy)).resumed_from == 9
keep("resumed", toy)

# 3. a signal that reaches one process stops both at the same step
toy, calls = Toy(), []
def loss(batch):
    calls.append(1)
    if rank == 1 and len(calls) == 5:
        os.kill(os.getpid(), signal.SIGINT)
    return toy.loss(batch)
try:
    toy.fit(config, folder=out + "/stopped", loss=loss)
    raise SystemExit("not stopped")
except Interrupted as stop:
    assert "Stopped at step 5 of 30" in str(stop), stop
torch.distributed.barrier()
leave_processes()
# gloo's threads now and then abort a process that ends in the ordinary way, after all its work is done.
os._exit(0)
"""


def test_two_processes_train_as_one(tmp_path):
    (tmp_path / "out").mkdir()
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(tests=str(Path(__file__).parent), out=str(tmp_path / "out")))
    launched = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(program)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert launched.returncode == 0, launched.stderr[-4000:]

    def weights(name, rank):
        return load_tensors(tmp_path / "out" / f"{name}-{rank}.safetensors")

    alone = Toy(dropout=0.0, dtype=torch.float64, batch_size=5)
    alone.fit(FitConfig(epochs=3, learning_rate=1e-2, accumulation=4))
    for rank in (0, 1):
        for name, value in alone.weights().items():
            torch.testing.assert_close(weights("plain", rank)[name], value, rtol=1e-10, atol=1e-12)
    for name, value in weights("whole", 0).items():
        assert torch.equal(weights("resumed", 0)[name], value), name
        if "running" not in name and "num_batches" not in name:  # batch norm's statistics are each process's own
            assert torch.equal(weights("whole", 1)[name], value), name

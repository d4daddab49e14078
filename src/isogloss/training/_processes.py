"""The processes of one run: one, or as many as `accelerate launch` or `torchrun` started.

Gradients are summed here instead of by a wrapper around the model: the loop trains a few small parts of a
frozen model through a callback, so there is no one module to wrap, and a weighted sum over processes makes
any split of the data equal to one big batch.
"""

import atexit
import os
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast, parse_flag_from_env
from torch import Tensor, nn

# Elements that travel together: large enough to be efficient, small enough not to double the memory of a
# backbone.
_BUCKET = 1 << 24


class Processes:
    """What the loop needs to know of, and to say to, the other processes."""

    def __init__(self, device: torch.device, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator or create_accelerator(device)
        self.device = device
        self.rank: int = self.accelerator.process_index
        self.count: int = self.accelerator.num_processes

    @property
    def main(self) -> bool:
        """True in the process that writes and prints."""
        return self.rank == 0

    def sum(self, vector: Tensor) -> Tensor:
        """Returns the sum of `vector` over the processes."""
        if self.count == 1:
            return vector
        summed: Tensor = self.accelerator.reduce(vector.to(self.accelerator.device), "sum")
        return summed.to(vector.device)

    def from_main(self, value: float) -> float:
        """Returns the main process's value, so that all decide alike."""
        if self.count == 1:
            return value
        held = torch.tensor([value], dtype=torch.float64, device=self.accelerator.device)
        return float(broadcast(held, from_process=0).item())

    def equalise(self, tensors: Sequence[Tensor]) -> None:
        """Gives every process the main process's values, in place."""
        if self.count > 1:
            with torch.no_grad():
                for tensor in tensors:
                    tensor.copy_(broadcast(tensor.detach().clone().to(self.accelerator.device), from_process=0))

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sums the gradients over the processes in place; one that no process has stays None."""
        if self.count == 1:
            return
        present = self.sum(torch.tensor([float(p.grad is not None) for p in parameters])).tolist()
        held = [p for p, share in zip(parameters, present, strict=True) if share]
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        while held:
            size, end = 0, 0
            while end < len(held) and (end == 0 or size + held[end].numel() <= _BUCKET):
                size += held[end].numel()
                end += 1
            gradients = [p.grad for p in held[:end] if p.grad is not None]
            flat = self.sum(torch.cat([g.reshape(-1) for g in gradients]))
            for gradient, piece in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
                gradient.copy_(piece.view_as(gradient))
            held = held[end:]

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns every process's tensors under "<rank>/<name>"; sizes must agree over the processes."""
        if self.count == 1:
            return {f"0/{name}": tensor for name, tensor in tensors.items()}
        gathered = {}
        for name, tensor in tensors.items():
            rows = self.accelerator.gather(tensor.to(self.accelerator.device)[None]).cpu()
            gathered.update({f"{rank}/{name}": row for rank, row in enumerate(rows)})
        return gathered

    def wait(self) -> None:
        """Waits until every process is here."""
        if self.count > 1:
            self.accelerator.wait_for_everyone()


def writes() -> bool:
    """Whether this process writes results: the main one, or one that is alone."""
    return not PartialState._shared_state or bool(PartialState().is_main_process)


def launched() -> bool:
    """Whether a launcher started this process and others beside it."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launched_device() -> torch.device:
    """Returns the device of this process: its own GPU under a launcher, else the first one, else the CPU.

    Under a launcher it joins the others, after which `writes` tells them apart.
    """
    there = torch.cuda.is_available() and not parse_flag_from_env("ACCELERATE_USE_CPU")
    if not launched():
        # Alone it makes no state, which would hold this device for the life of the process.
        return torch.device("cuda" if there else "cpu")
    if not PartialState._shared_state:
        atexit.register(leave_processes)
    device: torch.device = PartialState(cpu=not there).device
    return device


def create_accelerator(device: torch.device, **options: object) -> Accelerator:
    """Makes an `Accelerator`, whose state `accelerate` shares over the whole process.

    Precision is left to the loop's own autocast: `accelerate` fixes its own for the life of the process, and
    one process here may train in fp32 and then in bf16.
    """
    if not PartialState._shared_state:
        options = {"cpu": device.type == "cpu", **options}
        atexit.register(leave_processes)
    if not AcceleratorState._shared_state:
        options = {"mixed_precision": "no", **options}
    return Accelerator(**options)


def leave_processes() -> None:
    """Ends the process group; a program under a launcher calls this last.

    A process that ends with its group's threads still running is aborted by them now and then. `atexit`
    does this too, but so late that an abort remains possible.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()

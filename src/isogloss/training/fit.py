"""The one training loop: generic over what is trained, exact under accumulation, resumed to the same bits."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from isogloss.backbones.processor import has_bf16
from isogloss.errors import DivergedError, IsoglossError
from isogloss.storage import content_key
from isogloss.training import _random_state
from isogloss.training._interrupts import Interrupted, StopRequest, stop_on_signals
from isogloss.training._processes import Processes
from isogloss.training._weights import changing_tensors, copy_of, put_back, trained_parameters
from isogloss.training.buckets import BatchSource
from isogloss.training.checkpoint import Checkpoint, Checkpoints, discard_checkpoints
from isogloss.training.config import FitConfig, FitResult, LossResult, TrainedPart
from isogloss.training.optimisers import create_optimiser, optimiser_state, restore_optimiser_state
from isogloss.training.progress import Progress
from isogloss.training.schedules import learning_rate_factor, warmup_steps
from isogloss.training.tracking import Tracker
from isogloss.training.update import UpdateStep


def fit(
    config: FitConfig,
    *,
    parts: Sequence[TrainedPart],
    batches: BatchSource,
    loss: Callable[[Any], LossResult],
    modules: Mapping[str, nn.Module],
    validate: Callable[[], float] | None = None,
    computing: Sequence[nn.Module] = (),
    update: UpdateStep | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    identity: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
) -> FitResult:
    """Trains `parts` on `batches`.

    Modules with trainable parameters are in training mode during `loss` and in evaluation mode during
    `validate` and afterwards as before; all others keep the mode they have. The generators of torch, numpy
    and Python are seeded from `config.seed` and left afterwards as they were found; `validate` may use them
    without changing the training.

    Args:
        config: How to train.
        parts: What is trained, with learning rates. All of it must be float32 and require gradients.
        batches: Where batches come from; moved on in place.
        loss: Sum of losses, their number and the tokens of one batch; moves the batch to the device itself.
        modules: What a checkpoint holds: trainable parameters and saved buffers of these modules, by name.
        validate: Returns one number for the present weights, to choose the best ones and to stop early. Only
            ever give it development data of the *source* language. Every process calls it; the main one's
            value counts.
        computing: What computes with the modules (a `Stack`): in training mode when they are. Without it their dropout
            does nothing.
        update: Takes the optimiser's steps in its own way (learned update rules). What it must remember belongs among
            `modules`.
        folder: Output folder, whose ".checkpoint" holds the checkpoints; None keeps none. The caller deletes
            them (`discard_checkpoints`) once it has saved the result.
        resume: Continue from checkpoints found there; False deletes them first.
        progress: Where to show what happens; None shows nothing.
        identity: JSON data that tells this run from others (digests of data, module specs ...); a checkpoint
            of another identity is refused.
        settings: More of it, which checkpoints of versions that did not compare it may lack.

    Returns:
        What was done. The modules hold the best weights (or the last, without `validate` or `keep_best`), in evaluation
        mode.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was written.
        DivergedError: A loss that is not finite.
        IsoglossError: Nothing to train, a checkpoint of another run, a full disk.
    """
    trained = trained_parameters(parts)
    tensors = changing_tensors(modules, trained)
    device = trained[0].device
    processes = Processes(device)
    shown = progress if processes.main else None
    key = content_key(
        {
            "config": config.learned(),
            "parts": [
                [part.name, part.learning_rate, part.weight_decay, [list(p.shape) for p in part.parameters]]
                for part in parts
            ],
            "tensors": {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in tensors.items()},
            "identity": dict(identity or {}),
        }
    )
    logs = Path("runs") if folder is None else Path(folder).with_name(Path(folder).name + ".logs")
    tracker = Tracker(config.tracker if processes.main else None, logs, config.learned(), device)
    modes = {module: module.training for root in modules.values() for module in root.modules()}
    loop = _Loop(
        config=config,
        trained=trained,
        tensors=tensors,
        optimiser=create_optimiser(config, parts),
        batches=batches,
        loss=loss,
        validate=validate,
        update=update,
        roots=[*(root for root in modules.values() if any(p.requires_grad for p in root.parameters())), *computing],
        store=None if folder is None else Checkpoints(folder, key, content_key(dict(settings or {}))),
        processes=processes,
        progress=shown,
        tracker=tracker,
    )
    if folder is not None and not resume:
        if processes.main:
            discard_checkpoints(folder)
        processes.wait()
    tell = shown.note if shown else lambda text: None
    try:
        with _random_state.preserved(device), stop_on_signals(tell) as request:
            return loop.run(request)
    except KeyboardInterrupt as problem:
        raise Interrupted(loop.stopped_text(at_once=True)) from problem
    finally:
        tracker.close()
        if shown:
            shown.end()
        for module, training in modes.items():
            module.training = training


@dataclass
class _Counters:
    """What a run has done so far; saved with every checkpoint."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_value: float | None = None
    stale: int = 0
    finished: bool = False
    stopped_early: bool = False


class _Loop:
    """One run; `fit` makes it and calls `run` once."""

    def __init__(
        self,
        *,
        config: FitConfig,
        trained: Sequence[nn.Parameter],
        tensors: Mapping[str, Tensor],
        optimiser: torch.optim.Optimizer,
        batches: BatchSource,
        loss: Callable[[Any], LossResult],
        validate: Callable[[], float] | None,
        update: UpdateStep | None,
        roots: Sequence[nn.Module],
        store: Checkpoints | None,
        processes: Processes,
        progress: Progress | None,
        tracker: Tracker,
    ) -> None:
        self.config, self.trained, self.tensors, self.optimiser = config, trained, tensors, optimiser
        self.batches, self.loss, self.validate, self.roots = batches, loss, validate, roots
        self.update = update
        self.store, self.processes, self.progress, self.tracker = store, processes, progress, tracker
        self.device = trained[0].device
        # Either each process has batches of its own, or its rows of every batch.
        self.rows = (
            slice(processes.rank, None, processes.count) if config.split_batches and processes.count > 1 else None
        )
        self.share = (processes.rank, processes.count) if self.rows is None else (0, 1)
        self.window = config.accumulation * self.share[1]
        self.alone = self.window == 1 and self.rows is None
        self.steps = config.steps or batches.steps_in(config.epochs or 0.0, self.window)
        self.warmup = warmup_steps(config.warmup, self.steps)
        self.now = _Counters()
        self.best: dict[str, Tensor] = {}
        self.history: list[dict[str, float]] = []
        self.resumed_from: int | None = None
        # Reading a loss waits for the GPU, so the losses of a few steps are read together.
        self.unread: list[tuple[int, Tensor, float, int]] = []
        self.sums = [0.0, 0.0]  # losses and counts since the last entry of the history

    def run(self, request: StopRequest) -> FitResult:
        """Trains to the end, from a checkpoint if there is one."""
        _random_state.seed_everything(self.config.seed + self.processes.rank)
        self.processes.equalise(list(self.tensors.values()))
        self.resume()
        if self.progress:
            if self.resumed_from is not None:
                self.progress.note(f"continuing from step {self.resumed_from} of {self.steps}")
            if self.config.precision == "bf16" and not has_bf16(self.device):
                self.progress.note("this processor only imitates bf16; fp32 is faster here")
            self.progress.begin(self.now.step, self.steps)
        self.clock = time.monotonic() - self.now.seconds
        saved = time.monotonic()
        self.train_mode(True)
        while self.now.step < self.steps and not self.now.finished:
            epoch = self.batches.epoch
            self.train_step()
            last = self.now.step == self.steps
            if last or self.due(self.config.log_every) or self.device.type != "cuda":
                self.read_losses()
            if self.validate and (last or self.evaluation_due(self.batches.epoch > epoch)):
                self.evaluate(self.validate)
            stop, save = self.agreed(request.asked, time.monotonic() - saved)
            self.now.finished = last or self.now.stopped_early
            if self.store and (stop or save or self.now.finished):
                self.save()
                saved = time.monotonic()
            if stop and not self.now.finished:
                raise Interrupted(self.stopped_text())
        if self.best and self.config.keep_best:
            put_back(self.tensors, self.best)
        self.train_mode(False)
        return FitResult(
            steps=self.now.step,
            seconds=self.now.seconds,
            best_step=self.now.best_step,
            best_value=self.now.best_value,
            history=tuple(self.history),
            tokens=self.now.tokens,
            stopped_early=self.now.stopped_early,
            resumed_from=self.resumed_from,
        )

    def train_step(self) -> None:
        """One optimiser step over one window of batches."""
        rate = learning_rate_factor(self.config.schedule, self.now.step, steps=self.steps, warmup=self.warmup)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * rate
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        count, tokens, done = 0.0, 0, 0
        for batch in self.batches.window(self.window, *self.share):
            if self.rows is not None:
                batch = batch[self.rows]
                if not len(batch):
                    continue
            with self.autocast():
                result = self.loss(batch)
            # A window of one batch is divided before the backward pass: the same bits as a plain loop over
            # means.
            divisor = max(float(result.count), 1.0) if self.alone else 1.0
            if result.total.requires_grad:
                torch.autograd.backward(result.total / divisor)
            total += result.total.detach()
            count, tokens, done = count + float(result.count), tokens + int(result.tokens), done + 1
        if done == 0 and self.processes.count == 1:
            raise IsoglossError("The batches ended before the training did; give fewer steps or more data.")
        if self.processes.count > 1:
            summed = self.processes.sum(torch.tensor([count, tokens], dtype=torch.float64, device=self.device)).tolist()
            total, count, tokens = self.processes.sum(total), summed[0], int(summed[1])
            self.processes.sum_gradients(self.trained)
        if not self.alone:
            gradients = [parameter.grad for parameter in self.trained if parameter.grad is not None]
            if gradients:
                torch._foreach_div_(gradients, max(count, 1.0))
        if self.config.clip is not None:
            nn.utils.clip_grad_norm_(self.trained, self.config.clip)
        if self.update is None:
            self.optimiser.step()
        else:
            self.update.step(self.optimiser, total / max(count, 1.0), self.now.step / max(1, self.steps - 1))
        self.now.step += 1
        self.now.tokens += tokens
        self.now.seconds = time.monotonic() - self.clock
        self.unread.append((self.now.step, total, count, tokens))

    def autocast(self) -> Any:
        """The forward pass's precision."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.config.precision == "bf16" else nullcontext()

    def read_losses(self) -> None:
        """Reads the losses of the steps since the last call; raises when one is not finite."""
        for step, total, count, tokens in self.unread:
            value = total.item()
            if not math.isfinite(value):
                raise DivergedError(
                    f"The training loss became {value} at step {step} of {self.steps}; lower the "
                    "learning rate, add warm-up, or use fp32 if the backbone runs in half precision."
                )
            self.sums[0], self.sums[1] = self.sums[0] + value, self.sums[1] + count
            mean = self.sums[0] / max(self.sums[1], 1.0)
            if self.progress:
                self.progress.update(step, mean, tokens)
            if step % self.config.log_every == 0 or step == self.steps:
                rate = self.optimiser.param_groups[0]["lr"]
                self.history.append({"step": step, "loss": mean, "learning_rate": rate})
                self.tracker.log({"loss": mean, "learning_rate": rate, "tokens": self.now.tokens}, step)
                self.sums = [0.0, 0.0]
        self.unread = []

    def due(self, every: int | None) -> bool:
        """Whether something that happens every so many steps happens now."""
        return every is not None and self.now.step % every == 0

    def evaluation_due(self, epoch_ended: bool) -> bool:
        """Whether `validate` is to be called now."""
        if self.config.eval_every is None:
            return epoch_ended and self.config.epochs is not None
        return self.due(self.config.eval_every)

    def evaluate(self, validate: Callable[[], float]) -> None:
        """Scores the present weights, keeps them if they are the best, and decides about stopping early."""
        self.read_losses()
        self.train_mode(False)
        with _random_state.preserved(self.device), torch.no_grad(), self.autocast():
            value = self.processes.from_main(float(validate()))
        self.train_mode(True)
        self.history.append({"step": self.now.step, "value": value})
        self.tracker.log({"value": value}, self.now.step)
        best = self.now.best_value
        gained = value == value and (best is None or (value > best if self.config.higher_is_better else value < best))
        if gained:
            self.now.best_step, self.now.best_value, self.now.stale = self.now.step, value, 0
            if self.config.keep_best:
                self.best = copy_of(self.tensors)
        else:
            self.now.stale += 1
            self.now.stopped_early = self.config.patience is not None and self.now.stale >= self.config.patience
        if self.progress:
            self.progress.note(f"step {self.now.step}: dev {value:.4f}{' (best so far)' if gained else ''}")

    def train_mode(self, training: bool) -> None:
        """Switches the modules that are being trained."""
        for root in self.roots:
            root.train(training)

    def agreed(self, asked: bool, since: float) -> tuple[bool, bool]:
        """Whether to stop and whether to save now, the same in all processes."""
        pause = self.config.checkpoint_seconds
        save = self.due(self.config.checkpoint_every) or (pause is not None and since >= pause)
        if self.processes.count == 1:
            return asked, save
        # Clocks differ, so the main process decides when to save; a signal may reach only one of them.
        flags = torch.tensor([float(asked), float(save and self.processes.main)], device=self.device)
        stop, save_now = self.processes.sum(flags).tolist()
        return stop > 0, save_now > 0

    def save(self) -> None:
        """Writes a checkpoint of the present moment."""
        self.read_losses()
        random = self.processes.gather(_random_state.capture(self.device))
        problem: IsoglossError | None = None
        if self.store and self.processes.main:
            optimiser, numbers = optimiser_state(self.optimiser)
            groups = {"weights": self.tensors, "optimiser": optimiser, "random": random}
            checkpoint = Checkpoint(
                step=self.now.step,
                facts={
                    "counters": vars(self.now),
                    "sums": self.sums,
                    "history": self.history,
                    "optimiser": numbers,
                    "batches": self.batches.state_dict(),
                },
                tensors={f"{group}/{name}": t for group, held in groups.items() for name, t in held.items()},
                best_step=self.now.best_step if self.best else None,
                best=self.best,
            )
            try:
                self.store.save(checkpoint)
            except IsoglossError as error:
                problem = error
        if self.processes.from_main(float(problem is not None)):
            raise problem or IsoglossError("The main process could not write its checkpoint; see its message.")

    def resume(self) -> None:
        """Continues from the newest checkpoint, if there is one."""
        checkpoint = self.store.load() if self.store else None
        if checkpoint is None:
            return
        groups: dict[str, dict[str, Tensor]] = {"weights": {}, "optimiser": {}, "random": {}}
        for name, tensor in checkpoint.tensors.items():
            group, rest = name.split("/", 1)
            groups[group][rest] = tensor
        put_back(self.tensors, groups["weights"])
        restore_optimiser_state(self.optimiser, groups["optimiser"], checkpoint.facts["optimiser"])
        own = {
            name.split("/", 1)[1]: tensor
            for name, tensor in groups["random"].items()
            if name.startswith(f"{self.processes.rank}/")
        }
        if own:  # a start with more processes than before has new ones, which keep their fresh seeds
            _random_state.restore(own, self.device)
        self.batches.load_state_dict(checkpoint.facts["batches"])
        self.now = _Counters(**checkpoint.facts["counters"])
        self.sums, self.history = list(checkpoint.facts["sums"]), list(checkpoint.facts["history"])
        self.best, self.resumed_from = dict(checkpoint.best), checkpoint.step

    def stopped_text(self, *, at_once: bool = False) -> str:
        """Says where the training stopped and how to go on."""
        where = f"Stopped at step {self.now.step} of {self.steps}"
        if self.store is None:
            return f"{where}; nothing was kept because no output folder was given."
        kept = self.store.last_step
        if kept is None and at_once:
            return f"{where} before the first checkpoint; run the same command again to start over."
        return f"{where}; run the same command again (without --overwrite) to continue from step {kept}."

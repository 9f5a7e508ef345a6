"""The training loop: on a CPU, a killed and resumed run ends with the same bits."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DataLoaderConfiguration
from torch import Tensor, nn

from dpcompress.errors import TrainingDiverged, UsageError
from dpcompress.files import digest, write_text
from dpcompress.progress import Progress, silent
from dpcompress.settings import Recipe
from dpcompress.training.checkpoint import load_checkpoint, save_checkpoint, state_digest
from dpcompress.training.data import Data
from dpcompress.training.evaluate import check_classes, evaluate
from dpcompress.training.images import Batches
from dpcompress.training.layout import fast_layout
from dpcompress.training.objective import Extension, objective
from dpcompress.training.seeding import deterministic, seed_of

_CHECK_EVERY = 20
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Epoch:
    """The line of a training history for one epoch.

    epoch, steps: how many epochs and steps are done.
    loss: mean training loss of the epoch.
    heldout_accuracy, heldout_loss: None where they were not asked for.
    """

    epoch: int
    steps: int
    loss: float
    heldout_accuracy: float | None = None
    heldout_loss: float | None = None


def finetune(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    *,
    teacher: nn.Module | None = None,
    extension: Extension | None = None,
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 120.0,
    log: Path | None = None,
    validate: bool = True,
    progress: Progress = silent,
) -> list[Epoch]:
    """Train `model` in place on data.train; return one Epoch per pass over the data.

    Data order and augmentation depend on (recipe.seed, epoch) only, dropout on
    (recipe.seed, step). A later call with the same model, data, recipe, teacher,
    extension and `checkpoint` goes on from that file, on as many threads as the first,
    and any other call starts anew. Runs on whatever accelerate finds; under `accelerate
    launch` in every process, and `recipe.batch_size` is the batch of all together.

    Args:
        teacher: network whose logits are followed (recipe.distill_weight), put into
            eval mode; None for no distillation.
        extension: schedules and loss terms that a method adds.
        checkpoint: file for weights, momenta and progress, written after every epoch and
            whenever `checkpoint_seconds` have passed.
        log: CSV of the history, written after every epoch.
        validate: evaluate on data.heldout after every epoch.
        progress: called after every step.

    Raises:
        UsageError: nothing is trainable, or processes cannot share a batch evenly.
        BadInput: classes that do not match, an unreadable image, a damaged checkpoint.
        TrainingDiverged: the loss is not finite; the model has its last good weights.
    """
    extension = extension or Extension()
    identity = ""
    if checkpoint is not None:
        identity = _identity(model, data, recipe, teacher, extension)
    saved = _saved(checkpoint, identity)
    networks = (model, teacher) if teacher is not None else (model,)
    with (
        deterministic(saved[1]["threads"] if saved else None) as threads,
        torch.random.fork_rng(),
        fast_layout(*networks),
        _brought_back(teacher),
    ):
        notes = {"identity": identity, "threads": threads}
        keeping = _Keeping(checkpoint, checkpoint_seconds, notes)
        run = _Training(model, data, recipe, teacher, extension, keeping)
        if saved:
            run.restore(*saved)
        if run.step == run.total:
            extension.on_step(1.0)
        while run.step < run.total:
            run.epoch(progress, validate)
            if log is not None and run.accelerator.is_main_process:
                _write_log(log, run.history)
    return run.history


def _identity(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    teacher: nn.Module | None,
    extension: Extension,
) -> str:
    """Digest all that a training depends on; checkpoints of others are not resumed."""
    return digest(
        {
            "extension": extension.settings,
            "recipe": recipe.model_dump(),
            "data": data.digest,
            "model": state_digest(model),
            "teacher": state_digest(teacher) if teacher else "",
        }
    )


@contextmanager
def _brought_back(teacher: nn.Module | None) -> Iterator[None]:
    """Bring the caller's network back to the device where it was."""
    devices = {p.device for p in teacher.parameters()} if teacher is not None else set()
    try:
        yield
    finally:
        if teacher is not None and len(devices) == 1:
            teacher.to(devices.pop())


@dataclass(frozen=True)
class _Keeping:
    """The checkpoint's path, how often it is written, and the notes that go into it."""

    path: Path | None
    seconds: float
    notes: dict[str, Any]


class _Training:
    """The state of one `finetune`: what a checkpoint keeps, and what it is made from."""

    def __init__(
        self,
        model: nn.Module,
        data: Data,
        recipe: Recipe,
        teacher: nn.Module | None,
        extension: Extension,
        keeping: _Keeping,
    ) -> None:
        self.model, self.data, self.recipe = model, data, recipe
        self.extension, self.keeping = extension, keeping
        self.accelerator = Accelerator(
            dataloader_config=DataLoaderConfiguration(split_batches=True)
        )
        self.device = self.accelerator.device
        self.batches = Batches(
            data.train, recipe.batch_size, seed=recipe.seed, augment=recipe.augment
        )
        processes = self.accelerator.num_processes
        if self.batches.size % processes:
            raise UsageError(
                f"A batch of {self.batches.size} images cannot be shared evenly by "
                f"{processes} processes.",
                f"Choose a batch size that is a multiple of {processes}, and no larger "
                "than the training set.",
            )
        self.total = recipe.steps or recipe.epochs * len(self.batches)
        self.sgd = _optimizer(model, recipe)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=recipe.precision == "fp16"
        )
        self.teacher = teacher.eval().to(self.device) if teacher is not None else None
        self.runner, _, self.batches.loader = self.accelerator.prepare(
            model, self.sgd, self.batches.loader
        )
        if recipe.compile:
            self.runner = torch.compile(self.runner)
        self.history: list[Epoch] = []
        self.step = 0
        self.losses = torch.zeros((), device=self.device)
        self._keep()

    def epoch(self, progress: Progress, validate: bool) -> None:
        """Train from `self.step`, which may lie inside an epoch, to that epoch's end."""
        number = len(self.history)
        first = self.history[-1].steps if self.history else 0
        last = min(first + len(self.batches), self.total)
        self.runner.train()
        for images, labels in self.batches.epoch(number, skip=self.step - first):
            self._step(images, labels)
            if self.step % _CHECK_EVERY == 0 or self.step == last:
                self._require_finite()
            progress(self.step, self.total, f"epoch {number + 1}")
            if self.step == last:
                break
            if time.monotonic() - self.kept_at >= self.keeping.seconds:
                self._save()
        if self.step == self.total:
            self.extension.on_step(1.0)
        loss = self.accelerator.reduce(self.losses, "mean") / (last - first)
        found = evaluate(self.model, self.data.heldout) if validate else None
        accuracy, heldout_loss = (found.accuracy, found.loss) if found else (None, None)
        self.history.append(Epoch(number + 1, last, loss.item(), accuracy, heldout_loss))
        self.losses.zero_()
        self._save()
        self.accelerator.wait_for_everyone()

    def _step(self, images: Tensor, labels: Tensor) -> None:
        recipe = self.recipe
        torch.manual_seed(
            seed_of(recipe.seed, "step", self.step, self.accelerator.process_index)
        )
        for group in self.sgd.param_groups:
            group["lr"] = recipe.lr_at(self.step, self.total)
        self.extension.on_step(self.step / self.total)
        dtype = _DTYPES[recipe.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = self.runner(images)
            if self.step == 0:
                check_classes(logits, len(self.data.classes), exactly=True)
            loss = objective(images, labels, logits, recipe, self.teacher, self.extension)
        self.accelerator.backward(self.scaler.scale(loss))
        self.scaler.unscale_(self.sgd)
        if recipe.grad_clip is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), recipe.grad_clip)
        self.scaler.step(self.sgd)
        self.scaler.update()
        self.sgd.zero_grad()
        self.losses += loss.detach()
        self.step += 1

    def _require_finite(self) -> None:
        """Raise TrainingDiverged, with the last good weights put back, on NaN or inf."""
        good = isfinite(self.losses.item())
        if good and all(p.isfinite().all() for p in self.model.parameters()):
            return
        self.model.load_state_dict(self.good)
        path, kept = self.keeping.path, ""
        if path is not None and path.exists():
            kept = f"; {path} holds the last good weights"
        raise TrainingDiverged(
            f"The training loss is not finite in epoch {len(self.history) + 1}{kept}.",
            f"Lower the learning rate (now {self.recipe.lr:g}), warm up longer "
            f"(now {self.recipe.warmup:g}) or clip the gradient.",
        )

    def _keep(self) -> None:
        """Remember the present weights as the last good ones."""
        state = self.model.state_dict()
        self.good = {name: value.clone() for name, value in state.items()}
        self.kept_at = time.monotonic()

    def _save(self) -> None:
        """Keep the present weights, in the checkpoint too if there is one."""
        self._require_finite()
        self._keep()
        if self.keeping.path is None or not self.accelerator.is_main_process:
            return
        momentum = {
            name: self.sgd.state[parameter]["momentum_buffer"]
            for name, parameter in self.model.named_parameters()
            if self.sgd.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        notes = {
            **self.keeping.notes,
            "step": self.step,
            "scaler": self.scaler.state_dict(),
            "history": [asdict(line) for line in self.history],
        }
        groups = {
            "model": self.model.state_dict(),
            "momentum": momentum,
            "sums": {"losses": self.losses},
        }
        save_checkpoint(self.keeping.path, groups, notes)

    def restore(
        self, groups: dict[str, dict[str, Tensor]], notes: dict[str, Any]
    ) -> None:
        """Take over weights, momenta and progress from a checkpoint."""
        self.model.load_state_dict(groups["model"])
        parameters = dict(self.model.named_parameters())
        for name, value in groups.get("momentum", {}).items():
            buffer = torch.empty_like(parameters[name])
            state = self.sgd.state[parameters[name]]
            state["momentum_buffer"] = buffer.copy_(value)
        self.losses.copy_(groups["sums"]["losses"])
        self.scaler.load_state_dict(notes["scaler"])
        self.history = [Epoch(**line) for line in notes["history"]]
        self.step = notes["step"]
        self._keep()


def _write_log(path: Path, history: list[Epoch]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(field.name for field in fields(Epoch))
    writer.writerows(map(astuple, history))
    write_text(path, text.getvalue())


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """Make SGD that spares norms and biases from weight decay."""
    weights = [p for p in model.parameters() if p.requires_grad]
    if not weights:
        raise UsageError(
            f"No parameter of {type(model).__name__} is trainable.",
            "Call requires_grad_(True) on the network.",
        )
    return torch.optim.SGD(
        [
            {
                "params": [p for p in weights if p.dim() > 1],
                "weight_decay": recipe.weight_decay,
            },
            {"params": [p for p in weights if p.dim() <= 1], "weight_decay": 0.0},
        ],
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
    )


Saved = tuple[dict[str, dict[str, Tensor]], dict[str, Any]]


def _saved(checkpoint: Path | None, identity: str) -> Saved | None:
    """Load the checkpoint, if there is one and it is of the same training."""
    if checkpoint is None or not checkpoint.exists():
        return None
    groups, notes = load_checkpoint(checkpoint)
    return (groups, notes) if notes.get("identity") == identity else None

"""The training loop: batches, loss, pruning, saved states from which a killed run goes on, progress."""

import inspect
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional

import torch
from accelerate.utils import broadcast, broadcast_object_list, set_seed
from torch.nn import functional

from ..core import child, files
from ..core.errors import KitError
from ..core.progress import format_duration
from ..qa.cut import mask_padding
from .arguments import Arguments
from .errors import explain_writing
from .pruning import Schedule, Tensors, apply_pruned, block_weights, choose_pruned
from .questions import Batch, Order, Windows

_SAY_SECONDS = 5.0
_POINTS = 200  # of the curve: about so many

_NO_DECAY = ("bias", "LayerNorm.weight")


class Progress:
    """How far a training is, as accelerate saves it beside weights, optimizer and random numbers.

    :ivar curve: points: step, mean loss since the last, sparsity of the blocks, learning rate.
    :ivar scores: step, exact match and F1 of each evaluation on the way.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin another training."""
        self.step, self.loss, self.losses = 0, 0.0, 0
        self.seconds = 0.0
        self.curve: List[Dict[str, float]] = []
        self.scores: List[Dict[str, float]] = []
        self.pruned: Tensors = {}

    def state_dict(self) -> Dict[str, Any]:
        """Return all of it, for torch.save."""
        return {
            **vars(self),
            "loss": float(self.loss),
            "pruned": {n: one.cpu() for n, one in self.pruned.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved one."""
        vars(self).update(state)


@dataclass(frozen=True)
class Phase:
    """One training.

    :param name: what progress calls it.
    :param folder: where its states are saved.
    :param logits: the teacher's, of all windows, (2, windows, tokens); None: learn from the answers alone.
    :param teacher: a model on the accelerator's device, for its hidden states; None: without these.
    :param schedule: None: prune nothing.
    :param evaluate: is called every ``eval_steps`` steps with the model.
    """

    name: str
    folder: Path
    windows: Windows
    steps: int
    learning_rate: float
    logits: Any = None
    teacher: Any = None
    schedule: Optional[Schedule] = None
    evaluate: Optional[Callable[[Any], Dict[str, float]]] = None
    eval_steps: int = 0


class Trainer:
    """Trains models, one after the other, on accelerate's processes.

    :raises KitError: the batch does not divide into the processes' parts.
    """

    def __init__(self, accelerator: Any, args: Arguments, hyperparameters: Mapping[str, float]) -> None:
        self.accelerator, self.args, self.given = accelerator, args, hyperparameters
        self.progress = Progress()
        accelerator.register_for_checkpointing(self.progress)
        self.rounds = accelerator.gradient_accumulation_steps  # accelerate's config may say it, too
        self.parts = accelerator.num_processes * self.rounds
        self._scaler = accelerator.scaler and accelerator.scaler.state_dict()  # fp16's, as it begins
        if hyperparameters["batch_size"] % self.parts:
            raise KitError(
                f"{hyperparameters['batch_size']} windows do not divide into {self.parts} equal parts.",
                where=f"batch_size; {accelerator.num_processes} processes, {self.rounds} parts of each",
                hint="Change the batch size, the number of processes, or the parts of each.",
            )

    def say(self, text: str) -> None:
        """Report a step, once for all processes."""
        if self.accelerator.is_main_process:
            child.report_step(text)

    def decide(self, find: Callable[[], Any]) -> Any:
        """Return in each process what the main process finds; they wait for it.

        :raises KitError: in each process, what ``find`` raises.
        """
        found: List[Any] = [None]
        if self.accelerator.is_main_process:
            try:
                found = [find()]
            except KitError as error:
                if self.accelerator.num_processes == 1:
                    raise
                found = [KitError(**error.as_dict())]
        broadcast_object_list(found)
        if isinstance(found[0], KitError):
            raise found[0]
        return found[0]

    def train(self, model: Any, phase: Phase) -> None:
        """Train a model in place; from the last saved state, if there is one.

        :raises KitError: the loss is no longer a finite number, or a state cannot be saved.
        """
        accelerator, progress = self.accelerator, self.progress
        progress.reset()
        if self._scaler:
            accelerator.scaler.load_state_dict(self._scaler)
        set_seed(self.args.seed, device_specific=True)  # dropout is to differ between processes
        if self.args.gradient_checkpointing:
            _set_checkpointing(model, True)
        optimizer = torch.optim.AdamW(_group_parameters(model, self.given["weight_decay"]), lr=0.0)
        model.train()
        wrapped, optimizer = accelerator.prepare(model.to(accelerator.device), optimizer)
        model = accelerator.unwrap_model(wrapped)
        weights = block_weights(model)
        state = self.decide(lambda: max(phase.folder.glob("step-*"), default=None))
        if state is not None:
            accelerator.load_state(str(state))
            progress.pruned = {name: gone.to(accelerator.device) for name, gone in progress.pruned.items()}
            self.say(f"{phase.name}: going on at step {progress.step:,} of {phase.steps:,}")
        order = Order(phase.windows.lengths(), int(self.given["batch_size"]), self.args.seed)
        save_steps = self.args.save_steps or order.steps
        started, first, said = time.monotonic() - progress.seconds, progress.step, 0.0
        began = time.monotonic()
        while True:
            step = progress.step
            if step % save_steps == 0 and step > first:
                self._mean_loss(phase, weights)
                progress.seconds = time.monotonic() - started
                self._save(phase.folder)
            if phase.schedule is not None and phase.schedule.is_due(step):
                progress.pruned = self.choose(weights, phase.schedule.count(step))
                apply_pruned(weights, progress.pruned)
            if phase.evaluate and 0 < step < phase.steps and step % phase.eval_steps == 0:
                progress.scores.append({"step": step, **phase.evaluate(model)})
            if step >= phase.steps:
                break
            rate = self._rate(phase, step)
            loss = self._step(wrapped, optimizer, weights, phase, order, rate)
            progress.loss, progress.losses, progress.step = (
                progress.loss + loss,
                progress.losses + 1,
                step + 1,
            )
            self._note(phase, weights, rate)
            now = time.monotonic()
            if now - said >= _SAY_SECONDS and accelerator.is_main_process:
                said = now
                left = (now - began) / (progress.step - first) * (phase.steps - progress.step)
                child.report_step(
                    f"{phase.name}: step {progress.step:,} of {phase.steps:,}, loss {float(loss):.3f}, "
                    f"sparsity {_sparsity(weights, progress.pruned):.3f}, learning rate {rate:.1e}, "
                    f"{format_duration(left)} left"
                )
        progress.seconds = time.monotonic() - started
        if self.args.gradient_checkpointing:
            _set_checkpointing(model, False)
        model.zero_grad(set_to_none=True)
        del wrapped, optimizer
        accelerator.free_memory()

    def _rate(self, phase: Phase, step: int) -> float:
        """Return the learning rate: linear from 0 up, then linear down (Devlin et al. 2019)."""
        warm = int(phase.steps * self.given["warmup"])
        if step < warm:
            return phase.learning_rate * (step + 1) / warm
        final = self.given["final_learning_rate"]
        return phase.learning_rate * (1 - (1 - final) * (step - warm) / max(1, phase.steps - warm))

    def _step(
        self, model: Any, optimizer: Any, weights: Tensors, phase: Phase, order: Order, rate: float
    ) -> torch.Tensor:
        """Make one step and return the loss of this process's share, a mean over its windows."""
        accelerator, progress = self.accelerator, self.progress
        rows = order.rows(progress.step)
        for group in optimizer.param_groups:
            group["lr"] = rate
        total = torch.zeros((), dtype=torch.float64, device=accelerator.device)
        for part in range(self.rounds):
            mine = rows[part * accelerator.num_processes + accelerator.process_index :: self.parts]
            with accelerator.accumulate(model):
                loss = self._loss(model, phase, mine)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    apply_pruned(weights, progress.pruned)  # pruned weights' gradients are not to count
                    accelerator.clip_grad_norm_(model.parameters(), self.given["clip"])
                optimizer.step()
                optimizer.zero_grad()
            total += loss.detach().double() / self.rounds
        apply_pruned(weights, progress.pruned)
        return total

    def _loss(self, model: Any, phase: Phase, rows: Any) -> torch.Tensor:
        device = self.accelerator.device
        batch = phase.windows.batch(rows, device)
        labels = [batch.pop(f"{which}_positions") for which in ("start", "end")]
        mask = batch["attention_mask"]
        hardness = 0.0 if phase.logits is None else self.given["hardness"]
        output = model(**batch, output_hidden_states=phase.teacher is not None)
        logits = [mask_padding(one, mask) for one in (output.start_logits, output.end_logits)]
        loss = logits[0].new_zeros(())
        if hardness < 1:
            for own, label in zip(logits, labels):
                loss = loss + (1 - hardness) / 2 * functional.cross_entropy(own, label)
        if hardness:
            heat = self.given["temperature"]
            for own, of_all in zip(logits, phase.logits):
                other = torch.from_numpy(of_all[rows, : own.shape[1]]).to(device)
                far = functional.kl_div(
                    functional.log_softmax(own / heat, -1),
                    functional.softmax(mask_padding(other, mask) / heat, -1),
                    reduction="batchmean",
                )
                # Gradients shrink with the temperature's square (Hinton et al. 2015, section 2).
                loss = loss + hardness / 2 * heat**2 * far
        if phase.teacher is not None:
            with torch.no_grad(), self.accelerator.autocast():
                wanted = phase.teacher(**batch, output_hidden_states=True).hidden_states
            loss = loss + self.given["hidden_weight"] * _compare_hidden(output.hidden_states, wanted, batch)
        return loss

    def choose(self, weights: Tensors, count: int) -> Tensors:
        """Return what is pruned: the main process chooses, so that no rounding makes processes differ."""
        if self.accelerator.num_processes == 1:
            return choose_pruned(weights, count, self.args.threshold)
        if self.accelerator.is_main_process:
            chosen = choose_pruned(weights, count, self.args.threshold)
        else:
            chosen = {name: torch.empty_like(one, dtype=torch.bool) for name, one in weights.items()}
        return {name: broadcast(gone.byte()).bool() for name, gone in chosen.items()}

    def _mean_loss(self, phase: Phase, weights: Tensors) -> float:
        """Return the mean loss since the curve's last point, over all processes; 0 right after a point.

        :raises KitError: it, or a weight, is no finite number.
        """
        progress = self.progress
        loss = torch.as_tensor(progress.loss, dtype=torch.float64, device=self.accelerator.device)
        mean = float(self.accelerator.reduce(loss / max(1, progress.losses), reduction="mean"))
        if mean - mean != 0 or not all(bool(torch.isfinite(one).all()) for one in weights.values()):
            raise KitError(
                f"Loss or weights are not finite at step {progress.step:,}: the training has diverged.",
                where=f"{phase.name}: learning rate {self._rate(phase, progress.step - 1):g}",
                hint="Take a smaller learning rate or more warm-up, or bf16 in place of fp16.",
            )
        return mean

    def _note(self, phase: Phase, weights: Tensors, rate: float) -> None:
        """Add a point to the curve where one is due."""
        progress = self.progress
        if progress.step % max(1, phase.steps // _POINTS) and progress.step < phase.steps:
            return
        mean = self._mean_loss(phase, weights)
        sparsity = _sparsity(weights, progress.pruned)
        progress.curve.append(
            {"step": progress.step, "loss": mean, "sparsity": sparsity, "learning_rate": rate}
        )
        progress.loss, progress.losses = 0.0, 0

    def _save(self, folder: Path) -> None:
        """Save the state, whole or not at all, in place of the last."""
        accelerator, part = self.accelerator, folder / "part"
        if accelerator.is_main_process:
            shutil.rmtree(str(part), ignore_errors=True)
            part.mkdir(parents=True)
        accelerator.wait_for_everyone()
        with explain_writing(part):
            accelerator.save_state(str(part))
            accelerator.wait_for_everyone()
            if accelerator.is_main_process:
                files.flush_tree(part)
                part.rename(folder / f"step-{self.progress.step:09}")
                for old in sorted(folder.glob("step-*"))[:-1]:
                    shutil.rmtree(str(old))
        accelerator.wait_for_everyone()


def _sparsity(weights: Tensors, pruned: Tensors) -> float:
    """Return the pruned share of the block weights."""
    gone = sum(int(one.sum()) for one in pruned.values())
    return float(gone / sum(weight.numel() for weight in weights.values()))


def _group_parameters(model: Any, decay: float) -> List[Dict[str, Any]]:
    named = list(model.named_parameters())
    return [
        {"params": [one for name, one in named if not name.endswith(_NO_DECAY)], "weight_decay": decay},
        {"params": [one for name, one in named if name.endswith(_NO_DECAY)], "weight_decay": 0.0},
    ]


def _compare_hidden(own: Any, wanted: Any, batch: Batch) -> torch.Tensor:
    """Return the mean squared difference of hidden states, over layers, windows, tokens and dimensions."""
    mask = batch["attention_mask"].float()
    total = mask.new_zeros(())
    for one, other in zip(own, wanted):
        square = (one.float() - other.float()).pow(2).mean(-1)
        total = total + ((square * mask).sum(1) / mask.sum(1)).mean()
    return total / len(own)


def _set_checkpointing(model: Any, on: bool) -> None:
    """Have activations computed again in the backward pass, or kept; transformers 4.9 has a key for it."""
    if not hasattr(model, "gradient_checkpointing_enable"):
        model.config.gradient_checkpointing = on
    elif on:
        enable = model.gradient_checkpointing_enable
        options = {"gradient_checkpointing_kwargs": {"use_reentrant": False}}  # transformers 4.35 has it
        enable(**{name: one for name, one in options.items() if name in inspect.signature(enable).parameters})
    else:
        model.gradient_checkpointing_disable()

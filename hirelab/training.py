"""One training loop, short enough to read: Accelerate runs it anywhere, timm brings the parts.

    train      runs a recipe (see `recipes`), or goes on with one that was stopped
    history    the rows of a run, an epoch each
    load_run   the network that a finished run trained
    judge      accuracy of a network, by its name, its run or its file

**Randomness is a function of the seed and of a position, and of nothing else.** The order of an
epoch follows from (seed, epoch), the augmentation of a picture from (seed, epoch, place in that
order), mixup and drop path from (seed, step, process). So a run needs no state of a random
generator to go on after a stop, and the number of worker processes changes nothing.

**Batches are global.** A step takes `Recipe.batch` pictures over all processes together; process r
of n takes every n-th of them. The effective batch is kept on any number of processes, and with
synchronised BatchNorm so is the function that is trained.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import Mixup, create_transform
from timm.data.random_erasing import RandomErasing
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ._files import UserError, atomic, write_atomic
from ._names import unknown
from .datasets.cache import Squares, decoded
from .datasets.samples import IMAGENET_MEAN, IMAGENET_STD
from .datasets.subsets import open_pictures
from .evaluation import Evaluation, evaluate, normalised
from .recipes import Recipe
from .results import versions
from .sync_norm import synchronise

__all__ = ["Run", "history", "judge", "load_run", "train", "validation"]


# --- data --------------------------------------------------------------------------------------


def _seed(*position: int) -> int:
    """A number for `_at` from a position, such as (seed, epoch, place)."""
    return int(np.random.SeedSequence(position).generate_state(1)[0])


def _at(number: int) -> None:
    """Set every random generator that timm's parts draw from on the CPU."""
    random.seed(number)
    np.random.seed(number)
    # not torch.manual_seed, which also keeps a note for every kind of accelerator that is not in
    # use, with a stack trace: 0.7 ms, and memory that grows
    torch.default_generator.manual_seed(number)


class _Augmented(Dataset):
    """Augmented pictures by (epoch, place in the epoch's order, index of the picture)."""

    def __init__(self, squares: Squares, recipe: Recipe, seed: int) -> None:
        self.squares, self.recipe, self.seed = squares, recipe, seed
        self._transforms: dict[int, Any] = {}

    def _transform(self, size: int):
        if size not in self._transforms:
            self._transforms[size] = create_transform(
                size,
                is_training=True,
                use_prefetcher=True,  # bytes come out; the batch is normalised at once
                scale=(self.recipe.scale, 1.0),
                auto_augment=self.recipe.augment or None,
                color_jitter=self.recipe.color_jitter or None,
                interpolation="bicubic",
                mean=IMAGENET_MEAN,
                std=IMAGENET_STD,
            )
        return self._transforms[size]

    def __getitem__(self, where: tuple[int, int, int]) -> tuple[Tensor, int]:
        epoch, place, index = where
        _at(_seed(self.seed, epoch, place))
        picture = Image.fromarray(self.squares.pixels[index])
        return self._transform(self.recipe.size_at(epoch))(picture), int(self.squares.labels[index])

    def __len__(self) -> int:
        return len(self.squares)


class _Order:
    """Batches of `_Augmented`'s keys: an epoch's order, from a step on, one process's share."""

    def __init__(self, count: int, recipe: Recipe, seed: int, rank: int = 0, world: int = 1):
        self.count, self.recipe, self.seed, self.rank, self.world = count, recipe, seed, rank, world
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.count // self.recipe.batch

    def order(self) -> np.ndarray:
        """Indices of the epoch's pictures: as many as there are, each ``repeats`` times running."""
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(self.count)
        return np.repeat(shuffled, self.recipe.repeats)[: self.count]

    def batch(self, step: int) -> list[tuple[int, int, int]]:
        """The keys of one batch, of all processes."""
        start = step * self.recipe.batch
        chosen = self.order()[start : start + self.recipe.batch]
        return [(self.epoch, start + i, int(index)) for i, index in enumerate(chosen)]

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        order, size = self.order(), self.recipe.batch
        for step in range(self.first, len(self)):
            start = step * size
            places = range(start + self.rank, start + size, self.world)
            yield [(self.epoch, place, int(order[place])) for place in places]


def _together(items: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in items]), torch.tensor([y for _, y in items])


# --- judging ---------------------------------------------------------------------------------


def judge(
    network: str | Path, data: str | Path | None = None, size: int | None = None
) -> Evaluation:
    """`evaluate` a network by what it is called: what `hirelab evaluate` prints.

    Args:
        network: a shipped network's name, the folder of a finished run, or a checkpoint's file.
        data: a data set; default that which the network was trained on (needed for a file).
        size: pixels a side; default the network's own, 224 for a file.

    Raises:
        UserError: no such network, no such data, other classes than the network has.
    """
    from .models import create, load
    from .models.weights import manifest, shipped

    network = str(network)
    if network in shipped():
        facts = manifest(network)
        net = create(network, pretrained=True)
    elif Path(network).is_dir():
        net, facts = load_run(network)
    elif Path(network).is_file():
        try:
            net, facts = load(network), None
        except ValueError as error:
            raise UserError(str(error)) from error
        if data is None:
            raise UserError(f"{network} does not say what it was trained on: give --data")
    else:
        cure = "Give a shipped network's name, the folder of a run or a file of weights."
        raise UserError(unknown("network", network, shipped(), cure))
    if facts is None:
        size, crop = size or 224, Recipe.crop
        squares = decoded(open_pictures(data, "val"), round(size / crop))
    else:
        recipe = Recipe(**facts["asked"]["recipe"])
        size = size or recipe.size
        squares = validation(facts, data, round(size / recipe.crop))
    classes = len(squares.pictures.classes)
    if net.num_classes != classes:
        raise UserError(f"the network has {net.num_classes} classes and the pictures {classes}")
    return evaluate(net, squares, size)


# --- training ----------------------------------------------------------------------------------


@dataclass
class _State:
    """What a checkpoint holds besides tensors. ``step`` counts the steps taken, over all epochs."""

    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """Where a run stands after `train`: its folder, the history's rows, and whether it is done."""

    out: Path
    history: list[dict[str, float]]
    done: bool


def train(
    model: str,
    data: str | Path,
    recipe: Recipe,
    out: str | Path,
    *,
    model_arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    workers: int = 0,
    part: int = 0,
    save_minutes: float = 5.0,
    stop_after: int = 0,
    tensorboard: bool = False,
    command: str = "",
) -> Run:
    """Train ``model`` (any of timm's, ours among them) on ``data``, into the folder ``out``.

    Called again with the same arguments it goes on from the last checkpoint, and on CPU ends with
    the same weights, bit for bit, as a run that was never stopped. ``out`` holds

        run.json           what was asked for, on what machine and versions
        history.jsonl      a row an epoch: loss, accuracy, learning rate, pictures a second
        checkpoint.pt      to go on from; written after each epoch and every ``save_minutes``
        model.safetensors  at the end: the weights (averaged ones, where the recipe averages)
        evaluation.npz     at the end: an `Evaluation` of them

    Args:
        model: a network's name; ``model_arguments`` go to it besides classes and drop path.
        data: see `datasets.subsets.open_pictures`; it has the splits train and val.
        workers: processes that load pictures; on a CPU, 0 is fastest.
        part: pictures a process computes at once; a share that is larger is taken in parts, whose
            gradients are added up. 0: the whole share. BatchNorm sees one part at a time.
        stop_after: stop, with a checkpoint, after so many steps of this call; 0 for never.
        tensorboard: also write the history for TensorBoard, into ``out``.
        command: written into run.json.

    Raises:
        UserError: what the user can put right: data, a folder that holds another run, a batch that
            does not divide over the processes, a loss that is not finite, a full disk.
    """
    out = Path(out)
    # one graph a size: shapes that vary make slower code, and there are three sizes at most
    compiler = TorchDynamoPlugin(backend="inductor" if recipe.compile else "no", dynamic=False)
    accelerator = Accelerator(mixed_precision=recipe.precision, dynamo_plugin=compiler)
    rank, world = accelerator.process_index, accelerator.num_processes
    if recipe.batch % world:
        raise UserError(
            f"a batch of {recipe.batch} does not divide over {world} processes: choose a multiple"
        )
    with accelerator.main_process_first():  # which decodes, while the others wait and then read
        train_set, val_set = _open(data, recipe, accelerator.is_main_process)
    steps = len(train_set) // recipe.batch
    if not steps:
        raise UserError(
            f"{len(train_set)} training pictures do not fill a batch of {recipe.batch}: lower it"
        )
    asked = {
        "model": model,
        "model_arguments": dict(model_arguments or {}),
        "seed": seed,
        "recipe": dataclasses.asdict(recipe),
        "classes": list(train_set.pictures.classes),
        "data": {"train": train_set.pictures.fingerprint, "val": val_set.pictures.fingerprint},
        "pictures": {"train": len(train_set), "val": len(val_set)},
        "skipped": {**train_set.skipped, **val_set.skipped},
    }
    resuming = (
        _claim(out, asked, str(data), command, world) if accelerator.is_main_process else False
    )
    accelerator.wait_for_everyone()

    _at(_seed(seed))
    net = _build(model, len(train_set.pictures.classes), recipe, model_arguments or {})
    if world > 1:
        net = synchronise(net, accelerator.device)
    optimizer = create_optimizer_v2(
        net, "adamw", lr=recipe.lr, weight_decay=recipe.weight_decay, eps=1e-8, foreach=True
    )
    schedule, _ = create_scheduler_v2(
        optimizer,
        "cosine",
        num_epochs=recipe.epochs,
        warmup_epochs=recipe.warmup_epochs,
        cooldown_epochs=recipe.cooldown_epochs,
        min_lr=recipe.min_lr,
        warmup_lr=recipe.warmup_lr,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    net = net.to(accelerator.device)
    average = ModelEmaV3(net, decay=recipe.ema, use_warmup=True) if recipe.ema else None
    prepared, prepared_optimizer = accelerator.prepare(net, optimizer)
    mix = Mixup(
        recipe.mixup,
        recipe.cutmix,
        prob=recipe.mix_probability if recipe.mixup or recipe.cutmix else 0.0,
        label_smoothing=recipe.smoothing,
        num_classes=len(train_set.pictures.classes),
    )
    erase = RandomErasing(recipe.erase, mode="pixel", device=accelerator.device)
    criterion = SoftTargetCrossEntropy()

    tensors = {"model": net, "optimizer": prepared_optimizer}
    if average:
        tensors["average"] = average.module
    if accelerator.scaler is not None:
        tensors["scaler"] = accelerator.scaler
    checkpoint = out / "checkpoint.pt"
    state = _restore(checkpoint, tensors) if checkpoint.exists() else _State()
    if state.step and accelerator.is_main_process:
        print(f"going on after step {state.step:,} of {steps * recipe.total_epochs:,}", flush=True)
    elif resuming:
        print("no checkpoint was reached before the stop: starting again", flush=True)

    def save() -> None:
        if accelerator.is_main_process:
            _save(checkpoint, tensors, state)
            rows = "".join(json.dumps(row) + "\n" for row in state.history)
            write_atomic(out / "history.jsonl", rows)

    order = _Order(len(train_set), recipe, seed, rank, world)
    loader = DataLoader(
        _Augmented(train_set, recipe, seed),
        batch_sampler=order,
        num_workers=workers,
        collate_fn=_together,
        pin_memory=accelerator.device.type == "cuda",
    )
    taken, saved = 0, time.monotonic()
    with _polite_stop() as stopped:
        for epoch in range(state.step // steps, recipe.total_epochs):
            order.epoch, order.first = epoch, state.step % steps
            bar = tqdm(
                loader,
                f"epoch {epoch + 1}/{recipe.total_epochs}",
                initial=order.first,
                total=steps,
                disable=None if accelerator.is_main_process else True,
                leave=False,
            )
            net.train()
            clock = time.monotonic()
            for x, y in bar:
                _at(number := _seed(seed, state.step, rank))
                if torch.cuda.is_available():
                    torch.cuda.manual_seed(number)
                x = erase(normalised(x.to(accelerator.device, non_blocking=True)))
                x, y = mix(x, y.to(accelerator.device))
                schedule.step_update(state.step)
                loss = _gradients(accelerator, prepared, criterion, x, y, part)
                # Read at every step: a step on NaN would poison the weights that are still good.
                if not math.isfinite(loss):
                    raise UserError(_not_finite(loss, state.step, epoch, order, train_set, recipe))
                prepared_optimizer.step()
                prepared_optimizer.zero_grad(set_to_none=True)
                state.step += 1
                if average:
                    average.update(net, state.step)
                state.loss_sum, state.loss_count = state.loss_sum + loss, state.loss_count + 1
                now = time.monotonic()
                state.seconds, clock = state.seconds + now - clock, now
                taken += 1
                bar.set_postfix_str(
                    f"loss {state.loss_sum / state.loss_count:.3f}, "
                    f"{recipe.batch * state.loss_count / state.seconds:.0f} pictures/s"
                )
                last = state.step % steps == 0
                if not last and now - saved > 60 * save_minutes:
                    save()
                    saved = time.monotonic()
                if not last and (stopped() or taken == stop_after):
                    save()
                    return Run(out, state.history, done=False)
            row = {
                "epoch": epoch + 1,
                "step": state.step,
                "size": recipe.size_at(epoch),
                "lr": optimizer.param_groups[0]["lr"],
                "loss": state.loss_sum / state.loss_count,
                "pictures_per_second": recipe.batch * state.loss_count / state.seconds,
                "seconds": state.seconds,
            }
            final = epoch + 1 == recipe.total_epochs
            if final or (epoch + 1) % recipe.evaluate_every == 0:
                judged = evaluate(average.module if average else net, val_set, recipe.size)
                row |= {"val_loss": judged.loss, "val_top1": judged.top(1)}
            state.history.append(row)
            state.loss_sum, state.loss_count, state.seconds = 0.0, 0, 0.0
            save()
            saved = time.monotonic()
            if accelerator.is_main_process:
                _say(row, recipe)
                if tensorboard:
                    _tensorboard(out, row)
            if not final and (stopped() or (stop_after and taken >= stop_after)):
                return Run(out, state.history, done=False)
    if accelerator.is_main_process:
        final_net = average.module if average else net
        with atomic(out / "model.safetensors") as temporary:
            # contiguous, since safetensors keeps no strides
            values = {k: v.cpu().contiguous() for k, v in final_net.state_dict().items()}
            save_file(values, temporary)
        result = evaluate(final_net, val_set, recipe.size)
        result.save(out / "evaluation.npz")
        print(result, flush=True)
    accelerator.wait_for_everyone()
    return Run(out, state.history, done=True)


def load_run(out: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """The trained network of a finished run, in evaluation mode, and what run.json says.

    Raises:
        UserError: ``out`` holds no run, or one that has not come to its end.
    """
    out = Path(out)
    if not (out / "run.json").exists():
        raise UserError(f"{out} has no run.json: it is no folder of `hirelab train`")
    facts = json.loads((out / "run.json").read_text())
    if not (out / "model.safetensors").exists():
        raise UserError(f"{out} is not finished: run its command again ({facts['command']})")
    asked = facts["asked"]
    recipe = Recipe(**asked["recipe"])
    net = _build(asked["model"], len(asked["classes"]), recipe, asked["model_arguments"])
    net.load_state_dict(load_file(out / "model.safetensors"))
    return net.eval(), facts


def validation(
    facts: Mapping[str, Any], data: str | Path | None = None, stored: int | None = None
) -> Squares:
    """The validation pictures of a run, or others of the same classes, as squares.

    ``stored`` pixels a side, by default those of the run's recipe.

    Raises:
        UserError: the pictures are not those of the run (without ``data``), or of other classes.
    """
    asked = facts["asked"]
    pictures = open_pictures(data or facts["source"], "val", asked["classes"])
    if data is None and pictures.fingerprint != asked["data"]["val"]:
        raise UserError(f"{facts['source']} has other validation pictures than the run had")
    return decoded(pictures, stored or Recipe(**asked["recipe"]).stored_size)


def history(out: str | Path) -> list[dict[str, float]]:
    """The rows of a run's history, an epoch each."""
    path = Path(out) / "history.jsonl"
    if not path.exists():
        raise UserError(f"{out} has no history.jsonl: it is no run, or none that ended an epoch")
    return [json.loads(line) for line in path.read_text().splitlines()]


def _open(data: str | Path, recipe: Recipe, main: bool) -> tuple[Squares, Squares]:
    train_pictures = open_pictures(data, "train")
    val_pictures = open_pictures(data, "val", train_pictures.classes)
    pair = [
        decoded(one, recipe.stored_size, progress=main) for one in (train_pictures, val_pictures)
    ]
    for squares in pair:
        if main and squares.skipped:
            print(f"warning: {squares.report()}", file=sys.stderr, flush=True)
    return pair[0], pair[1]


def _build(name: str, classes: int, recipe: Recipe, arguments: Mapping[str, Any]) -> nn.Module:
    import hirelab.models  # noqa: F401  (registers the networks with timm)

    if not timm.is_model(name):
        raise UserError(unknown("network", name, timm.list_models(), "See timm.list_models()."))
    try:
        return timm.create_model(
            name, num_classes=classes, drop_path_rate=recipe.drop_path, **arguments
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{name} with {dict(arguments)}: {error}") from error


def _gradients(
    accelerator: Accelerator,
    model: nn.Module,
    criterion: nn.Module,
    x: Tensor,
    y: Tensor,
    part: int,
) -> float:
    """Backward through the batch, in parts where asked; the mean loss of this process's share."""
    part = part or len(x)
    total = 0.0
    starts = range(0, len(x), part)
    for start in starts:
        piece = x[start : start + part]
        # gradients meet the other processes' once, with the last part
        if start == starts[-1]:
            loss = criterion(model(piece), y[start : start + part]) * (len(piece) / len(x))
            accelerator.backward(loss)
        else:
            with accelerator.no_sync(model):
                loss = criterion(model(piece), y[start : start + part]) * (len(piece) / len(x))
                accelerator.backward(loss)
        total += loss.detach()
    return float(accelerator.reduce(torch.as_tensor(total, device=x.device), "mean"))


def _not_finite(
    loss: float, step: int, epoch: int, order: _Order, squares: Squares, recipe: Recipe
) -> str:
    keys = order.batch(step % len(order))
    names = [squares.pictures.names[squares.kept[index]] for _, _, index in keys]
    return (
        f"the loss became {loss} at step {step + 1:,} (epoch {epoch + 1}), on the batch of "
        f"{names[0]}, {names[1]} and {len(names) - 2} more; the last checkpoint is from before. "
        f"Lower lr ({recipe.lr:g}) or raise warmup_epochs ({recipe.warmup_epochs}), with another "
        f"--out; in half precision, try precision=no"
    )


def _claim(out: Path, asked: dict[str, Any], source: str, command: str, world: int) -> bool:
    """Write run.json, or check that it asks for the same; whether there was one."""
    path = out / "run.json"
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in the file
    if path.exists():
        before = json.loads(path.read_text())["asked"]
        if before != asked:
            raise UserError(
                f"{out} holds another run ({_changed(before, asked)}): choose another --out, or "
                f"remove it to start over"
            )
        return True
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out} holds files of something else: choose another --out")
    facts = {
        "asked": asked,
        "source": source,
        "command": command,
        "started": time.strftime("%Y-%m-%d"),
        "processes": world,
        "versions": versions(),
        "hardware": hardware(),
    }
    write_atomic(path, json.dumps(facts, indent=1) + "\n")
    return False


def _changed(before: dict[str, Any], now: dict[str, Any]) -> str:
    flat = [{**one, **one["recipe"]} for one in (before, now)]
    keys = [k for k in flat[1] if k != "recipe" and flat[0].get(k) != flat[1][k]]
    shown = [f"{k} {flat[0].get(k)!r}, not {flat[1][k]!r}" for k in keys[:3]]
    return "; ".join(text if len(text) < 120 else text[:117] + "..." for text in shown)


def hardware() -> str:
    """The processor and the accelerator that torch runs on here, and how many threads."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(one.split(":")[1].strip() for one in lines if one.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpus = torch.cuda.device_count()
    extra = f", {gpus} x {torch.cuda.get_device_name()}" if gpus else ""
    return f"{name}, {torch.get_num_threads()} threads{extra}"


def _save(path: Path, tensors: Mapping[str, Any], state: _State) -> None:
    """Write a checkpoint; the one before stays until this one is whole."""
    content = {name: part.state_dict() for name, part in tensors.items()}
    try:
        with atomic(path) as temporary:
            torch.save({**content, "state": dataclasses.asdict(state)}, temporary)
    # torch reports a full disk as a RuntimeError of its writer
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"the checkpoint of step {state.step:,} could not be written to {path.parent} "
            f"({error}); the one before is still there: make room, and run the same command again"
        ) from error


def _restore(path: Path, tensors: Mapping[str, Any]) -> _State:
    content = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in tensors.items():
        part.load_state_dict(content[name])
    return _State(**content["state"])


@contextmanager
def _polite_stop() -> Iterator:
    """While it lasts, the first Ctrl-C or SIGTERM only asks; what it gives says whether one did."""
    asked = []

    def ask(number: int, frame: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        print("\nstopping after this step, with a checkpoint ...", file=sys.stderr, flush=True)

    try:
        before = {n: signal.signal(n, ask) for n in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not in the main thread: signals are somebody else's
        yield lambda: False
        return
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _say(row: Mapping[str, float], recipe: Recipe) -> None:
    left = (recipe.total_epochs - row["epoch"]) * row["seconds"] / 60
    judged = f", top-1 {row['val_top1']:.2f} %" if "val_top1" in row else ""
    print(
        f"epoch {row['epoch']}/{recipe.total_epochs}: loss {row['loss']:.3f}{judged}, "
        f"{row['pictures_per_second']:.0f} pictures/s at {row['size']} px, "
        f"about {left:.0f} min left",
        flush=True,
    )


def _tensorboard(out: Path, row: Mapping[str, float]) -> None:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError("--tensorboard needs it: pip install tensorboard") from error
    with SummaryWriter(str(out / "tensorboard")) as writer:
        for name, value in row.items():
            if name not in ("epoch", "step"):
                writer.add_scalar(name, value, row["step"])

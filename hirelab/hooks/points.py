"""Named points of a network: list them, read them, edit them.

A network passes every intermediate that a reader may ask for through a `Probe`, an identity
module without parameters. Its dotted path is the point's public name:

    stages.2.blocks.1.hire.height.regions

and where a module has a probe called ``out``, the module's own path names its result, so
``stages.2.blocks.1.hire.gate`` means ``stages.2.blocks.1.hire.gate.out``.

Reading and editing are ordinary PyTorch forward hooks on the probes. Every context removes its
own hooks and only these, also after an exception, so contexts nest in any order; with no context
open a probe returns its argument and nothing else happens.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError, unknown
from ..rearrange import AXES, Rearrangement, unpartition, unshift

KINDS = ("token grid", "region grid", "gate", "vector")
Edit = Callable[[Tensor, "Point"], Tensor]


class Probe(nn.Module):
    """An identity with a name. ``kind`` says what the tensor is; one of `KINDS`.

    - "token grid": (B, C, H, W), a token a position;
    - "region grid": (B, C*region, regions, W) or (B, C*region, H, regions), a region a position;
    - "gate": (B, C, branches), weights that sum to 1 over the branches;
    - "vector": (B, C).
    """

    def __init__(self, kind: str = "token grid") -> None:
        super().__init__()
        if kind not in KINDS:
            raise HirelabError(f"kind is {kind!r}; choose one of {', '.join(KINDS)}.")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        return x

    def extra_repr(self) -> str:
        return self.kind


@dataclass(frozen=True)
class Point:
    """What is known about a point: its kind, and how its tensor lies on the image.

    Attributes:
        name: dotted path of the probe.
        kind: one of `KINDS`.
        shape: of the tensor, batch first.
        axis: "height" or "width" inside a branch that rearranges this axis, else None.
        rearrangement: the index map in force on that axis, else None.
        shifted: whether the tensor is in shifted order, so that position is not place.
        branches: for a gate, the branch of every column.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    axis: str | None = None
    rearrangement: Rearrangement | None = None
    shifted: bool = False
    branches: tuple[str, ...] = ()

    def tokens(self, value: Tensor) -> Tensor:
        """The point's tensor carried back to a token grid in image order, (B, C, H, W).

        A region grid is ungrouped, cropped and shifted back; its channels are the mixed ones.

        Raises:
            HirelabError: for gates and vectors, which have no place on the image.
        """
        if self.kind not in ("token grid", "region grid"):
            raise HirelabError(
                f"{self.name} is a {self.kind} of shape {tuple(value.shape)}; only token grids and "
                "region grids have a place on the image."
            )
        if not self.shifted:
            return value
        assert self.rearrangement is not None
        assert self.axis is not None
        r, dim = self.rearrangement, AXES[self.axis]
        if self.kind == "region grid":
            value = unpartition(value, dim, r.region, r.size)
        return unshift(value, dim, r.region, r.shift, r.cross_region)


class Table(list[Point]):
    """A list of points that prints as a table."""

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """(name, kind, shape, region, shift) of every point, as text."""
        rows = []
        for point in self:
            r = point.rearrangement
            shape = " x ".join(map(str, point.shape))
            rows.append(
                (
                    point.name,
                    point.kind,
                    shape,
                    str(r.region) if r else "",
                    str(r.shift) if r else "",
                )
            )
        return rows

    def __repr__(self) -> str:
        rows = [("name", "kind", "shape", "region", "shift"), *self.rows()]
        widths = [max(len(row[i]) for row in rows) for i in range(5)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )


class UnknownPoint(KeyError):
    """No point of that name; the message names near matches."""

    def __str__(self) -> str:  # KeyError would show the sentence in quotes
        return str(self.args[0])


class Cache(Mapping[str, Tensor]):
    """The tensors of the points that were asked for, by name, in the order of the forward pass."""

    def __init__(self, values: dict[str, Tensor], points: dict[str, Point]) -> None:
        self._values = values
        self._points = points

    def _name(self, name: str) -> str:
        if name in self._values:
            return name
        if f"{name}.out" in self._values:
            return f"{name}.out"
        raise UnknownPoint(
            unknown("cached point", name, self._values, f"The cache holds {len(self)} points.")
        )

    def __getitem__(self, name: str) -> Tensor:
        return self._values[self._name(name)]

    def __contains__(self, name: object) -> bool:
        return name in self._values or f"{name}.out" in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self.points())

    def point(self, name: str) -> Point:
        """What is known about a cached point."""
        return self._points[self._name(name)]

    def points(self) -> Table:
        """The table of the cached points."""
        return Table(self._points[name] for name in self)

    def tokens(self, name: str) -> Tensor:
        """A cached grid carried back to image order, see `Point.tokens`."""
        return self.point(name).tokens(self[name])


@dataclass(frozen=True)
class Attachment:
    """A hook that listens at a point now."""

    point: str
    label: str

    def __repr__(self) -> str:
        return f"{self.point}: {self.label}"


@dataclass(frozen=True)
class _Hook:
    """A forward hook that can say what it is."""

    label: str
    act: Callable[[nn.Module, Tensor], Tensor | None]

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return self.act(module, output)


class _Stop(Exception):
    """Raised by the hook of the last wanted point, to end the forward pass."""


def probes(model: nn.Module) -> dict[str, Probe]:
    """Every probe of a network by its dotted path, in the order of definition."""
    return {name: m for name, m in model.named_modules() if isinstance(m, Probe)}


def match(model: nn.Module, patterns: str | Iterable[str] = "*") -> list[str]:
    """The names of the points that any of the patterns means.

    A pattern is a name or the path of a module with a probe ``out``; both may have wildcards as in
    file names (``*`` also spans dots).

    Raises:
        UnknownPoint: when a pattern means nothing; the message suggests near names.
    """
    known = probes(model)
    if not known:
        raise UnknownPoint(
            f"{type(model).__name__} has no named points; use a network of hirelab, or put "
            "hirelab.hooks.points.Probe modules into yours."
        )
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    wanted: set[str] = set()
    for pattern in patterns:
        meanings = (pattern, f"{pattern}.out")
        found = [n for n in known if any(fnmatchcase(n, meaning) for meaning in meanings)]
        if not found:
            cure = "model.points() lists them all."
            raise UnknownPoint(unknown("point", pattern, known, cure))
        wanted.update(found)
    return [name for name in known if name in wanted]


def _describe(model: nn.Module, name: str, shapes: Mapping[str, tuple[int, ...]]) -> Point:
    """Join what the probe and the module around it say with the shapes that were seen."""
    parent_name, _, leaf = name.rpartition(".")
    parent, kind = model.get_submodule(parent_name), model.get_submodule(name).kind
    axis = getattr(parent, "axis", None)
    if axis is None:
        branches = tuple(getattr(parent, "branches", ())) if kind == "gate" else ()
        return Point(name, kind, shapes[name], branches=branches)
    # `shifted` is the one point of a branch that shows the line before it is padded
    size = shapes[f"{parent_name}.shifted"][AXES[axis]]
    return Point(name, kind, shapes[name], axis, parent.rearrangement(size), shifted=leaf != "out")


@contextmanager
def _hooks(model: nn.Module, hooks: Mapping[str, _Hook]) -> Iterator[None]:
    with ExitStack() as stack:
        known = probes(model)
        for name, hook in hooks.items():
            handle = known[name].register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


def run_with_cache(
    model: nn.Module,
    x: Tensor,
    points: str | Iterable[str] = "*",
    *,
    grad: bool = False,
    stop_early: bool = False,
) -> tuple[Tensor | None, Cache]:
    """Run the network and keep the tensors of the wanted points.

    Args:
        x: the network's input, (B, C, H, W), finite.
        points: a pattern or several, see `match`.
        grad: keep the tensors in the autograd graph. Otherwise the pass builds no graph at all.
        stop_early: end the pass after the last wanted point; the logits are then None.

    Returns:
        The network's output and the cache. Tensors are not copied.

    Raises:
        UnknownPoint: for a pattern that means nothing.
        HirelabError: for an input that is not finite.
    """
    wanted = match(model, points)
    if not torch.isfinite(x).all():
        raise HirelabError(
            f"The input of shape {tuple(x.shape)} holds NaN or infinite values, which would spread "
            "over every point; clean it first (torch.nan_to_num)."
        )
    values: dict[str, Tensor] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    left = set(wanted)

    def read(name: str) -> _Hook:
        def act(module: nn.Module, output: Tensor) -> None:
            shapes[name] = tuple(output.shape)
            if name not in left:
                return
            values[name] = output if grad else output.detach()
            left.discard(name)
            if stop_early and not left:
                raise _Stop

        return _Hook("cache", act)

    # Branch points need the size of the unpadded line, which their sibling `shifted` shows.
    siblings = {f"{n.rpartition('.')[0]}.shifted" for n in wanted} & probes(model).keys()
    logits = None
    hooks = {n: read(n) for n in {*wanted, *siblings}}
    with _hooks(model, hooks), torch.set_grad_enabled(grad), suppress(_Stop):
        logits = model(x)
    described = {name: _describe(model, name, shapes) for name in values}
    return logits, Cache(values, described)


@contextmanager
def edits(model: nn.Module, changes: Mapping[str, Edit]) -> Iterator[None]:
    """Edit points while the block runs: ``{pattern: edit}``, see `hirelab.edit` for ready ones.

    An edit is called as ``edit(value, point)`` with a copy of the tensor and returns the tensor to
    go on with, of the same shape and type. When several patterns mean one point, they act in the
    order given. The edits end with the block, error or not.

    Raises:
        UnknownPoint, TypeError: before anything is attached, for a pattern that means nothing and
            for an edit that cannot be called.
        TypeError, ValueError: during the pass, when an edit returns something else than a tensor
            of the same shape, dtype and device; the message names the point.
    """
    # A branch's points need the shape that `shifted` has in this very pass: look, then act.
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str) -> _Hook:
        return _Hook("shape", lambda module, output: shapes.update({name: tuple(output.shape)}))

    def change(name: str, edit: Edit) -> _Hook:
        def act(module: nn.Module, output: Tensor) -> Tensor:
            shapes[name] = tuple(output.shape)
            result = edit(output.clone(), _describe(model, name, shapes))
            _check_edit(name, output, result)
            return result

        return _Hook(f"edit {edit!r}" if isinstance(edit, Named) else "edit", act)

    for pattern, edit in changes.items():
        if isinstance(edit, type) or not callable(edit):
            raise TypeError(
                f"The edit for {pattern!r} is {edit!r}; give a function of (value, point), or a "
                "ready one such as hirelab.edit.zero(), with its brackets."
            )
    planned = [(name, edit) for pattern, edit in changes.items() for name in match(model, pattern)]
    siblings = {f"{n.rpartition('.')[0]}.shifted" for n, _ in planned} & probes(model).keys()
    with ExitStack() as stack:
        stack.enter_context(_hooks(model, {name: look(name) for name in sorted(siblings)}))
        for name, edit in planned:
            stack.enter_context(_hooks(model, {name: change(name, edit)}))
        yield


def _check_edit(name: str, before: Tensor, after: object) -> None:
    if not isinstance(after, Tensor):
        raise TypeError(
            f"The edit at {name} returned {type(after).__name__}; return the edited tensor."
        )
    for what in ("shape", "dtype", "device"):
        old, new = getattr(before, what), getattr(after, what)
        if old != new:
            show = tuple if what == "shape" else str
            raise HirelabError(
                f"The edit at {name} returned {what} {show(new)}; the network goes on only with "
                f"{show(old)}."
            )


class Named:
    """An edit that can say what it does; base of the ready edits in `hirelab.edit`."""


def attached(model: nn.Module) -> list[Attachment]:
    """Everything that listens at the network's points now, also hooks of other libraries."""
    return [
        Attachment(name, hook.label if isinstance(hook, _Hook) else type(hook).__name__)
        for name, probe in probes(model).items()
        for kind in ("forward_pre", "forward", "backward_pre", "backward")
        for hook in getattr(probe, f"_{kind}_hooks").values()
    ]


def points(
    model: nn.Module, patterns: str | Iterable[str] = "*", input_size: Sequence[int] = (3, 224, 224)
) -> Table:
    """The table of the points that the patterns mean: name, kind, shape, region, shift.

    The shapes are measured for one input of ``input_size`` (C, H, W), on tensors without data
    (PyTorch's meta device), so that the table costs no arithmetic and changes nothing.
    """
    wanted = match(model, patterns)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    blank = {name: torch.empty_like(t, device="meta") for name, t in state.items()}
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    x = torch.empty((1, *input_size), device="meta", dtype=dtype)
    shapes: dict[str, tuple[int, ...]] = {}

    def look(name: str) -> _Hook:
        return _Hook("shape", lambda module, output: shapes.update({name: tuple(output.shape)}))

    # Whatever else listens at the points, say an edit, is for tensors with data.
    listening = {probe: probe._forward_hooks for probe in probes(model).values()}
    training = {m: m.training for m in model.modules()}
    try:
        for probe in listening:
            probe._forward_hooks = OrderedDict()
        model.eval()  # one image of a training batch may be too few for a BatchNorm
        with _hooks(model, {n: look(n) for n in probes(model)}), torch.no_grad():
            torch.func.functional_call(model, blank, (x,))
    finally:
        for module, flag in training.items():
            module.training = flag
        for probe, hooks in listening.items():
            probe._forward_hooks = hooks
    return Table(_describe(model, name, shapes) for name in wanted)


class Probed:
    """Mix-in: the functions of this file as methods of a network."""

    def points(
        self, patterns: str | Iterable[str] = "*", input_size: Sequence[int] | None = None
    ) -> Table:
        """The table of named points, see `hirelab.hooks.points.points`; 224 x 224 unless told."""
        input_size = input_size or (self.in_chans, 224, 224)
        return points(self, patterns, input_size)

    def run_with_cache(
        self,
        x: Tensor,
        points: str | Iterable[str] = "*",
        *,
        grad: bool = False,
        stop_early: bool = False,
    ) -> tuple[Tensor | None, Cache]:
        """Run and keep the tensors of the wanted points, see `run_with_cache` of this module."""
        return run_with_cache(self, x, points, grad=grad, stop_early=stop_early)

    def edits(self, changes: Mapping[str, Edit]):
        """Edit points while a block runs, see `hirelab.hooks.points.edits`."""
        return edits(self, changes)

    def attached(self) -> list[Attachment]:
        """Everything that listens at the network's points now."""
        return attached(self)

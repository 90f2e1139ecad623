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
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from inspect import signature
from threading import get_ident
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.errors import HirelabError, unknown
from .._shared.tables import Records, table
from ..rearrange import AXES, Rearrangement, partition, shift, unpartition, unshift
from .forward import check_finite, eval_mode

KINDS = ("token grid", "region grid", "gate", "vector")
COLUMNS = ("name", "kind", "shape", "region", "shift")
EditFunction = Callable[[Tensor, "Point"], Tensor]


class Probe(nn.Module):
    """An identity with a name, where the network can be read and edited.

    TransformerLens calls it HookPoint; in other places a probe is a classifier on activations.
    ``kind`` says what the tensor is, one of `KINDS`:

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
        rearrangement: the current index map on that axis, else None.
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

    def back(self, grid: Tensor) -> Tensor:
        """The inverse of `tokens`: the point's tensor again, for all that the network reads of it.

        After the mixing a padded slot held a value of its own; here it holds a copy, or zero, as
        before the mixing. The network crops it away.
        """
        if not self.shifted:
            return grid
        assert self.rearrangement is not None
        assert self.axis is not None
        r, dim = self.rearrangement, AXES[self.axis]
        line = shift(grid, dim, r.region, r.shift, r.cross_region)
        return partition(line, dim, r.region, r.padding) if self.kind == "region grid" else line


class Table(Records, list[Point]):
    """A list of points that prints as a table."""

    def records(self) -> list[dict[str, Any]]:
        """A row for each point: name, kind, shape ("1 x 64 x 56 x 56"), region, shift."""
        return [dict(zip(COLUMNS, row, strict=True)) for row in self.rows()]

    def rows(self) -> list[tuple[str, str, str, str, str]]:
        """(name, kind, shape, region, shift) of every point, as text."""

        def row(point: Point) -> tuple[str, str, str, str, str]:
            r, shape = point.rearrangement, " x ".join(map(str, point.shape))
            settings = (str(r.region), str(r.shift)) if r else ("", "")
            return (point.name, point.kind, shape, *settings)

        return [row(point) for point in self]

    def __repr__(self) -> str:
        return table([COLUMNS, *self.rows()])


class UnknownPoint(HirelabError, KeyError):
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
    """A forward hook that can say what it is, and acts at the module that it was made for alone.

    A copy of a network takes the hooks of the original along, and nobody could remove them there.
    """

    label: str
    act: Callable[[nn.Module, Tensor], Tensor | None]
    home: int = 0  # the module's id; 0 before it is attached

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
        return self.act(module, output) if id(module) == self.home else None


DEEPEST = 3
"""Passes inside each other in which one edit may be at work."""


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


@contextmanager
def describing(model: nn.Module, names: Iterable[str]) -> Iterator[Callable[[str, Tensor], Point]]:
    """A function of a probe's name and its tensor to what is known about the point.

    Call it from a hook: what a branch's points need is the length of the line as it enters the
    branch, in the very pass that is running. Passes may be nested, as when an edit runs the same
    network on an image of another size, so the shapes are kept as stacks.
    """
    entered: dict[str, list[tuple[int, ...]]] = {}

    def enter(shapes: list[tuple[int, ...]]) -> Callable[[nn.Module, Any], None]:
        return lambda module, args: shapes.append(tuple(args[0].shape))

    def leave(shapes: list[tuple[int, ...]]) -> Callable[[nn.Module, Any, Any], None]:
        def pop(module: nn.Module, args: Any, output: Any) -> None:
            shapes.pop()

        return pop

    def describe(name: str, value: Tensor) -> Point:
        parent_name, _, leaf = name.rpartition(".")
        parent, kind = model.get_submodule(parent_name), model.get_submodule(name).kind
        shape, axis = tuple(value.shape), getattr(parent, "axis", None)
        if axis is None:
            branches = tuple(getattr(parent, "branches", ())) if kind == "gate" else ()
            return Point(name, str(kind), shape, branches=branches)
        line = entered[parent_name][-1][AXES[axis]]
        rearrangement = parent.rearrangement(line)  # type: ignore[operator]
        return Point(name, str(kind), shape, axis, rearrangement, shifted=leaf != "out")

    with ExitStack() as stack:
        for parent_name in dict.fromkeys(name.rpartition(".")[0] for name in names):
            parent = model.get_submodule(parent_name)
            if getattr(parent, "axis", None) is None:
                continue
            shapes = entered[parent_name] = []
            stack.callback(parent.register_forward_pre_hook(enter(shapes)).remove)
            # always: the pass may end inside the branch, by an error or on purpose
            handle = parent.register_forward_hook(leave(shapes), always_call=True)
            stack.callback(handle.remove)
        yield describe


@contextmanager
def _hooks(model: nn.Module, hooks: Mapping[str, _Hook]) -> Iterator[None]:
    with ExitStack() as stack:
        known = probes(model)
        for name, hook in hooks.items():
            probe = known[name]
            handle = probe.register_forward_hook(replace(hook, home=id(probe)))
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
        points: a pattern or several, see `match`. In a wrapper (DataParallel, Sequential), which
            lacks this as a method, names begin with the wrapper's own.
        grad: keep the tensors in the autograd graph. Otherwise the pass builds no graph at all.
        stop_early: end the pass after the last wanted point; the logits are then None.

    Returns:
        The network's output and the cache. Tensors are not copied. Of a point that is passed
        several times, the first.

    Raises:
        UnknownPoint: for a pattern that means nothing.
        HirelabError: for an input that is not finite.
    """
    wanted = match(model, points)
    check_finite(x)
    values: dict[str, Tensor] = {}
    described: dict[str, Point] = {}

    with describing(model, wanted) as describe:

        def read(name: str) -> _Hook:
            def act(module: nn.Module, output: Tensor) -> None:
                if name in values:
                    return
                described[name] = describe(name, output)
                values[name] = output if grad else output.detach()
                if stop_early and len(values) == len(wanted):
                    raise _Stop

            return _Hook("cache", act)

        logits = None
        hooks = {name: read(name) for name in wanted}
        with _hooks(model, hooks), torch.set_grad_enabled(grad), suppress(_Stop):
            logits = model(x)
    return logits, Cache(values, described)


def edits(model: nn.Module, changes: Mapping[str, EditFunction]) -> AbstractContextManager[None]:
    """Edit points while the block runs: ``{pattern: edit}``, see `hirelab.edit` for ready ones.

    An edit is called as ``edit(value, point)`` with a copy of the tensor and returns the tensor to
    go on with, of the same shape and type. When several patterns mean one point, they act in the
    order given. The edits end with the block, error or not. What this returns can be kept and
    entered again, also inside itself; it then acts once for each time. An edit may run the same
    network, on another image say, and has to leave that pass alone: it is called there too.

    Raises:
        UnknownPoint, HirelabError: before anything is attached, for a pattern that means nothing
            and for an edit that cannot be called.
        HirelabError: during the pass, when an edit returns something else than a tensor of the
            same shape, dtype and device, and when it runs the network without end; the message
            names the point.
    """
    return _Edits(model, dict(changes))


class _Edits(AbstractContextManager[None]):
    """What `edits` returns: enters anew every time."""

    def __init__(self, model: nn.Module, changes: Mapping[str, EditFunction]) -> None:
        self._model, self._changes = model, changes
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        inner = _editing(self._model, self._changes)
        inner.__enter__()
        self._entered.append(inner)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)


@contextmanager
def _editing(model: nn.Module, changes: Mapping[str, EditFunction]) -> Iterator[None]:
    planned = [(name, edit) for pattern, edit in changes.items() for name in match(model, pattern)]
    for pattern, edit in changes.items():
        if not _takes_value_and_point(edit):
            raise HirelabError(
                f"The edit for {pattern!r} is {edit!r}; give a function of (value, point), or a "
                "ready one such as hirelab.edit.zero(), with its brackets."
            )
    with ExitStack() as stack:
        describe = stack.enter_context(describing(model, [name for name, _ in planned]))

        def change(name: str, edit: EditFunction) -> _Hook:
            running: list[int] = []  # threads in which this edit runs now, once for each pass

            def act(module: nn.Module, output: Tensor) -> Tensor:
                own = get_ident()
                if running.count(own) >= DEEPEST:
                    raise HirelabError(
                        f"The edit at {name} runs the network that it edits, is called there again "
                        "and would never end; run the network before the edit, or let the edit "
                        "return its value where it is called from its own pass."
                    )
                running.append(own)
                try:
                    result = edit(output.clone(), describe(name, output))
                finally:
                    running.remove(own)
                _check_edit(name, output, result)
                return result

            return _Hook(f"edit {edit!r}" if isinstance(edit, Edit) else "edit", act)

        for name, edit in planned:
            stack.enter_context(_hooks(model, {name: change(name, edit)}))
        yield


def _takes_value_and_point(edit: object) -> bool:
    """Whether something can be called as an edit; `hirelab.edit.zero` itself cannot."""
    if not callable(edit) or isinstance(edit, type):
        return False
    try:
        signature(edit).bind(None, None)
    except TypeError:
        return False
    except ValueError:  # a built-in function that does not say what it takes
        pass
    return True


def _check_edit(name: str, before: Tensor, after: object) -> None:
    if not isinstance(after, Tensor):
        raise HirelabError(
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


@dataclass(frozen=True, repr=False)
class Edit:
    """A ready edit that can say what it does, made by the functions of `hirelab.edit`.

    Called as ``edit(value, point)``, like any function that edits.
    """

    act: EditFunction
    words: str

    def __call__(self, value: Tensor, point: Point) -> Tensor:
        return self.act(value, point)

    def __repr__(self) -> str:
        return self.words


def attached(model: nn.Module) -> list[Attachment]:
    """Everything that listens at the network's points now, also hooks of other libraries."""
    return [
        Attachment(name, hook.label if isinstance(hook, _Hook) else type(hook).__name__)
        for name, probe in probes(model).items()
        for kind in ("forward_pre", "forward", "backward_pre", "backward")
        for hook in getattr(probe, f"_{kind}_hooks").values()
        # a copy of a network has the hooks of the original, which do nothing there
        if not (isinstance(hook, _Hook) and hook.home != id(probe))
    ]


def points(
    model: nn.Module,
    patterns: str | Iterable[str] = "*",
    input_size: Sequence[int] | None = None,
    *,
    x: Tensor | None = None,
) -> Table:
    """The table of the points that the patterns mean: name, kind, shape, region, shift.

    The shapes are measured for one input, on tensors without data (PyTorch's meta device), so that
    the table costs no arithmetic and changes nothing.

    Args:
        patterns: a name or several, with wildcards, see `hirelab.hooks.points.match`.
        input_size: (C, H, W) of the input; by default the network's channels at 224 x 224 pixels.
        x: an input (B, C, H, W), whose size is taken instead.

    Raises:
        UnknownPoint: for a pattern that means nothing.
    """
    if x is not None:
        input_size = x.shape[1:]
    elif input_size is None:
        input_size = (getattr(model, "in_chans", 3), 224, 224)
    wanted = match(model, patterns)
    state = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    blank = {name: torch.empty_like(t, device="meta") for name, t in state.items()}
    dtype = next((t.dtype for t in state.values() if t.is_floating_point()), torch.float32)
    blank_image = torch.empty((1, *input_size), device="meta", dtype=dtype)
    seen: dict[str, Point] = {}
    # Whatever else listens at the points, say an edit, is for tensors with data.
    listening = {probe: probe._forward_hooks for probe in probes(model).values()}
    try:
        for probe in listening:
            probe._forward_hooks = OrderedDict()
        # One image of a training batch may be too few for a BatchNorm.
        with describing(model, wanted) as describe, eval_mode(model), torch.no_grad():

            def look(name: str) -> _Hook:
                def act(module: nn.Module, output: Tensor) -> None:
                    seen[name] = describe(name, output)

                return _Hook("shape", act)

            with _hooks(model, {name: look(name) for name in wanted}):
                torch.func.functional_call(model, blank, (blank_image,))
    finally:
        for probe, hooks in listening.items():
            probe._forward_hooks = hooks
    return Table(seen[name] for name in wanted)


class Probed:
    """Mix-in: the functions of this file as methods of a network."""

    # No annotations of attributes here: TorchScript, which scripts the networks, cannot read them.

    def _network(self) -> nn.Module:
        assert isinstance(self, nn.Module)
        return self

    def points(
        self,
        patterns: str | Iterable[str] = "*",
        input_size: Sequence[int] | None = None,
        *,
        x: Tensor | None = None,
    ) -> Table:
        return points(self._network(), patterns, input_size, x=x)

    def run_with_cache(
        self,
        x: Tensor,
        points: str | Iterable[str] = "*",
        *,
        grad: bool = False,
        stop_early: bool = False,
    ) -> tuple[Tensor | None, Cache]:
        return run_with_cache(self._network(), x, points, grad=grad, stop_early=stop_early)

    def edits(self, changes: Mapping[str, EditFunction]) -> AbstractContextManager[None]:
        return edits(self._network(), changes)

    def attached(self) -> list[Attachment]:
        return attached(self._network())


for _method in (points, run_with_cache, edits, attached):
    getattr(Probed, _method.__name__).__doc__ = _method.__doc__  # a tooltip shows the whole of it

"""A point of any network, read: its map as a token grid (N, C, rows, columns), and the way back.

Networks name their points and lay out their tensors differently. Inside a branch of a Hire-MLP the
line of tokens is shifted, padded and cut into regions, so position is not place; there a map is
carried back by the network's own rearrangement. Networks of timm hold maps with the channels last,
or as a line of tokens. `reading` brings all of them to one form, for everything that measures:

    with reading(model, "stages.2") as point_map:
        grid = point_map.read(x)          # (N, C, rows, columns); the pass ends there if it can

    with reading(model, "layer3", replace=lambda grid: 2 * grid):
        logits = model(x)                 # the network goes on with what the function returns

A layout is worked out only where shape and image leave no doubt. A map belongs to an image when one
stride along both axes explains it: a square image has square maps, so a 7 x 8 map on one is refused
and needs ``layout`` (and ``grid`` for tokens in a line). A looser rule, "about the image's
proportions", would take 56 tokens on a square image for a 7 x 8 map that no network makes, and
mistake channels for places.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .._shared.checks import check_choice, check_whole
from .._shared.errors import HirelabError, unknown
from .forward import at_least_float32, check_module
from .points import Point, Probe, Probed, UnknownPoint, describing

LAYOUTS = ("NCHW", "NHWC", "NLC", "NCL")
"""timm's words (its ``Format``) for the axes of a map: images, channels, rows and columns, or a
line L of tokens."""


# ------------------------------------------------------------------ names


def resolve(model: nn.Module, point: str) -> str:
    """The full name of a point: a probe, the path of a module with a probe ``out``, or a module.

    Raises:
        UnknownPoint: for no such name, with near ones; and for a module inside a branch's cut
            line, which only the branch's probes can bring back to places.
    """
    modules = dict(check_module(model).named_modules())
    if isinstance(modules.get(f"{point}.out"), Probe):
        return f"{point}.out"
    if not isinstance(point, str) or not point or point not in modules:
        known = [name for name in modules if name]
        cure = "Any module's name will do, see named_modules()"
        cure += ", or a point of model.points()." if isinstance(model, Probed) else "."
        raise UnknownPoint(unknown("point", point, known, cure))
    parts = point.split(".")
    parents = [".".join(parts[:i]) for i in range(1, len(parts))]
    branch = next((up for up in parents if hasattr(modules.get(up), "rearrangement")), None)
    if branch is not None and not isinstance(modules[point], Probe):
        raise UnknownPoint(
            f"{point} lies inside the shifted and cut line of {branch}, where position is not "
            f"place; use {branch}.regions before the mixing, or {branch}.mixed after it."
        )
    return point


def default_point(model: nn.Module) -> str:
    """The last map of a network: its point ``features``, or else the last in feature_info.

    Raises:
        HirelabError: for a network that says neither.
    """
    if isinstance(dict(check_module(model).named_children()).get("features"), Probe):
        return "features"
    try:
        return resolve(model, listed_maps(model)[-1])
    except LookupError:
        raise HirelabError(
            f"{type(model).__name__} does not say where its last map is; give point, the name of "
            "a module in named_modules()."
        ) from None


def listed_maps(model: nn.Module) -> list[str]:
    """The modules that a network lists in timm's ``feature_info``; none where it lists none."""
    listed: Any = getattr(model, "feature_info", None)
    try:
        return [info["module"] for info in listed]
    except (LookupError, TypeError):
        return []


# ------------------------------------------------------------------ layouts


@dataclass(frozen=True)
class Layout:
    """How a module's tensor is laid: one of `LAYOUTS`, and the map's (rows, columns)."""

    name: str
    grid: tuple[int, int]

    def carry(self, value: Tensor) -> Tensor:
        """The tensor as (N, C, rows, columns); class tokens before the map are left out."""
        if self.name in ("NHWC", "NLC"):
            value = value.movedim(-1, 1)
        if len(self.name) == 3:
            value = value[:, :, value.shape[2] - math.prod(self.grid) :].unflatten(2, self.grid)
        return value

    def back(self, grid: Tensor, own: Tensor) -> Tensor:
        """The inverse of `carry`; class tokens are those of the point's own tensor ``own``."""
        if len(self.name) == 3:
            along = self.name.index("L")
            prefix = own.narrow(along, 0, own.shape[along] - math.prod(self.grid))
            line = grid.flatten(2) if self.name == "NCL" else grid.flatten(2).transpose(1, 2)
            return torch.cat([prefix.to(line.dtype), line], along) if prefix.numel() else line
        return grid.movedim(1, -1) if self.name == "NHWC" else grid


def find_layouts(
    shape: Sequence[int],
    image: tuple[int, int],
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    prefix: int = 0,
) -> list[Layout]:
    """Every layout that a tensor (N, ...) can have as a map of an image of (height, width).

    Args:
        layout: the only one to ask for; its rows and columns then need no confirmation.
        grid: (rows, columns) of tokens in a line; what stands before them is not of the map.
        prefix: how many class tokens the network says that it has.
    """
    return [
        Layout(name, found)
        for name in ([layout] if layout else LAYOUTS)
        if len(name) == len(shape)
        for found in _grids(shape, name, image, grid, prefix, trusted=layout is not None)
    ]


def _grids(
    shape: Sequence[int],
    name: str,
    image: tuple[int, int],
    grid: Sequence[int] | None,
    prefix: int,
    trusted: bool,
) -> list[tuple[int, int]]:
    """The (rows, columns) that a tensor of this shape can have in a layout."""
    if len(name) == 4:
        rows, columns = (shape[name.index(axis)] for axis in "HW")
        return [(rows, columns)] if trusted or _proportional(rows, columns, image) else []
    tokens = shape[name.index("L")]
    if grid is not None:
        rows, columns = (check_whole("grid", n, 1) for n in grid)
        return [(rows, columns)] if rows * columns <= tokens else []
    for count in dict.fromkeys((tokens - prefix, tokens)):
        found = [
            (rows, count // rows)
            for rows in range(1, count + 1)
            if count % rows == 0 and _proportional(rows, count // rows, image)
        ]
        if found:  # one that covers the whole image rather than those that cut borders off
            return [one for one in found if _tiles(*one, image)] or found
    return []


def _proportional(rows: int, columns: int, image: tuple[int, int]) -> bool:
    """Whether a map can be of an image: one stride along both axes, borders cut off alike."""
    high, wide = image
    if rows > high or columns > wide:
        return False
    if high == wide:
        return rows == columns
    strides = range(1, max(image) + 1)
    return any(
        abs((high - wide) - s * (rows - columns)) < s and s * (rows - 1) < high for s in strides
    )


def _tiles(rows: int, columns: int, image: tuple[int, int]) -> bool:
    """Whether square tokens of one size cover the image without rest."""
    high, wide = image
    return high % rows == 0 and wide % columns == 0 and high // rows == wide // columns


def _follows(whole: Sequence[int], half: Sequence[int], name: str) -> bool:
    """Whether the first axis of the map shrank with the image and the channels stayed."""
    tall, channels = name.index("H" if "H" in name else "L"), name.index("C")
    return (
        len(half) == len(whole) and half[tall] < whole[tall] and half[channels] == whole[channels]
    )


# ------------------------------------------------------------------ reading


class _Reached(Exception):
    """Raised at the point, to end the pass; holds what was found there."""

    def __init__(self, found: Any) -> None:
        super().__init__()
        self.found = found


class PointMap:
    """A point of any network, read in every pass while `reading` is open.

    Attributes:
        name: the full name.
        layout: how its tensor was read, one of `LAYOUTS`; of a probe always "NCHW".
        grid: (rows, columns) of its map in the last pass.
        calls: how often the last pass came by.
    """

    def __init__(
        self,
        model: nn.Module,
        name: str,
        layout: str | None = None,
        grid: Sequence[int] | None = None,
        call: int | None = None,
        replace: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if layout is not None:
            check_choice("layout", layout, LAYOUTS)
        if call is not None:
            check_whole("call", call, 0)
        if grid is not None and len(grid) != 2:
            raise HirelabError(f"grid is {tuple(grid)}; give (rows, columns) of the tokens.")
        self.name, self.layout, self.grid, self.calls = name, layout, (0, 0), 0
        self._model, self._given, self._call, self._replace = model, grid, call, replace
        self._module = model.get_submodule(name)
        self._probe = isinstance(self._module, Probe)
        if self._probe and layout not in (None, "NCHW"):
            raise HirelabError(f"{name} is a probe, whose layout is NCHW; leave layout out.")
        self._laid: Point | Layout | None = None
        self._known: dict[tuple[Sequence[int], Sequence[int]], Layout] = {}
        self._until = False  # whether the pass ends here
        self._kept: list[Tensor] = []

    def carry(self, value: Tensor) -> Tensor:
        """A tensor of the point as (N, C, rows, columns), in the image's order."""
        laid = self._laid
        assert laid is not None, "no pass has come by"
        return laid.tokens(value) if isinstance(laid, Point) else laid.carry(value)

    def back(self, grid: Tensor, own: Tensor) -> Tensor:
        """The inverse of `carry`; what is not of the map is that of the point's ``own`` tensor."""
        laid = self._laid
        assert laid is not None, "no pass has come by"
        return laid.back(grid) if isinstance(laid, Point) else laid.back(grid, own)

    def read(self, x: Tensor) -> Tensor:
        """Run the network on images up to the point, with gradients; its map (N, C, rows, columns).

        The pass ends at the point where it cannot come again: at a probe of a network of hirelab,
        and at the call that was asked for.

        Raises:
            HirelabError: for a point that has no map, in one sentence with its cure.
        """
        self._until, self._kept = True, []
        try:
            with torch.enable_grad():
                self._model(x)
        except _Reached:
            pass
        finally:
            self._until, kept, self._kept = False, self._kept, []
        if not kept:
            self.check_reached()
        return kept[0]

    def check_reached(self) -> None:
        """Make sure that the last pass read the point.

        Raises:
            HirelabError: where it did not, naming how often it came by.
        """
        if not self.calls:
            raise HirelabError(
                f"{self.name} is not used in the pass, so it has no map; choose a module that the "
                "network runs through."
            )
        if self._call is not None and self._call >= self.calls:
            raise HirelabError(
                f"call is {self._call}; {self.name} is called {self.calls} times: 0 to "
                f"{self.calls - 1}."
            )

    def _pass(self, output: Any, x: Tensor, describe: Callable[[str, Tensor], Point],
              halve: Callable[[], Sequence[int] | None]) -> Any:  # fmt: skip
        """What the network goes on with, or None for its own ``output``."""
        self.calls += 1
        if self._call is None and self.calls > 1:
            raise HirelabError(
                f"{self.name} is called more than once in a pass; say which call you mean, call=0 "
                "for the first, or choose a module around one of its uses."
            )
        if self.calls - 1 != (self._call or 0):
            return None
        value = self._checked(output, x)
        if self._probe:
            self._laid, self.layout = describe(self.name, value), "NCHW"
            self._laid.tokens(value)  # a gate or a vector says that it has no place
        else:
            self._laid = self._lay(value, x, halve)
            self.layout = self._laid.name
        if self._until:
            return self._end(value)
        if self._replace is None:
            self.grid = _grid_of(self.carry(value))
            return None
        # A copy: what the network does in place, before or after, must not reach it.
        grid = at_least_float32(self.carry(value).clone())
        self.grid = _grid_of(grid)
        result = self.back(self._replace(grid), value).to(value.dtype)
        return result.contiguous() if value.is_contiguous() else result

    def _end(self, value: Tensor) -> Tensor:
        """Keep the map, and end the pass or go on to see whether the module comes again."""
        kept = self.carry(value)
        self.grid = _grid_of(kept)
        self._kept.append(kept)
        # networks of hirelab use each probe once
        if self._call is not None or (self._probe and isinstance(self._model, Probed)):
            raise _Reached(None)
        torch.set_grad_enabled(False)  # `read` sets it back
        return value.detach().clone()  # which may be changed in place

    def _checked(self, output: Any, x: Tensor) -> Tensor:
        if not isinstance(output, Tensor):
            raise HirelabError(
                f"{self.name} gives a {type(output).__name__}; name a module that gives one tensor."
            )
        if output.dim() == 0 or len(output) != len(x):
            given = f"{len(output)} pieces" if output.dim() else "a number"
            raise HirelabError(
                f"{self.name} gives {given} for {len(x)} images (windows, say), which is not one "
                "map for each image; name a module around it, where an image is whole."
            )
        return output

    def _lay(self, value: Tensor, x: Tensor, halve: Callable[[], Sequence[int] | None]) -> Layout:
        """The one layout of a module's tensor; what shape leaves open half an image may tell."""
        shape, image = tuple(value.shape), (x.shape[2], x.shape[3])
        if (shape[1:], image) in self._known:
            return self._known[shape[1:], image]
        prefix = int(getattr(self._model, "num_prefix_tokens", 0) or 0)
        found = find_layouts(shape, image, self.layout, self._given, prefix)
        if len(found) > 1:  # 16 x 16 tokens of 256 channels: which axis follows the image?
            half = halve()
            found = [one for one in found if half and _follows(shape, half, one.name)] or found
        if len(found) > 1:  # a network for one size only, which says what it cuts the image into
            own = self._patches()
            found = [one for one in found if one.grid == own] or found
            whole = [one for one in found if _tokens(shape, one) == prefix + math.prod(one.grid)]
            found = whole or found
        if len(found) != 1 and not (found and math.prod(shape[1:]) == 1):
            raise HirelabError(
                f"{self.name} gives shape {list(shape)} for images of {image[0]} x {image[1]}; "
                "which axes are the map cannot be known: give layout as one of "
                f"{', '.join(LAYOUTS)}, and for tokens in a line also grid=(rows, columns), or "
                "choose a point with a map."
            )
        self._known[shape[1:], image] = found[0]
        return found[0]

    def _patches(self) -> tuple[int, ...] | None:
        """The grid that the network cuts its images into, where it says so."""
        for name in ("patch_embed", "stem"):
            grid = getattr(getattr(self._model, name, None), "grid_size", None)
            if grid is not None:
                return tuple(grid)
        return None


def _tokens(shape: Sequence[int], layout: Layout) -> int:
    """How many tokens a tensor holds, class tokens too."""
    return math.prod(shape[layout.name.index(axis)] for axis in layout.name if axis in "LHW")


def _grid_of(value: Tensor) -> tuple[int, int]:
    return int(value.shape[2]), int(value.shape[3])


@contextmanager
def reading(
    model: nn.Module,
    point: str,
    layout: str | None = None,
    grid: Sequence[int] | None = None,
    call: int | None = None,
    replace: Callable[[Tensor], Tensor] | None = None,
) -> Iterator[PointMap]:
    """Read a point in every pass of the network while the block runs.

    Args:
        model: any network of images.
        point: as `resolve` takes it.
        layout: one of `LAYOUTS`, where it cannot be worked out.
        grid: (rows, columns) of tokens in a line, where that cannot be worked out; tokens before
            these count as class tokens.
        call: which call to read of a module that a pass uses several times, from 0.
        replace: called with the map (N, C, rows, columns), a copy in float32 or better; the
            network goes on with what it returns. Without it nothing is changed.

    Raises:
        UnknownPoint, HirelabError: at once for a name or layout that does not exist, and during a
            pass for a point without a map.
    """
    name = resolve(model, point)
    with _listen(model, [PointMap(model, name, layout, grid, call, replace)]) as (point_map,):
        yield point_map


@contextmanager
def reading_all(
    model: nn.Module, points: Sequence[str], replace: Callable[[str, Tensor], Tensor]
) -> Iterator[list[PointMap]]:
    """`reading` of several points in the same passes; ``replace`` also takes the point's name."""

    def one(name: str) -> PointMap:
        return PointMap(model, name, replace=lambda grid: replace(name, grid))

    with _listen(model, [one(resolve(model, point)) for point in points]) as maps:
        yield maps


@contextmanager
def _listen(model: nn.Module, maps: list[PointMap]) -> Iterator[list[PointMap]]:
    """Hooks at the points, and at the network to know the images of the pass that is running."""
    running: list[tuple[Tensor, list[int]]] = []  # images, and the counts of the pass around it
    asking: list[PointMap] = []  # the point whose shape for half an image is asked for

    def begin(module: nn.Module, args: Any) -> None:
        running.append((args[0], [m.calls for m in maps]))
        for point_map in maps:
            point_map.calls = 0

    def end(module: nn.Module, args: Any, output: Any) -> None:
        _, before = running.pop()
        if running:  # the pass was inside another
            for point_map, calls in zip(maps, before, strict=True):
                point_map.calls = calls

    def halved(point_map: PointMap) -> Sequence[int] | None:
        """The shape that the point has for half of one image, or None where none goes."""
        x = running[-1][0]
        asking.append(point_map)
        try:
            with torch.no_grad():
                model(x[:1, :, : x.shape[2] // 2])
        except _Reached as reached:
            return reached.found
        except Exception:  # whatever a network says to a size that it is not made for
            return None
        finally:
            asking.pop()
        return None

    def listen(point_map: PointMap) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            if asking:
                point_map.calls += 1
                if asking[-1] is point_map and point_map.calls - 1 == (point_map._call or 0):
                    raise _Reached(tuple(output.shape))
                return None
            return point_map._pass(output, running[-1][0], describe, lambda: halved(point_map))

        return hook

    with ExitStack() as stack:
        describe = stack.enter_context(describing(model, [m.name for m in maps if m._probe]))
        stack.callback(model.register_forward_pre_hook(begin).remove)
        for point_map in maps:
            handle = point_map._module.register_forward_hook(listen(point_map))
            stack.callback(handle.remove)
        # always: the pass may end at the point; last, so that the model itself can be a point
        stack.callback(model.register_forward_hook(end, always_call=True).remove)
        yield maps

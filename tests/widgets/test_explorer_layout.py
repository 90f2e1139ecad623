"""No text leaves its sheet or runs into another, at the extremes of every setting."""

from __future__ import annotations

import itertools

import pytest

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.viz import theme
from hirelab.viz.canvas import Canvas


@pytest.fixture
def texts(monkeypatch):
    """Every text that is written, as (text, (left, top, right, bottom), canvas)."""
    written, write = [], Canvas.text

    def text(self, xy, text, size=theme.TEXT, color=theme.INK, anchor="la", bold=False):
        font = theme.font(size * self.scale, bold)
        at = tuple(round(v * self.scale) for v in xy)
        box = self._draw.textbbox(at, text, font=font, anchor=anchor)
        written.append((text, tuple(v / self.scale for v in box), self))
        assert size >= 14, f"{text!r} is too small to read"
        write(self, xy, text, size, color, anchor, bold)

    monkeypatch.setattr(Canvas, "text", text)
    return written


def assert_legible(explorer, texts, **settings) -> None:
    try:
        chosen = explorer.check(settings)
    except HirelabError:
        return
    texts.clear()
    explorer.draw(chosen, explorer.measure(chosen))
    assert texts
    for text, (left, top, right, bottom), canvas in texts:
        inside = left >= 0 and top >= 0 and right <= canvas.width and bottom <= canvas.height
        assert inside, f"{text!r} leaves the sheet: {settings}"
    for (one, a, _), (other, b, _) in itertools.combinations(texts, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]
        assert apart, f"{one!r} and {other!r} overlap: {settings}"


def test_the_check_sees_what_it_shall_see(texts):
    """A sheet whose texts leave it or overlap is found, or all below would prove nothing."""

    class Fake:
        @staticmethod
        def check(_):
            return None

        def __init__(self, *at):
            self.at = at

        @staticmethod
        def measure(_):
            return None

        def draw(self, *_):
            canvas = Canvas(200, 60)
            for xy in self.at:
                canvas.text(xy, "a text")

    assert_legible(Fake((5, 5), (100, 5)), texts)
    with pytest.raises(AssertionError, match="leaves the sheet"):
        assert_legible(Fake((170, 5)), texts)
    with pytest.raises(AssertionError, match="overlap"):
        assert_legible(Fake((5, 5), (40, 8)), texts)


@pytest.mark.parametrize("stage", [0, 3])
@pytest.mark.parametrize("size", ["tiny", "large"])
def test_regions(texts, stage, size):
    network = None if size == "tiny" else hl.create("hire_mlp_large", device="meta")
    explorer = hl.RegionExplorer(network)
    for region, unpack, pick in itertools.product((1, 2, 3, 8), ("height", "width"), (0, 6, 27)):
        assert_legible(
            explorer, texts, stage=stage, region_height=region, region_width=9 - region,
            unpack=unpack, pick=pick, padding="replicate", view="tokens",
        )  # fmt: skip


@pytest.mark.parametrize(("stage", "token"), [(0, 55), (2, 13), (3, 0)])
def test_shifts(texts, stage, token):
    explorer = hl.ShiftExplorer()
    for shift, blocks, cross_region, restore in itertools.product(
        (-8, 8), (1, 8), ("shift", "shuffle", "none"), (True, False)
    ):
        assert_legible(
            explorer, texts, stage=stage, token=token, shift=shift, blocks=blocks, region=8,
            cross_region=cross_region, restore=restore, padding="replicate",
        )  # fmt: skip


@pytest.mark.parametrize("cross_region", ["shift", "shuffle", "none"])
def test_the_animation(texts, cross_region):
    explorer = hl.RearrangementPlayer()
    for shift, frame, restore in itertools.product((-8, 8), range(0, 56, 6), (True, False)):
        assert_legible(
            explorer, texts, shift=shift, frame=frame, restore=restore, stage=3, region=8,
            cross_region=cross_region,
        )  # fmt: skip


@pytest.mark.parametrize("size", [7, 56])
def test_costs(texts, size):
    explorer = hl.CostExplorer()
    for region, dim in itertools.product((1, 2, 7, 8), (32, 160, 512)):
        assert_legible(explorer, texts, region=region, dim=dim, size=size)


@pytest.mark.parametrize("branches", [("height", "width", "channel"), ("channel",)])
def test_blocks(texts, branches):
    # the stages of the largest network, made small: the widest maps and the longest names
    network = hl.create(
        "hire_mlp_atto", seed=0, branches=branches, depths=(1, 1, 12, 1), dims=(8, 8, 8, 1536)
    )
    explorer = hl.BlockExplorer(network, stage=0, block=0)
    for stage, block, channel, back in [
        (0, 0, -1, False), (0, 0, 7, True), (2, 11, -1, False), (3, 0, 1535, False),
        (3, 0, -1, True),
    ]:  # fmt: skip
        assert_legible(explorer, texts, stage=stage, block=block, channel=channel, carry_back=back)
    assert "untrained" in " ".join(text for text, *_ in texts)  # the longest note was among them


@pytest.mark.parametrize("depths", [(4, 6, 24, 3), (1, 1, 1, 1), (2, 2, 4, 2)])
def test_whole_networks(texts, depths):
    # as many blocks as the largest network has, and as few as there can be
    network = hl.create("hire_mlp_atto", seed=0, depths=depths, dims=(8, 8, 8, 1536), region=2)
    network.pretrained_cfg["label_names"] = ["a class with a very long name, and a second"] * 1000
    explorer = hl.NetworkExplorer(network, "cat", img_size=224)
    for stage, block, point, place in [
        (0, 0, "out", 55), (3, 0, "hire.height.shifted", 6), (2, 9, "hire.width.regions", 5),
        (2, 0, "hire.height.regions", 6),
    ]:  # fmt: skip
        chosen = {"stage": stage, "block": block, "point": point, "row": place, "column": place}
        assert_legible(explorer, texts, **chosen)


@pytest.mark.parametrize(("stage", "row"), [(0, 55), (2, 13), (3, 0)])
def test_two_networks(texts, stage, row):
    explorer = hl.KinExplorer()
    for left, right, blocks in itertools.product(
        ("Hire-MLP-S", "PoolFormer-S24"), ("S2-MLP-deep", "ConvNeXt-T"), (1, 13, 36)
    ):
        assert_legible(
            explorer, texts, left=left, right=right, stage=stage, row=row, column=row, blocks=blocks
        )

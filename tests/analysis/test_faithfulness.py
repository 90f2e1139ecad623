"""Checks of explanations, on networks whose true explanation is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

import hirelab as hl
from hirelab.analysis.attribution import Attribution, grad_cam
from hirelab.analysis.faithfulness import (
    DeletionInsertion,
    PointingGame,
    Randomisation,
    deletion_insertion,
    interval,
    pointing_game,
    randomisation_check,
)


class Corner(nn.Module):
    """Class 1 is the brightness of the left top 8 x 8 pixels, and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = nn.Parameter(torch.ones(1))

    def forward(self, x):
        score = x[:, :, :8, :8].mean((1, 2, 3)) * self.unit
        return torch.stack([torch.zeros_like(score), 4 * score], 1)


def maps(values: np.ndarray, side: int = 32, targets=1) -> Attribution:
    n = len(values)
    none = np.zeros(n)
    return Attribution(
        "net", "by hand", "somewhere", np.full(n, targets), none, none, np.full(n, targets), none,
        values.astype(np.float32), [side, side], np.zeros((n, 0, 0, 3), np.uint8),
    )  # fmt: skip


def corner_map(n: int = 6) -> np.ndarray:
    values = np.zeros((n, 4, 4))
    values[:, 0, 0] = 1
    return values


def bright(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.manual_seed(0)) + 1


# ------------------------------------------------------------------ intervals


def test_an_interval_is_around_the_mean_and_narrows_with_images():
    draw = np.random.default_rng(1).normal(2.0, 1.0, 400)
    few, many = interval(draw[:25]), interval(draw)
    assert few.mean == pytest.approx(draw[:25].mean())
    assert few.low < few.mean < few.high
    # as wide as the normal approximation says
    for found, n in ((few, 25), (many, 400)):
        expected = 2 * 1.96 * draw[:n].std() / n**0.5
        assert found.high - found.low == pytest.approx(expected, rel=0.15)
    narrow = interval(draw, level=0.5)
    assert many.low < narrow.low < narrow.high < many.high
    assert interval(draw) == many
    assert interval(draw, seed=1) != many
    same = interval(np.full(9, 0.25))
    assert (same.mean, same.low, same.high) == (0.25, 0.25, 0.25)


def test_one_image_has_no_interval():
    found = interval([0.5])
    assert found.mean == 0.5
    assert np.isnan([found.low, found.high]).all()
    assert "one image, no interval" in str(found)
    for values, level, why in (([], 0.95, "one for each image"), ([[1.0]], 0.95, "one for each"),
                               ([1.0, 2.0], 95, "between 0 and 1")):  # fmt: skip
        with pytest.raises(ValueError, match=why):
            interval(values, level)


# ------------------------------------------------------------------ deletion and insertion


def test_a_true_map_deletes_and_inserts_at_once():
    model, x = Corner(), bright()
    found = deletion_insertion(model, x, maps(corner_map()), steps=16, fill="mean")
    assert found.shares.tolist() == np.linspace(0, 1, 17).tolist()
    with torch.no_grad():
        whole = model(x).softmax(1)[:, 1].numpy()
        none = model(torch.zeros_like(x)).softmax(1)[:, 1].numpy()
    for curve, start, end in (("deletion", whole, none), ("insertion", none, whole)):
        for kind in ("", "random_"):
            values = getattr(found, kind + curve)
            np.testing.assert_allclose(values[:, 0], start, rtol=1e-5)
            np.testing.assert_allclose(values[:, -1], end, rtol=1e-5)
    # the corner is a 16th of the image; the map's blurred edge takes in a little more
    np.testing.assert_allclose(found.deletion[:, 3:], np.stack([none] * 14, 1), rtol=1e-4)
    np.testing.assert_allclose(found.insertion[:, 3:], np.stack([whole] * 14, 1), rtol=1e-4)
    gain = found.area("gain")
    assert gain.low > 0.1
    area = trapezoid(found.deletion, found.shares, axis=1)
    assert found.area("deletion").mean == pytest.approx(area.mean())
    assert "gain over random" in str(found)
    # the map turned round knows where the class is not
    wrong = deletion_insertion(model, x, maps(-corner_map()), steps=16, fill="mean")
    assert wrong.area("gain").high < -0.1


def test_a_map_that_knows_nothing_gains_nothing():
    model, x = Corner(), bright(24)
    random = np.random.default_rng(5).normal(size=(24, 4, 4))
    gain = deletion_insertion(model, x, maps(random), steps=8, fill="mean").area("gain", 0.99)
    assert gain.low < 0 < gain.high
    # a map of one value has no order: its ties are drawn, not taken from left to right
    flat = deletion_insertion(model, x, maps(np.zeros((24, 4, 4))), steps=8, fill="mean")
    logit = np.log(flat.deletion[:, 0] / (1 - flat.deletion[:, 0]))
    half = 1 / (1 + np.exp(-logit / 2))  # half of the pixels, so half of the corner's brightness
    assert abs((flat.deletion[:, 4] - half).mean()) < 0.02


def test_blur_keeps_the_mean_colour_and_takes_the_detail():
    model, x = Corner(), bright(2)
    flat = torch.full((2, 3, 32, 32), 0.7)
    found = deletion_insertion(model, flat, maps(corner_map(2)), steps=2)
    np.testing.assert_allclose(found.deletion, found.deletion[:, :1].repeat(3, 1), rtol=1e-5)
    assert deletion_insertion(model, x, maps(corner_map(2)), steps=2).fill == "blur"


def test_deletion_is_seeded_saved_and_drawn(tmp_path):
    model, x = Corner(), bright(3)
    one, same, other = (
        deletion_insertion(model, x, maps(corner_map(3)), steps=4, seed=s) for s in (0, 0, 7)
    )
    np.testing.assert_array_equal(one.random_deletion, same.random_deletion)
    assert not np.allclose(one.random_deletion, other.random_deletion)
    one.save(tmp_path / "curves.npz")
    again = DeletionInsertion.load(tmp_path / "curves.npz")
    assert again.area("gain") == one.area("gain")
    assert one.plot().text == str(again)
    with pytest.raises(ValueError, match=r"no curve 'insert'\. Did you mean 'insertion'"):
        one.area("insert")


def test_wrong_requests_are_one_sentence():
    model, x, found = Corner(), bright(3), maps(corner_map(3))
    with pytest.raises(ValueError, match="give the images that it was made from"):
        deletion_insertion(model, x[:2], found)
    with pytest.raises(ValueError, match="steps is 0"):
        deletion_insertion(model, x, found, steps=0)
    with pytest.raises(ValueError, match=r"no fill 'black'.* Choose one of mean, blur"):
        deletion_insertion(model, x, found, fill="black")


# ------------------------------------------------------------------ weight randomisation


def small() -> nn.Module:
    model = hl.create("hire_mlp_atto", seed=0, num_classes=4, depths=(1, 1), dims=(8, 8),
                      region=2, shift=1, shift_cycle=1)  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.3)
    return model


def test_weights_are_replaced_from_the_head_downwards_in_a_copy():
    model, x = small(), bright(4)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = randomisation_check(model, x, 1)
    assert found.modules == ["head", "norm", "stages.1", "stages.0", "stem"]
    assert found.similarity.shape == found.absolute.shape == (5, 4)
    assert (np.abs(found.similarity) <= 1 + 1e-9).all()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert not model.training
    again = randomisation_check(model, x, 1)
    np.testing.assert_array_equal(found.similarity, again.similarity)
    other = randomisation_check(model, x, 1, seed=3)
    assert not np.allclose(found.similarity, other.similarity)


def test_the_band_of_chance_is_where_means_of_random_maps_lie():
    """A rank correlation of n places with chance has variance 1 / (n - 1), whatever the map."""
    model, x = small(), bright(4)
    found = randomisation_check(model, x, 1)
    places = 4 * 4
    assert found.random.shape == (100, 4)
    spread = (1 / (places - 1) / 4) ** 0.5
    assert found.random.mean(1).std() == pytest.approx(spread, rel=0.25)
    chance = found.chance()
    assert abs(chance.mean) < spread / 2
    assert chance.low == pytest.approx(-1.96 * spread, rel=0.3)
    assert chance.high == pytest.approx(1.96 * spread, rel=0.3)


def test_a_map_that_does_not_read_the_weights_stays_the_same():
    """What the check is for: replacing what the map does not depend on changes nothing."""
    model, x = small(), bright(3)
    # the map at the last norm reads the head's weights of its class only: the stem's are another's
    unread = randomisation_check(Fixed(), x, 1, "body", modules=["aside"])
    np.testing.assert_allclose(unread.similarity, 1)
    read = randomisation_check(model, x, 1, modules=["stem"])
    assert read.similarity.max() < 0.999


class Fixed(nn.Module):
    """A network with a part that its logits do not depend on."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.aside, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        self.aside(x)
        return self.head(self.body(x).relu().mean((2, 3)))


def test_similarity_is_spearmans():
    """Of the maps before and after, and 0 for a map that is the same everywhere."""
    from scipy.stats import spearmanr

    net, x = Fixed(), bright(3)
    found = randomisation_check(net, x, 1, "body", modules=["body"], method="grad_cam", seed=4)
    copy = Fixed()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in copy.body.parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            values = p.double()
            p.copy_(values.mean() + values.std(correction=0) * noise)
    pairs = zip(grad_cam(net, x, 1, "body").maps, grad_cam(copy, x, 1, "body").maps, strict=True)
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in pairs]
    np.testing.assert_allclose(found.similarity[0], expected, rtol=1e-6)
    flat = randomisation_check(Level(), x, 1, "even")
    assert flat.similarity.tolist() == [[0, 0, 0]]


class Level(nn.Module):
    """A network whose map is the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.even, self.head = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.even(x).flatten(1))


def test_randomisation_is_saved_drawn_and_asked_by_name(tmp_path):
    found = randomisation_check(small(), bright(3), 1, modules=["head", "stages.1"])
    found.save(tmp_path / "check.npz")
    again = Randomisation.load(tmp_path / "check.npz")
    assert again.at("stages.1") == found.at(1) == found.at(-1)
    assert again.plot().text == str(found)
    with pytest.raises(ValueError, match=r"no module 'stage\.1'\. Did you mean 'stages\.1'"):
        found.at("stage.1")
    with pytest.raises(ValueError, match=r"no module 'hed'\. Did you mean .*'head'"):
        randomisation_check(small(), bright(3), modules=["hed"])
    with pytest.raises(ValueError, match="global_pool has no weights to replace"):
        randomisation_check(small(), bright(3), modules=["global_pool"])


# ------------------------------------------------------------------ pointing game


def test_a_hit_is_a_highest_place_inside_a_box():
    values = np.zeros((4, 4, 4))
    for i, (row, col) in enumerate([(0, 0), (3, 3), (1, 2), (2, 0)]):
        values[i, row, col] = 1
    # a token is 8 x 8 pixels; its highest pixel is at its centre
    boxes = [(0, 0, 8, 8), (0, 0, 24, 24), [(0, 0, 4, 4), (16, 8, 24, 16)], (8, 16, 32, 24)]
    found = pointing_game(maps(values), boxes)
    assert found.hits.tolist() == [True, False, True, False]
    for (x, y), (row, col) in zip(found.places, [(0, 0), (3, 3), (1, 2), (2, 0)], strict=True):
        assert (y // 8, x // 8) == (row, col)
    assert found.accuracy().mean == 0.5
    # right and bottom are the first column and row outside
    x, y = found.places[2]
    edges = [(0, 0, x, y + 1), (0, 0, x + 1, y), (x, y, x + 1, y + 1), (0, 0, x + 1, y + 1)]
    assert pointing_game(maps(values[[2] * 4]), edges).hits.tolist() == [False, False, True, True]
    near = pointing_game(maps(values[[2] * 4]), edges, tolerance=1)
    assert near.hits.all()


def test_random_maps_hit_as_often_as_the_box_is_large():
    n = 12
    half = pointing_game(maps(np.zeros((n, 4, 4))), [(0, 0, 16, 32)] * n, draws=200)
    assert half.accuracy("random").mean == pytest.approx(0.5, abs=0.03)
    assert not half.centre.any()
    whole = pointing_game(maps(np.zeros((n, 4, 4))), [(0, 0, 32, 32)] * n)
    assert whole.random.tolist() == [1] * n
    assert whole.centre.all()
    assert whole.accuracy("gain").mean == 0


def test_boxes_are_checked_and_results_kept(tmp_path):
    found = maps(corner_map(2))
    for boxes, why in [
        ([(0, 0, 8, 8)], "boxes for 1 images"),
        ([(0, 0, 8, 8), (8, 0, 8, 8)], "A box of image 1 is"),
        ([(0, 0, 8, 8), (0, 0, 33, 8)], "inside the image of 32 x 32"),
        ([(0, 0, 8, 8), (-1, 0, 8, 8)], "A box of image 1"),
        ([(0, 0, 8), (0, 0, 8)], r"boxes of image 0 have shape \(3,\)"),
        ([(0, 0, 8, 8), np.zeros((0, 4))], r"image 1 have shape \(0, 4\)"),
        ([(0, 0, 8, 8), (0, 0, np.nan, 8)], "A box of image 1"),
    ]:
        with pytest.raises(ValueError, match=why):
            pointing_game(found, boxes)
    with pytest.raises(ValueError, match="tolerance is -1"):
        pointing_game(found, [(0, 0, 8, 8)] * 2, tolerance=-1)
    game = pointing_game(found, np.array([[0, 0, 8, 8]] * 2))
    game.save(tmp_path / "game.npz")
    again = PointingGame.load(tmp_path / "game.npz")
    assert str(again) == str(game)
    with pytest.raises(ValueError, match="no share 'hit'"):
        game.accuracy("hit")


def test_grad_cam_of_a_known_network_is_found_faithful():
    """The whole chain: a network that looks at one corner, its Grad-CAM, and the three checks."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.AvgPool2d(8), Weighted(), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        net[3].weight.copy_(torch.tensor([[-4.0], [4.0]]))
        net[3].bias.copy_(torch.tensor([3.0, -3.0]))
    x = torch.rand(5, 3, 32, 32)
    x[:, :, :8, :8] += 1.5
    found = grad_cam(net, x, 1, "1.place")
    game = pointing_game(found, [(0, 0, 8, 8)] * 5)
    assert game.hits.all()
    assert game.accuracy("gain").low > 0.5
    assert deletion_insertion(net, x, found, fill="mean").area("gain").low > 0


class Weighted(nn.Module):
    """Keeps the left top token of a grid, and adds the rest up with no weight."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Identity()

    def forward(self, x):
        mask = torch.zeros_like(x)
        mask[..., 0, 0] = 1
        return self.place(x * mask).sum((1, 2, 3), keepdim=True)

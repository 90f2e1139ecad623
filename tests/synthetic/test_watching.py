"""Watching a training: it changes nothing, and says what the training came to."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hirelab._shared.errors import HirelabError
from hirelab.synthetic import watching
from hirelab.synthetic.learning import token_network, train_on_task
from hirelab.synthetic.tasks import CopyFromDistance
from hirelab.synthetic.watching import Learning, learn_beside

TASK = CopyFromDistance(12, (-2, -1, 1, 3))


def network(shift: int = 1, **settings):
    return token_network(TASK, dim=8, shift=shift, **{"fusion": "sum", **settings})


@pytest.fixture(scope="module")
def watched():
    networks = {"one": network(0), "two": network(1)}
    seen: list[Learning] = []
    learning = learn_beside(TASK, networks, steps=23, every=10, show=seen.append)
    return networks, seen, learning


def test_who_watches_changes_nothing(watched, leaves_no_hooks):
    for name, shift in (("one", 0), ("two", 1)):
        alone = network(shift)
        train_on_task(TASK, alone, 23)
        state = watched[0][name].state_dict()
        assert all(torch.equal(value, state[key]) for key, value in alone.state_dict().items())
        assert not watched[0][name].training
    again = network()
    leaves_no_hooks(again)
    learn_beside(TASK, {"again": again}, steps=2)


def test_dropout_is_drawn_as_without_a_watcher():
    nets = [network(drop_path_rate=0.5) for _ in range(2)]
    train_on_task(TASK, nets[0], 5)
    learn_beside(TASK, {"watched": nets[1]}, steps=5, every=1)
    first, second = (n.state_dict() for n in nets)
    assert all(torch.equal(value, second[key]) for key, value in first.items())


def test_it_is_measured_at_the_beginning_the_end_and_between(watched):
    _, seen, learning = watched
    assert learning.moments.tolist() == [0, 10, 20, 23]
    assert len(seen) == 2 * len(learning.moments)
    known = [int((~np.isnan(one.accuracy[..., 0])).sum()) for one in seen]
    assert known == list(range(1, 9))  # one after another, and nothing before its time
    assert not np.isnan(learning.accuracy).any()


def test_a_measurement_is_the_networks_own(watched):
    networks, _, learning = watched
    x, target, mask = TASK.batch(watching.IMAGES, 0, True)
    for name, measured in zip(learning.names, learning.accuracy[:, -1], strict=True):
        with torch.no_grad():
            logits = networks[name](x)
        right = (logits.reshape(len(x), 4, TASK.classes, 12, 12).argmax(2) == target).double()
        by_question = [right[:, q][:, mask[q]].mean().item() for q in range(4)]
        both = (by_question[1] + by_question[2]) / 2  # -1 and +1
        assert measured == pytest.approx([both, by_question[0], by_question[3]], abs=1e-6)


def test_what_is_possible_is_what_the_index_maps_say(watched):
    # regions of 3: of one row away 2 in 3 are inside, of two rows 1 in 3, of three none
    chance = TASK.chance
    inside = np.array([2 / 3, 1 / 3, 0])
    assert watched[2].possible[0] == pytest.approx(inside + (1 - inside) * chance)
    assert watched[2].distances == [1, 2, 3]


def curve(*rows) -> Learning:
    accuracy = np.array(rows, float)[None, :, None]
    moments = 10 * np.arange(len(rows))
    return Learning(["a"], [1], moments, accuracy, np.array([[0.75]]), 0.25, "width")


def test_when_something_is_learnt():
    assert curve(0.25, 0.5, 0.71, 0.6).learnt_after() == 20
    assert np.isnan(curve(0.25, 0.5).learnt_after()).all()
    assert curve(0.25, 0.5).shortfall == pytest.approx(0.25)
    assert curve(0.25, 0.8).shortfall == 0
    guess = Learning(["a"], [1], np.array([0]), np.full((1, 1, 1), 0.25), np.full((1, 1), 0.25),
                     0.25, "height")  # fmt: skip
    assert np.isnan(guess.learnt_after()).all()  # there is nothing to learn


def test_it_is_said_in_words(watched):
    assert "1 column away" in str(curve(0.25, 0.7))
    assert str(curve(0.25, 0.7)).endswith("within 6 points")  # rounded up
    assert watched[2].plot().text.count("%") == 6
    assert watched[1][0].plot().text == "nothing learnt yet"


def test_a_result_is_kept(watched, tmp_path):
    watched[2].save(tmp_path / "a.npz")
    loaded = Learning.load(tmp_path / "a.npz")
    assert str(loaded) == str(watched[2])
    assert (loaded.accuracy == watched[2].accuracy).all()


def test_a_growing_figure_keeps_its_text(watched, monkeypatch):
    shown = []

    class Handle:
        def update(self, thing):
            shown.append(thing)

    def display(thing, display_id):
        shown.append(thing)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    show = watching.live(every=3)
    for one in watched[1]:
        show(one)
    bundles = [one._repr_mimebundle_() for one in shown]
    assert len({bundle["text/plain"] for bundle in bundles}) == 1
    assert len({bundle["image/png"] for bundle in bundles}) == len(bundles) == 4
    assert shown[-1].learning is watched[1][-1]  # the last is always drawn


@pytest.mark.parametrize(
    ("networks", "settings", "said"),
    [({}, {}, "no network"), ({"a": network()}, {"steps": 0}, "steps"),
     ({"a": network()}, {"every": 0}, "every")],
)  # fmt: skip
def test_what_cannot_be_watched_is_refused(networks, settings, said):
    with pytest.raises(HirelabError, match=said):
        learn_beside(TASK, networks, **settings)

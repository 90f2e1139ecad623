"""The mode and precision that a network is run in, and what is asked of inputs and outputs."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import timm
import torch
from _helpers import random_images, randomise
from torch import nn

import hirelab as hl
from hirelab._shared.errors import HirelabError
from hirelab.hooks.forward import (
    at_least_float32,
    check_images,
    check_targets,
    class_name,
    eval_mode,
    frozen_eval,
    is_trained,
    model_name,
    to_model_device,
)


def test_eval_mode_gives_every_module_its_own_mode_back():
    net = hl.create("hire_mlp_atto", seed=0).train()
    net.stages[1].eval()  # frozen by its owner
    net.set_grad_checkpointing(True)
    modes = [m.training for m in net.modules()]
    with contextlib.suppress(ZeroDivisionError), eval_mode(net):
        assert not any(m.training for m in net.modules())
        assert not any(getattr(m, "grad_checkpointing", False) for m in net.modules())
        raise ZeroDivisionError
    assert [m.training for m in net.modules()] == modes
    assert any(getattr(m, "grad_checkpointing", False) for m in net.modules())


def test_frozen_eval_takes_no_gradients_of_parameters():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].weight.requires_grad_(False)
    with frozen_eval(net):
        assert not any(p.requires_grad for p in net.parameters())
        assert not torch.is_grad_enabled()
    assert [p.requires_grad for p in net.parameters()] == [False, True, True, True]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((1, 3, 8, 8)), "is a ndarray; give a tensor"),
        (torch.zeros(3, 8, 8), r"shape \[3, 8, 8\].*x\[None\]"),
        (torch.zeros(0, 3, 8, 8), "at least one image"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "holds torch.uint8"),
        (torch.full((1, 3, 8, 8), float("inf")), "NaN or infinite"),
    ],
)
def test_what_is_no_batch_of_images_is_refused(x, message):
    with pytest.raises(HirelabError, match=message):
        check_images(x)


def test_targets_in_every_form():
    logits = torch.tensor([[0.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert check_targets(None, logits).tolist() == [2, 0]
    for one in (1, np.int64(1), torch.tensor(1)):
        assert check_targets(one, logits).tolist() == [1, 1]
    for several in ([2, 1], (2, 1), np.array([2, 1]), torch.tensor([2, 1])):
        assert check_targets(several, logits).tolist() == [2, 1]
    for wrong, message in ((3, "0 to 2"), ([1], "1 classes for 2"), ("a", "'a'"), (0.0, "whole")):
        with pytest.raises(HirelabError, match=message):
            check_targets(wrong, logits)


def test_precision_and_device_follow_the_network():
    net, x = nn.Conv2d(3, 1, 1).bfloat16(), random_images(1, 3, 4)
    moved = to_model_device(net, x)
    assert moved.dtype == torch.bfloat16
    same = to_model_device(nn.Conv2d(3, 1, 1), x)
    assert same.data_ptr() != x.data_ptr()  # a copy, which may be written to
    assert at_least_float32(moved).dtype == torch.float32
    assert at_least_float32(x.double()).dtype == torch.float64


def test_names():
    assert model_name(timm.create_model("resnet18")) == "resnet18"
    net = nn.Linear(2, 2)
    assert model_name(net) == "Linear"
    assert class_name(net, 1) == "class 1"


def test_untrained_weights_are_told_from_trained_ones():
    batch = random_images()
    for net in (hl.create("hire_mlp_atto", seed=0), timm.create_model("resnet18", num_classes=3)):
        assert is_trained(net).trained is False
        assert not is_trained(net)
        # one step of training moves the statistics
        net.train()(batch)
        assert is_trained(net.eval()).trained is True
    mixer = timm.models.MlpMixer(img_size=64, patch_size=32, num_blocks=1, embed_dim=8)
    assert is_trained(mixer).trained is False
    assert is_trained(randomise(mixer))
    assert is_trained(nn.Linear(3, 3)).trained is None
    assert "no norm" in is_trained(nn.Linear(3, 3)).why
    # statistics that were carried over without a count of batches are trained ones
    resnet = randomise(timm.create_model("resnet18", num_classes=3))
    assert not any(int(b) for n, b in resnet.named_buffers() if n.endswith("batches_tracked"))
    assert is_trained(resnet).trained is True

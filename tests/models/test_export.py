"""Exported files compute what the network computes, also for sizes that they were not made with."""

from __future__ import annotations

import errno
import multiprocessing
import os
import resource
import signal

import numpy as np
import onnxruntime
import pytest
import torch
from _helpers import random_images, randomise

import hirelab as hl
from hirelab.cli import main
from hirelab.models.export import SMALLEST, export


@pytest.fixture(scope="module")
def model():
    """A small network whose norms are not at rest, so that a fold left out would show. Its first
    stage has a shifted block; exporting takes time by the block."""
    return randomise(hl.create("hire_mlp_atto", seed=0, num_classes=5, depths=(2, 1, 1, 1)))


def run(path, x):
    """The file's own answer, by the runtime that it is for."""
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(["logits"], {"pixels": x.numpy()})[0])
    with torch.no_grad():
        return torch.export.load(path).module()(x)


@pytest.mark.parametrize("format", ["onnx", "exported-program"])
def test_fixed_size_takes_any_batch(model, tmp_path, format):
    path = export(model, tmp_path / "net", format, img_size=64)
    for batch in (1, 3):
        x = random_images(batch, 3, 64, 64)
        torch.testing.assert_close(run(path, x), model(x), rtol=1e-4, atol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]  # nothing beside it


@pytest.mark.parametrize("format", ["onnx", "exported-program"])
def test_dynamic_size_takes_sizes_it_was_not_made_with(model, tmp_path, format):
    path = export(model, tmp_path / "net", format, img_size=128, dynamic_size=True)
    for height, width in ((128, 128), (SMALLEST, 161), (200, SMALLEST)):
        x = random_images(2, 3, height, width)
        torch.testing.assert_close(run(path, x), model(x), rtol=1e-4, atol=1e-5)


def test_onnx_without_padding_copies(tmp_path):
    """Zero padding and no restore take other paths through the index maps."""
    model = hl.create("hire_mlp_atto", seed=3, padding="zero", restore=False, depths=(2, 1, 1, 1))
    path = export(model, tmp_path / "net", "onnx", img_size=72)
    x = random_images(2, 3, 72, 72)
    torch.testing.assert_close(run(path, x), model(x), rtol=1e-4, atol=1e-5)


def test_refusals_name_the_cure_and_leave_nothing(model, tmp_path):
    with pytest.raises(ValueError, match="'onx'; choose one of onnx, exported-program"):
        export(model, tmp_path / "net", "onx")
    with pytest.raises(ValueError, match=f"img_size is 64; .* at least {SMALLEST} pixels"):
        export(model, tmp_path / "net", img_size=64, dynamic_size=True)
    with pytest.raises(ValueError, match=r"img_size is 2; .* at least 3 pixels"):
        export(model, tmp_path / "net", img_size=2)
    assert list(tmp_path.iterdir()) == []


def exporting(model, path, most, answer):
    """Export where a file may have so many bytes; without a limit, be killed at the new name."""
    if most:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    else:
        os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    try:
        export(model, path, "exported-program", img_size=64)
    except OSError as error:
        answer.put(error.errno)


def test_a_full_disk_and_a_kill_leave_nothing_that_looks_like_a_result(tmp_path):
    model = hl.create("hire_mlp_atto", seed=0, depths=(1, 1, 1, 1))
    fork = multiprocessing.get_context("fork")
    answer = fork.SimpleQueue()
    for most, end in ((10_000, 0), (0, -signal.SIGKILL)):
        arguments = (model, tmp_path / "net.pt2", most, answer)
        process = fork.Process(target=exporting, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == end
        left = [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")]
        assert left == []
    assert answer.get() == errno.EFBIG
    export(model, tmp_path / "net.pt2", "exported-program", img_size=64)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pt2"]


def test_command_exports_a_checkpoint(model, tmp_path, capsys):
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    command = ["export", str(tmp_path / "mine.pth"), "--format", "exported-program"]
    assert not main([*command, "--img-size", "64", "--out", str(tmp_path / "out")])
    x = random_images(1, 3, 64, 64)
    assert np.allclose(run(tmp_path / "out.pt2", x), model(x).detach(), rtol=1e-4, atol=1e-5)
    assert "out.pt2" in capsys.readouterr().out
    assert main(["export", str(tmp_path / "nothing.pth")]) == 2
    assert "nothing.pth" in capsys.readouterr().err

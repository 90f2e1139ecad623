"""The command line: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import errno
import os
import re
import runpy
import sys
from importlib.metadata import version
from unittest.mock import Mock

import pytest
import torch
from PIL import Image

import hirelab as hl
from hirelab import cli
from hirelab._shared import files as _files
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import pick, project_folder, write_atomic
from hirelab.ablation import protocols
from hirelab.dense import loop as dense_loop
from hirelab.dense import recipes as dense_recipes
from hirelab.hooks.forward import is_trained
from hirelab.lab import bench, info
from hirelab.models import export, pretrained
from hirelab.training import evaluation, recipes
from hirelab.training.runs import open_network


def test_help_says_what_every_command_does(capsys):
    commands = cli._parser().commands.choices
    assert {"lab", "info", "train", "evaluate", "data", "bench"} < set(commands)
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    for name, parser in commands.items():
        # whole lines are broken by the width of the terminal
        assert re.search(rf"^    {name}\s+{parser.description[:30]}", printed, re.M), name


def test_the_version_is_the_packages(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"hirelab {version('hirelab')}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["expotr", "runs/a"], "no command 'expotr'. Did you mean 'export'? `hirelab --help`"),
        (["data", "chek"], "no command 'chek'. Did you mean 'check'? `hirelab data --help`"),
        (["xyzzy"], "no command 'xyzzy'. `hirelab --help`"),
    ],
)
def test_a_mistyped_command_gets_near_ones(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["data"], ["lab", "--port", "many"], ["data", "get"]])
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: hirelab" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "x", "--out", "y", "--modle", "z"], "'--modle'. Did you mean '--mod"),
        (["lab", "--prot=3"], "'--prot'. Did you mean '--port'"),
        (
            ["info", "more", "words"],
            "more words is more than hirelab info takes; `hirelab info --help` says",
        ),
        (["data", "list", "--al"], "no option '--al'"),
        (
            ["dense", "train", "--task=detection", "--data=x", "--out=y", "--untraned"],
            "no option '--untraned'. Did you mean '--untrained'",
        ),
    ],
)
def test_a_mistyped_option_gets_near_ones(arguments, said, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    printed = capsys.readouterr().err
    assert said in printed
    assert f"usage: hirelab {arguments[0]}" in printed


def test_runs_as_a_module_and_says_a_user_error_in_one_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["hirelab", "gallery", "--notebooks", "no-such-folder"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("hirelab", run_name="__main__")
    printed = capsys.readouterr()
    assert printed.err == "hirelab: --notebooks: there is no folder no-such-folder\n"
    assert printed.out == ""


@pytest.mark.parametrize("command", ["lab", "notebooks", "gallery", "bench"])
def test_without_the_checkout_it_names_the_cure(command, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(_files, "ROOT", tmp_path)
    assert cli.main([command]) == 2
    said = capsys.readouterr().err
    assert "clone the repository" in said
    assert said.count("\n") == 1


def test_an_interruption_is_a_sentence_and_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(info, "report", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["info"]) == 130
    assert capsys.readouterr().err == "\nhirelab info: stopped by Ctrl-C, before its end\n"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_a_disk_that_refuses_is_a_sentence_with_the_file_and_the_cure(number, monkeypatch, capsys):
    refusal = OSError(number, os.strerror(number), "site/index.html")
    monkeypatch.setattr(info, "report", Mock(side_effect=refusal))
    assert cli.main(["info"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"hirelab: [Errno {number}] {os.strerror(number)}: 'site/index.html': ")
    assert "make room" in said
    assert said.count("\n") == 1


def test_a_folder_that_is_gone_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert cli.main(["info"]) == 2
    assert "folder that this was started in cannot be used" in capsys.readouterr().err


def test_streams_that_were_closed_take_what_is_written_to_them(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    bar = Mock(side_effect=lambda: sys.stderr.write("50 %") and sys.stdout.write("done") and "")
    monkeypatch.setattr(info, "report", bar)
    assert cli.main(["info"]) == 0
    bar.assert_called_once()


def test_any_other_error_of_the_system_is_not_hidden(monkeypatch):
    fault = OSError(errno.EBADF, os.strerror(errno.EBADF))
    monkeypatch.setattr(info, "report", Mock(side_effect=fault))
    with pytest.raises(OSError, match="Bad file descriptor"):
        cli.main(["info"])


def test_what_help_lists_is_what_there_is(capsys):
    """The lists stand in the parser, since help does not import what has them."""
    assert tuple(export.FORMATS) == cli.FORMATS
    assert tuple(protocols.PROFILES) == cli.PROFILES
    with pytest.raises(SystemExit, match="0"):
        cli.main(["train", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ", ".join(recipes.PRESETS) in text
    assert {task: set(kinds) for task, kinds in cli.DENSE_TASKS.items()} == {
        task: set(kinds) for task, kinds in dense_loop.TASKS.items()
    }
    with pytest.raises(SystemExit, match="0"):
        cli.main(["dense", "train", "--help"])
    assert ", ".join(dense_recipes.DENSE_PRESETS) in " ".join(capsys.readouterr().out.split())
    first, *others = (name.removeprefix("hire_mlp") for name in hl.model_names())
    assert f"hire_mlp{first}, {', '.join(others)}, or any of timm's" in text


@pytest.mark.parametrize("value", ["-1", "1.5", "many", ""])
def test_counts_are_checked_before_anything_is_imported(value, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(["train", "--data", "x", "--out", "y", f"--seed={value}"])
    assert f"--seed: {value!r} is no whole number of at least 0" in capsys.readouterr().err


def test_threads_are_those_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # and as it was when the test is over
    before, seen = torch.get_num_threads(), []

    def evaluated(*args, **kwargs):
        seen.append((torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]))
        raise HirelabError("seen")

    monkeypatch.setattr(evaluation, "evaluate_checkpoint", evaluated)
    try:
        assert cli.main(["evaluate", "x", "--threads", "3"]) == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(3, "3")]


# names of weights


def test_a_name_means_the_same_weights_everywhere():
    first, tagged = "hire_mlp_pico", "hire_mlp_pico.imagenette"
    one, info = open_network(first)
    other, too = open_network(tagged)
    assert info == too
    assert info.config.model == first
    key = "head.weight"
    made = hl.create(first, pretrained=True).state_dict()[key]
    assert torch.equal(one.state_dict()[key], made)
    assert torch.equal(other.state_dict()[key], made)
    isolated, _ = open_network("hire_mlp_pico.imagenette_isolated")
    assert not torch.equal(isolated.state_dict()[key], made)
    ours = {one for one in pretrained.bundled() if one.startswith("hire_mlp")}
    assert set(hl.model_names(pretrained=True)) > ours


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hire_mlp_pico.imagenett", "Did you mean 'hire_mlp_pico.imagenette'"),
        ("hire_mlp_tiny.imagenette", "Trained are .*hire_mlp_tiny"),
        ("hire_mlp_large", "no trained weights; trained are hire_mlp_atto.imagenette, "),
        ("hire_mlp_pica", "Did you mean"),
        ("runs/gone", "NAME or NAME.TAG"),
    ],
)
@pytest.mark.parametrize("command", ["export", "evaluate"])
def test_names_without_weights_are_said_alike(command, name, said, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, name]) == 2
    assert re.search(said, capsys.readouterr().err)
    assert not list(tmp_path.iterdir())


def test_random_weights_are_not_exported_under_the_name_of_trained_ones(
    monkeypatch, tmp_path, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["export", "hire_mlp_pico.imagenette", "--untrained"]) == 2
    assert "give 'hire_mlp_pico', or leave --untrained out" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_create_says_near_names_of_arguments():
    with pytest.raises(HirelabError, match=r"no argument 'regionn'\. Did you mean 'region'"):
        hl.create("hire_mlp_atto", regionn=3)


def test_create_knows_the_same_tags():
    with pytest.raises(HirelabError, match=r"Did you mean 'hire_mlp_pico\.imagenette'"):
        hl.create("hire_mlp_pico.imagenett", pretrained=True)


def test_export_calls_the_file_as_the_network_and_refuses_a_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    written = []

    def keep(model, path, *rest, **more):
        written.append((model, path))
        assert more == {"rearrangeable": False, "points": None}

    monkeypatch.setattr(export, "export", keep)
    assert cli.main(["export", "hire_mlp_pico.imagenette", "--format", "exported-program"]) == 0
    assert cli.main(["export", "hire_mlp_atto", "--untrained"]) == 0
    (trained, one), (untrained, other) = written
    assert [str(one), str(other)] == ["hire_mlp_pico.imagenette.pt2", "hire_mlp_atto.onnx"]
    assert (is_trained(trained).trained, is_trained(untrained).trained) == (True, False)
    monkeypatch.undo()
    folder = ["--out", str(tmp_path)]
    assert cli.main(["export", "hire_mlp_pico", "--format", "exported-program", *folder]) == 2


def test_evaluate_says_what_it_does_beside_its_output(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path))
    model = hl.create("hire_mlp_atto", seed=0, num_classes=4)
    torch.save(model.state_dict(), tmp_path / "mine.pth")
    asked = [str(tmp_path / "mine.pth"), "--data", "photo-crops", "--img-size", "32"]
    assert cli.main(["evaluate", *asked]) == 0
    printed = capsys.readouterr()
    assert re.fullmatch(r"top-1 [^\n]*on 32 images at 32 x 32[^\n]*\n", printed.out)
    first, second = printed.err.splitlines()[:2]
    assert first == f"evaluating {asked[0]} ..."
    cache = tmp_path / "decoded"
    (array,) = cache.glob("*.npy")
    assert second.startswith("32 images of photo-crops; ")
    assert str(cache) in second
    assert f"{array.stat().st_size / 1e6:,.0f} MB" in second


# info


def test_info_names_versions_device_and_threads(capsys):
    assert cli.main(["info"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {*info.PACKAGES, "python", "device", "threads", "HIRELAB_DATA", "HIRELAB_CACHE"} <= set(
        facts
    )
    assert facts["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


def test_info_lists_the_archives_of_the_data_folder(monkeypatch, tmp_path):
    (tmp_path / "small.zip").write_bytes(b"x" * 100_000)
    (tmp_path / "notes.md").touch()
    (tmp_path / "folder.zip").mkdir()
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    printed = info.report()
    assert f"{tmp_path} (1 archive)" in printed
    assert "small.zip, 0.1 MB" in printed
    assert "notes.md" not in printed


def test_info_says_which_data_sets_it_recognises(monkeypatch, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    (first / "imagenette2-320").mkdir(parents=True)
    second.mkdir()
    (second / "tiny-imagenet-200.zip").touch()
    monkeypatch.setenv("HIRELAB_DATA", os.pathsep.join(map(str, (first, second))))
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    printed = re.sub(" +", " ", info.report())
    assert f"\nHIRELAB_DATA {first} (0 archives)\n {second} (1 archive)\n" in printed
    assert printed.endswith(
        f"\ndata sets imagenette-320: {first}/imagenette2-320\n"
        f" tinyimagenet: {second}/tiny-imagenet-200.zip\n"
        " not here: imagenette, imagenette-full, imagenet, coco, ade20k, camvid, voc"
    )


def test_info_says_that_the_data_folder_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path / "gone"))
    assert "(there is no such folder)" in info.report()


# data


def test_data_lists_finds_and_checks(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    folder = tmp_path / "imagenette2-160"
    (folder / "val" / "cat").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(folder / "val" / "cat" / "a.png")
    assert cli.main(["data", "list"]) == 0
    assert str(folder) in capsys.readouterr().out
    for command in ("where", "get"):
        assert cli.main(["data", command, "imagenette"]) == 0
        assert capsys.readouterr().out == f"{folder}\n"
    assert cli.main(["data", "check", str(folder)]) == 0
    assert "every image can be read" in capsys.readouterr().out
    assert cli.main(["data", "check", "imagenette"]) == 1  # not as many as published
    assert cli.main(["data", "where", "imagenete"]) == 2
    assert "Did you mean 'imagenette'" in capsys.readouterr().err


def test_data_get_says_where_a_publisher_has_what_it_does_not_bring(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path))
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "own"))
    assert cli.main(["data", "get", "coco"]) == 2
    said = capsys.readouterr().err
    for part in ("images.cocodataset.org", "20,400 MB", "CC BY 4.0", "put a folder coco/ with tra"):
        assert part in said
    assert cli.main(["data", "check", "scenes"]) == 0
    assert "boxes" in capsys.readouterr().out


# bench


@pytest.fixture
def benchmarks(monkeypatch, tmp_path):
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "_helper.py").write_text("WORD = 'helped'\n")
    (folder / "quick.py").write_text(
        '"""Time of nothing.\n\nMore."""\nfrom _helper import WORD\n'
        "def main() -> None:\n    print(WORD)\n"
    )
    (folder / "broken.py").write_text("def main() -> None:\n    raise RuntimeError\n")
    monkeypatch.setattr(_files, "ROOT", tmp_path)
    return folder


def test_bench_lists_without_running(benchmarks, capfd):
    assert cli.main(["bench", "--list"]) == 0
    assert capfd.readouterr().out == "broken: (no description)\nquick: Time of nothing.\n"


def test_bench_runs_what_is_named(benchmarks, capfd):
    assert cli.main(["bench", "quick"]) == 0
    assert capfd.readouterr().out == "quick: Time of nothing.\nhelped\n"


def test_bench_reports_a_failure(benchmarks, capfd):
    assert cli.main(["bench"]) == 1
    assert "helped" in capfd.readouterr().out  # the others ran all the same


def test_a_benchmark_that_is_interrupted_ends_without_a_traceback(benchmarks, capfd):
    path = benchmarks / "stopped.py"
    path.write_text("def main() -> None:\n    raise KeyboardInterrupt\n")
    assert bench.run(path) == 130
    assert not capfd.readouterr().err


def test_bench_suggests_near_names(benchmarks):
    with pytest.raises(HirelabError, match="quick"):
        bench.find_benchmarks(benchmarks, ["quik"])


# files


def test_pick_takes_names_with_or_without_suffix(tmp_path):
    files = [tmp_path / "a.py", tmp_path / "b.py"]
    assert pick(files, [], "file") == files
    assert pick(files, ["b.py", "a"], "file") == files[::-1]


def test_project_folder_is_the_checkouts():
    assert (project_folder("notebooks") / "README.md").is_file()


def test_write_atomic_writes_text_and_bytes_into_new_folders(tmp_path):
    write_atomic(tmp_path / "new" / "a.txt", "é")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é".encode()
    write_atomic(tmp_path / "new" / "a.txt", b"\x00")
    assert (tmp_path / "new" / "a.txt").read_bytes() == b"\x00"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


def test_write_atomic_keeps_permissions_and_gives_usual_ones(tmp_path):
    path, usual = tmp_path / "a", tmp_path / "usual"
    usual.touch()
    write_atomic(path, "1")
    assert path.stat().st_mode == usual.stat().st_mode
    path.chmod(0o640)
    write_atomic(path, "2")
    assert path.stat().st_mode & 0o777 == 0o640


def test_write_atomic_leaves_the_old_file_when_interrupted(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(_files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


# dense networks


def test_dense_trains_goes_on_and_evaluates(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HIRELAB_CACHE", str(tmp_path / "cache"))
    out = tmp_path / "run"
    asked = ["dense", "train", "--task", "segmentation", "--data", "scenes", "--out", str(out)]
    asked += ["--head", "fpn", "--model", "hire_mlp_atto", "--untrained"]
    asked += ["--set", "epochs=1", "batch_size=16", "crop=64"]
    assert cli.main(asked) == 0
    trained = capsys.readouterr().out.splitlines()[-1]
    assert trained.startswith("mIoU ")
    assert cli.main(asked) == 0  # done: nothing is trained again
    assert capsys.readouterr().out.splitlines()[-1] == trained
    assert cli.main(["dense", "evaluate", str(out), "--by-class"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == trained
    assert [line.split(":")[0] for line in said[1:]] == ["background", "disc", "square", "triangle"]
    assert cli.main(["dense", "evaluate", str(out), "--multi-scale"]) == 0
    assert "6 scales and mirrored" in capsys.readouterr().out
    assert cli.main(["dense", "evaluate", str(out), "--pad", "64"]) == 0
    plain = capsys.readouterr().out
    assert "on a canvas 64 pixels larger" in plain
    assert cli.main(["dense", "evaluate", str(out), "--pad", "64", "--masked"]) == 0
    masked = capsys.readouterr().out
    assert "which the gates do not hear" in masked
    assert trained.split(" on ")[0] != plain.split(" on ")[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--task", "detectoin"], "Did you mean 'detection'"),
        (["--task", "detection", "--head", "fpn"], "There are mask_rcnn, retinanet"),
        (["--task", "detection", "--preset", "2x"], "1x, 3x"),
        (["--task", "detection", "--set", "epoch=3"], "Did you mean 'epochs'"),
    ],
)
def test_dense_says_what_it_does_not_know(changes, said, tmp_path, capsys):
    given = ["dense", "train", "--data", "scenes", "--out", str(tmp_path / "x"), *changes]
    assert cli.main(given) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()

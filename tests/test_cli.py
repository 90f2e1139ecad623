"""The command line: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import os
import re
import runpy
import sys
from importlib.metadata import version

import pytest
from PIL import Image

from hirelab import cli
from hirelab._shared import files as _files
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import pick, project_folder, write_atomic
from hirelab.lab import bench, info


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


def test_an_interruption_is_no_traceback(monkeypatch):
    monkeypatch.setattr(info, "report", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert cli.main(["info"]) == 130


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
        " not here: imagenette, imagenette-full, imagenet"
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

"""The command line: what it prints, what it refuses, how it exits."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from hirelab import cli
from hirelab._shared import files as _files
from hirelab._shared.errors import HirelabError
from hirelab._shared.files import pick, project_folder, write_atomic
from hirelab.lab import bench, info
from hirelab.lab import jupyter as lab

COMMANDS = ["lab", "info", "notebooks", "gallery", "export", "train", "recipes", "evaluate"]
COMMANDS += ["release", "data", "bench"]


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    printed = capsys.readouterr().out
    listed = re.findall(r"^    (\w+)", printed, re.MULTILINE)
    assert sorted(listed) == sorted(COMMANDS)


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["lab", "--port", "many"]])
def test_wrong_arguments_exit_with_2(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.main(arguments)
    assert "usage: hirelab" in capsys.readouterr().err


def test_runs_as_a_module_and_says_a_user_error_in_one_sentence():
    asked = subprocess.run(
        [sys.executable, "-m", "hirelab", "gallery", "--notebooks", "no-such-folder"],
        capture_output=True,
        text=True,
    )
    assert asked.returncode == 2
    assert asked.stderr == "hirelab: --notebooks: there is no folder no-such-folder\n"
    assert asked.stdout == ""


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


# lab


def test_lab_listens_here_only_and_keeps_the_token(tmp_path):
    (tmp_path / lab.FIRST).touch()
    arguments = lab.lab_arguments(tmp_path, port=9000, browser=False)
    assert "--ServerApp.ip=127.0.0.1" in arguments
    assert "--ServerApp.port=9000" in arguments
    assert "--ServerApp.port_retries=0" in arguments
    assert "--no-browser" in arguments
    assert "--allow-root" not in arguments
    assert f"--LabApp.default_url=/lab/tree/{lab.FIRST}" in arguments
    assert not any("token" in argument or "password" in argument for argument in arguments)


def test_lab_starts_for_root_only_when_told_to(tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(lab.os, "execv", lambda _, arguments: started.append(arguments))
    assert cli.main(["lab", "--notebooks", str(tmp_path), "--allow-root"]) == 0
    assert started[0][1:3] == ["-m", "jupyterlab"]
    assert "--allow-root" in started[0]


def test_lab_opens_a_folder_without_the_first_notebook(tmp_path):
    arguments = lab.lab_arguments(tmp_path)
    assert not any("default_url" in argument or "port" in argument for argument in arguments)


# info


def test_info_names_versions_device_and_threads(capsys):
    assert cli.main(["info"]) == 0
    facts = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert {*info.PACKAGES, "python", "device", "threads", "HIRELAB_DATA", "data"} <= set(facts)
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


def test_info_says_that_the_data_folder_is_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HIRELAB_DATA", str(tmp_path / "gone"))
    assert "(there is no such folder)" in info.report()


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
        bench.find(benchmarks, ["quik"])


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

"""The workflow for the code host: valid by the host's schema, and in step with this project."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hirelab import cli

ROOT = Path(__file__).parent.parent
FILE = ROOT / ".github" / "workflows" / "site.yml"
WORKFLOW = yaml.safe_load(FILE.read_text())
JOBS = WORKFLOW["jobs"]


def lint(path: Path) -> int:
    """The exit status of the linter, which brings the host's schema with it."""
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, str(path)]
    return subprocess.run(command, capture_output=True, check=False).returncode


def test_it_is_valid_by_the_host_s_schema():
    assert lint(FILE) == 0


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("runs-on:", "run-on:"), ("contents: read", "contents: reed"), ("needs: test", "need: test")],
)
def test_the_linter_sees_a_slip(right, wrong, tmp_path):
    text = FILE.read_text()
    assert right in text
    (tmp_path / "site.yml").write_text(text.replace(right, wrong))
    assert lint(tmp_path / "site.yml") == 1


def test_jobs_wait_for_jobs_that_there_are_and_the_site_for_the_tests():
    assert {job["needs"] for job in JOBS.values() if "needs" in job} <= JOBS.keys()
    assert JOBS["site"]["needs"] == "test"
    assert JOBS["publish"]["needs"] == "site"


def test_it_calls_what_is_there():
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    steps = [step["run"] for job in JOBS.values() for step in job["steps"] if "run" in step]
    assert steps == [".ci/run", "make gallery"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")
    assert {"gallery", "test"} <= set(targets)


def test_what_is_published_is_the_folder_that_the_command_writes():
    (upload,) = (s for s in JOBS["site"]["steps"] if "upload-pages" in s.get("uses", ""))
    assert upload["with"]["path"] == str(cli._parser().parse_args(["gallery"]).out)


def test_only_the_job_that_publishes_may_write_and_only_from_main():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    may_write = {name for name, job in JOBS.items() if "permissions" in job}
    assert may_write == {"publish"}
    for name in ("site", "publish"):
        assert JOBS[name]["if"] == "github.ref == 'refs/heads/main'"


def test_every_action_is_the_host_s_own_and_pinned_to_a_version():
    used = [step["uses"] for job in JOBS.values() for step in job["steps"] if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"actions/[a-z-]+@v\d+", action)] == []

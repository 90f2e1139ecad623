"""The README's code runs as it stands."""

import re
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_library_in_15_lines_runs_and_is_15_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # it saves an image
    code = re.search(r"```python\n(.*?)```", README.read_text(), re.DOTALL).group(1)
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "cam.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    for part in ("'shift': -2", "stages.2.blocks.1.hire.gate.out", "Look at features"):
        assert part in said
    assert len([line for line in code.splitlines() if line.strip()]) == 15


def test_every_local_link_leads_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README.read_text())
    local = [t for t in targets if not t.startswith("http")]
    assert local
    assert [t for t in local if not (README.parent / t).exists()] == []

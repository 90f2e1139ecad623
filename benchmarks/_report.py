"""Tables that benchmarks print and keep: data/results/NAME.md, and between markers in the README.

A number in the README is therefore always one that a command printed. ``python
benchmarks/_report.py`` copies the kept tables into the README.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hirelab._shared.files import ROOT, write_atomic
from hirelab.results import hardware, versions

RESULTS = ROOT / "data" / "results"


def machine() -> str:
    """Where and with what the numbers were made, in a line."""
    kinds = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{date.today()}: {hardware()}; {kinds}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned so that it also reads as text."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    out = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([out[0], rule, *out[1:]])


def publish(name: str, text: str) -> None:
    """Print a benchmark's tables and keep them with the machine's description."""
    text = f"{text}\n\n*{machine()}. Command: `hirelab bench {name}`.*\n"
    print(text, flush=True)
    write_atomic(RESULTS / f"{name}.md", text)


def into_readme(readme: Path = ROOT / "README.md") -> None:
    """Put every kept table between its markers, ``<!-- bench:NAME -->`` and ``<!-- end -->``."""
    page = readme.read_text(encoding="utf-8")
    for kept in sorted(RESULTS.glob("*.md")):
        block = re.compile(rf"(<!-- bench:{kept.stem} -->\n).*?(<!-- end -->)", re.DOTALL)
        text = kept.read_text(encoding="utf-8").replace("\\", r"\\")
        page = block.sub(rf"\g<1>{text}\g<2>", page)
    write_atomic(readme, page)


if __name__ == "__main__":
    into_readme()

"""What benchmarks print, they keep: in data/results/NAME.md and between markers in the documents.

A number in docs/benchmarks.md or in the README is therefore always one that a command printed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hirelab._shared import tables
from hirelab._shared.files import project_folder, write_atomic
from hirelab.results import hardware, versions

DOCUMENTS = ("docs/benchmarks.md", "docs/testing.md", "README.md")
_BLOCK = re.compile(
    r"(?P<start><!-- bench:(?P<name>\w+)(?P<part> table)? -->\n).*?(?P<end><!-- end -->)", re.DOTALL
)


def machine() -> str:
    """Where and with what the numbers were made, in a line."""
    kinds = ", ".join(f"{name} {version}" for name, version in versions().items())
    return f"{date.today()}: {hardware()}; {kinds}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned so that it also reads as text."""
    return tables.table([head, *rows], markdown=True)


def report(name: str, text: str) -> None:
    """Print a benchmark's tables with the machine's description, and keep them.

    Raises:
        HirelabError: hirelab is installed without its checkout.
    """
    text = f"{text}\n\n*{machine()}. Command: `hirelab bench {name}`.*\n"
    print(text, flush=True)
    results = project_folder("data") / "results"
    write_atomic(results / f"{name}.md", text)
    for document in DOCUMENTS:
        path = results.parents[1] / document
        write_atomic(path, filled(path.read_text(encoding="utf-8"), results))


def filled(page: str, results: Path) -> str:
    """Return ``page`` with every kept result between its markers.

    ``<!-- bench:NAME -->`` to ``<!-- end -->`` holds all of it, ``<!-- bench:NAME table -->`` its
    first table and the last line, which names the machine. A result not kept yet leaves its block.
    """

    def fill(block: re.Match[str]) -> str:
        kept = results / f"{block['name']}.md"
        if not kept.is_file():
            return block[0]
        text = kept.read_text(encoding="utf-8")
        if block["part"]:
            first, *_, last = text.split("\n\n")
            text = f"{first}\n\n{last}"
        return f"{block['start']}{text}{block['end']}"

    return _BLOCK.sub(fill, page)

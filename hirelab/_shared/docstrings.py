"""What a docstring says first."""

from __future__ import annotations

import re


def summary(docstring: str | None) -> str:
    """Return the first paragraph as one line, without the marks of code."""
    return " ".join(re.split(r"\n\s*\n", (docstring or "").strip())[0].replace("`", "").split())

"""The frozen page of an explorer: one HTML file with every image inside and sliders that move."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from typing import Any

from ..viz import theme


def frozen_page(
    title: str,
    controls: Sequence[tuple[str, Sequence[Any]]],
    start: Sequence[int],
    frames: Sequence[tuple[bytes, str]],
) -> str:
    """A page with every image inside, and a few lines of script that choose one.

    Args:
        title: heading of the page.
        controls: label and values of every slider.
        start: where each slider stands at first, as an index of its values.
        frames: an image (PNG, empty for none) and a text for every combination of values, those
            of the last slider moving fastest.
    """
    rows = "".join(
        f"<label><span>{html.escape(label)}</span>"
        f'<input type="range" min="0" max="{len(values) - 1}" value="{first}" '
        f'aria-label="{html.escape(label)}"><output></output></label>'
        for (label, values), first in zip(controls, start, strict=True)
    )
    shown = [
        {"png": base64.b64encode(image).decode("ascii"), "text": text} for image, text in frames
    ]
    names = [[str(value) for value in values] for _, values in controls]
    data = json.dumps({"values": names, "frames": shown})
    data = data.replace("<", r"\u003c")  # no text can end the script, or begin a comment in it
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
body {{ font: 17px/1.5 system-ui, sans-serif; color: {theme.INK}; max-width: 1080px;
       margin: 2rem auto; padding: 0 1rem; }}
label {{ display: grid; grid-template-columns: 15rem 1fr 7rem; gap: 1rem; align-items: center; }}
input {{ width: 100%; }}
img {{ width: 100%; margin-top: 1rem; }}
p {{ color: {theme.MUTED}; min-height: 3em; }}
</style></head><body>
<h1>{html.escape(title)}</h1>
<div id="controls">{rows}</div>
<img id="image" alt=""><p id="facts"></p>
<script>
const data = {data};
const inputs = [...document.querySelectorAll("input")];
const image = document.getElementById("image"), facts = document.getElementById("facts");
function show() {{
  let index = 0;
  inputs.forEach((input, i) => {{
    index = index * data.values[i].length + Number(input.value);
    input.nextElementSibling.textContent = data.values[i][input.value];
  }});
  const frame = data.frames[index];
  if (frame.png) image.src = "data:image/png;base64," + frame.png;
  image.style.opacity = frame.png ? 1 : 0.35;
  image.alt = facts.textContent = frame.text;
}}
inputs.forEach(input => input.addEventListener("input", show));
show();
</script></body></html>
"""

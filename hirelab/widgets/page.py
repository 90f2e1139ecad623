"""The frozen page of an explorer: one HTML file with every image inside and controls that move.

Also what a frozen page and the gallery's other pages share: colours, type, the bar of links.
"""

from __future__ import annotations

import base64
import html
import io
import json
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from PIL import Image

from ..viz import theme
from .controls import Choice, Control, Slider, Toggle

PHOTOGRAPH = 4096  # colours; drawings have under 2000 with the greys of their letters
PHOTOGRAPH_WIDTH = 1440  # pixels; a page shows 1000, so letters stay sharp at half the weight

# Every text has a contrast of 4.5 : 1 or more on what it stands on; a test computes it.
STYLE = """
:root {
  color-scheme: light dark;
  --ink: #1b1f24; --quiet: #57606a; --line: #d0d7de; --wash: #f6f8fa; --paper: #ffffff;
  --link: #0b57a4; --warn: #b35900;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ink: #e6e9ee; --quiet: #a7b0bb; --line: #3d4651; --wash: #1c2229; --paper: #12161b;
    --link: #86bcff; --warn: #f0a050;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  max-width: 65rem; margin: 0 auto; padding: 0.5rem 1.25rem 3rem;
  color: var(--ink); background: var(--paper);
  font: 17px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  overflow-wrap: break-word;
}
h1, h2, h3 { line-height: 1.25; }
a { color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
img { max-width: 100%; height: auto; background: #ffffff; }

/* The header, the same on every page of a site */
.site {
  display: flex; flex-wrap: wrap; align-items: center; gap: 0 1.5rem;
  margin-bottom: 0.5rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line);
}
.site a { text-decoration: none; }
.site a:hover { text-decoration: underline; }
.site .home {
  display: flex; align-items: center; gap: 0.5rem; padding: 0.4rem 0; font-weight: 700;
  color: var(--ink);
}
.site .home svg { width: 1.25rem; height: 1.25rem; }
.site nav { flex-wrap: wrap; gap: 0 1.2rem; }
.site nav > a { min-width: 0; }
.site form { flex: 0 1 15rem; min-width: 9rem; margin-left: auto; }
.site input {
  width: 100%; min-height: 2.25rem; padding: 0 0.6rem; font: inherit; font-size: 1rem;
  color: var(--ink); background: var(--wash); border: 1px solid var(--quiet); border-radius: 6px;
}
.site input::placeholder { color: var(--quiet); opacity: 1; }

/* The bar of links: one line, however long the titles are */
nav { display: flex; gap: 1rem; justify-content: space-between; font-size: 0.95rem; }
nav > * { display: flex; gap: 0.35rem; min-width: 2.75rem; padding: 0.55rem 0; }
nav > .index { flex-shrink: 0; }
nav span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
@media (max-width: 40rem) {
  body { padding: 0 1rem 2rem; }
  .site form { flex-basis: 9rem; }
  .site nav { order: 3; width: 100%; justify-content: space-between; }
}
"""

# A map of tokens whose middle row is shifted, as an icon and in the header
_TOKENS = "".join(
    f'<rect x="{x}" y="{y}" width="9" height="9" rx="2" fill="{color}"/>'
    for y, start, color in (
        (0, 0, theme.BRANCH["height"]),
        (11.5, 5.5, theme.BRANCH["width"]),
        (23, 0, theme.BRANCH["channel"]),
    )
    for x in (start, start + 11.5)
)
MARK = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 26 32" aria-hidden="true">'
    f"{_TOKENS}</svg>"
)
FAVICON = f"data:image/svg+xml,{quote(MARK)}"

_PAGE_STYLE = """
h1 { font-size: 1.6rem; margin: 0.6rem 0; }
#controls {
  display: grid; gap: 0.4rem 1.5rem; margin: 0.5rem 0;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr));
}
.control { display: grid; grid-template-columns: 1fr auto; align-items: center; min-width: 0; }
.control > input[type=range], .control > select { grid-column: 1 / -1; width: 100%; }
.control.plays > input[type=range] { grid-column: 1; }
.control > input[type=range] { height: 2.25rem; margin: 0; accent-color: var(--link); }
.control > select, button {
  min-height: 2.25rem; padding: 0 0.6rem; font: inherit; font-size: 0.95rem;
  color: var(--ink); background: var(--wash); border: 1px solid var(--quiet); border-radius: 6px;
}
.control.plays > button { min-width: 4.5rem; margin-left: 0.75rem; }
.control.yes {
  display: flex; flex-direction: row-reverse; justify-content: flex-end; gap: 0.6rem;
  min-height: 2.75rem;
}
.control.yes input { width: 1.4rem; height: 1.4rem; margin: 0; accent-color: var(--link); }
output { justify-self: end; color: var(--quiet); font-variant-numeric: tabular-nums; }
figure { margin: 0.5rem 0 0; overflow-x: auto; }
figure img { display: block; width: 100%; border-radius: 4px; }
#larger { display: none; }
@media (max-width: 40rem) {
  #larger { display: block; margin-top: 0.5rem; }
  figure.large img { width: 48rem; max-width: none; }
}
#facts { min-height: 3.2em; margin: 0.5rem 0 0; color: var(--quiet); font-size: 0.95rem; }
.control:has(:disabled) { color: var(--quiet); }
#others { margin: 0.5rem 0 0; color: var(--quiet); font-size: 0.95rem; }
.embedded body { max-width: none; padding: 0.25rem; }
.embedded header, .embedded nav, .embedded h1 { display: none; }
"""

_SCRIPT = """
const inputs = [...document.querySelectorAll("#controls input, #controls select")];
const image = document.getElementById("image"), facts = document.getElementById("facts");
const sizes = data.values.map(values => values.length);
const wanted = [...data.start];  // where the reader left each control, as a place of its values
const open = inputs.map(() => []);  // the places that each has, where those before it stand
// what stands in the list of frames between two places of a control
const steps = sizes.map((_, i) => sizes.slice(i + 1).reduce((all, size) => all * size, 1));
const drawn = [...data.frames.keys()].filter(index => data.frames[index])
  .map(index => sizes.map((size, i) => Math.floor(index / steps[i]) % size));
function read(input, i) {  // what the reader has moved
  if (input.type === "checkbox")
    wanted[i] = input.checked ? Number(input.dataset.yes) : 1 - input.dataset.yes;
  else wanted[i] = input.type === "range" ? open[i][input.value] : Number(input.value);
}
function put(input, i, place) {
  input.disabled = open[i].length < 2;
  if (input.type === "checkbox") input.checked = place === Number(input.dataset.yes);
  else if (input.type === "range") {
    input.max = open[i].length - 1;
    input.value = open[i].indexOf(place);
    const words = data.values[i][place];
    input.setAttribute("aria-valuetext", words);
    document.querySelector(`output[for="${input.id}"]`).textContent = words;
  } else {
    input.value = place;
    [...input.options].forEach(option => {
      option.hidden = option.disabled = !open[i].includes(Number(option.value));
    });
  }
  document.querySelectorAll(`button.play[data-moves="${input.id}"]`).forEach(button => {
    button.disabled = input.disabled;
  });
}
function show() {
  let left = drawn, index = 0;
  inputs.forEach((input, i) => {
    open[i] = [...new Set(left.map(at => at[i]))].sort((a, b) => a - b);
    const far = place => Math.abs(place - wanted[i]);
    const place = open[i].reduce((best, next) => far(next) < far(best) ? next : best);
    put(input, i, place);
    left = left.filter(at => at[i] === place);
    index += place * steps[i];
  });
  const frame = data.frames[index];
  image.src = data.images[frame.image];
  image.alt = facts.textContent = frame.text;
}
inputs.forEach((input, i) => input.addEventListener("input", () => { read(input, i); show(); }));
document.querySelectorAll("button.play").forEach(button => {
  const input = document.getElementById(button.dataset.moves);
  let clock = 0;
  function stop() {
    clearInterval(clock);
    clock = 0;
    button.textContent = "Play";
    facts.setAttribute("aria-live", "polite");
  }
  button.addEventListener("click", () => {
    if (clock) return stop();
    button.textContent = "Stop";
    facts.setAttribute("aria-live", "off");  // nobody can listen to a film of sentences
    clock = setInterval(() => {
      input.value = input.value === input.max ? 0 : Number(input.value) + 1;
      read(input, inputs.indexOf(input));
      show();
    }, Number(button.dataset.pause));
  });
  input.addEventListener("input", () => clock && stop());  // the reader takes over
});
const larger = document.getElementById("larger");
larger.addEventListener("click", () => {
  const large = document.querySelector("figure").classList.toggle("large");
  larger.setAttribute("aria-pressed", large);
});
show();
if (window !== window.parent) {  // inside a notebook's page, which makes room for it
  document.documentElement.classList.add("embedded");
  const tell = () => parent.postMessage({ explorerHeight: document.body.offsetHeight }, "*");
  new ResizeObserver(tell).observe(document.body);
}
"""


def webp(image: Image.Image) -> bytes:
    """The image as WebP: a drawing pixel for pixel, one with photographs a little smaller.

    Half the weight of a PNG with a palette, or a third of a JPEG that looks the same.
    """
    file = io.BytesIO()
    if image.getcolors(PHOTOGRAPH):
        image.save(file, "WEBP", lossless=True, quality=80, method=4)
    else:
        height = round(image.height * PHOTOGRAPH_WIDTH / image.width)
        if image.width > PHOTOGRAPH_WIDTH:
            image = image.resize((PHOTOGRAPH_WIDTH, height), Image.Resampling.LANCZOS)
        image.save(file, "WEBP", quality=72, method=4)
    return file.getvalue()


def data_address(image: bytes) -> str:
    """An encoded image of any kind as a ``data:`` address."""
    kind = Image.open(io.BytesIO(image)).get_format_mimetype()
    return f"data:{kind};base64,{base64.b64encode(image).decode('ascii')}"


def html_page(title: str, style: str, body: str, description: str = "") -> str:
    """A page that holds its style: what every page of the gallery is.

    ``description`` is what search engines and previews of links show of it.
    """
    about = f'<meta name="description" content="{html.escape(description)}">\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
{about if description else ""}<link rel="icon" href="{FAVICON}">
<style>{STYLE}{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def with_links(page: str, nav: str) -> str:
    """The page with a bar of links above everything else."""
    return page.replace("<body>\n", f"<body>\n{nav}", 1)


def frozen_page(
    title: str,
    controls: Sequence[tuple[Control, Sequence[Any]]],
    start: Sequence[int],
    frames: Sequence[tuple[bytes, str] | None],
    description: str = "",
    others: Sequence[str] = (),
) -> str:
    """A page with every image inside, and a few lines of script that choose one.

    Args:
        title: heading of the page.
        controls: each control and the values that it takes here.
        start: where each stands at first, as an index of its values.
        frames: an encoded image and a text for every combination of values, those of the last
            control moving fastest; None for one that is not to be offered, not at ``start``. An
            image that comes twice is held once.
        description: see `html_page`.
        others: the labels of controls that move only where a kernel runs.
    """
    rows = "\n".join(
        _row(f"control-{i}", control, values, first)
        for i, ((control, values), first) in enumerate(zip(controls, start, strict=True))
    )
    drawn = dict.fromkeys(frame[0] for frame in frames if frame)
    images = {image: i for i, image in enumerate(drawn)}
    data = {
        "values": [_names(control, values) for control, values in controls],
        "images": [data_address(image) for image in images],
        "frames": [frame and {"image": images[frame[0]], "text": frame[1]} for frame in frames],
        "start": list(start),
    }
    width, height = Image.open(io.BytesIO(next(iter(images)))).size
    written = json.dumps(data, ensure_ascii=False)
    written = written.replace("<", r"\u003c")  # no text can end the script, or begin a comment
    body = f"""<main>
<h1>{html.escape(title)}</h1>
<div id="controls">
{rows}
</div>
<figure><img id="image" alt="" width="{width}" height="{height}"></figure>
<button id="larger" type="button" aria-pressed="false">Larger picture</button>
<p id="facts" role="status"></p>
{_others_html(others)}
<noscript><p>The controls need JavaScript; nothing is loaded from elsewhere.</p></noscript>
</main>
<script>
const data = {written};
{_SCRIPT}</script>"""
    return html_page(title, _PAGE_STYLE, body, description)


def _others_html(labels: Sequence[str]) -> str:
    """A line that names the controls which the page lacks."""
    if not labels:
        return ""
    words = "Here each control has some of its positions. In JupyterLab it has all, and these move "
    words += f"too: {'; '.join(labels)}."
    return f'<p id="others">{html.escape(words)}</p>'


def _names(control: Control, values: Sequence[Any]) -> list[str]:
    """What a reader calls the values."""
    name_of = getattr(control, "name_of", str)
    return [name_of(value) for value in values]


def _row(name: str, control: Control, values: Sequence[Any], first: int) -> str:
    """A control with its label: a checkbox for yes and no, a list for words, else a slider."""
    label = f'<label id="{name}-label" for="{name}">{html.escape(control.label)}</label>'
    if isinstance(control, Toggle) and sorted(values) == [False, True]:
        checked = " checked" if values[first] else ""
        yes = values.index(True)
        box = f'<input type="checkbox" id="{name}" data-yes="{yes}"{checked}>'
        return f'<div class="control yes">{label}{box}</div>'
    names = _names(control, values)
    numbers = all(re.fullmatch(r"-?\d+", name) for name in names)
    if isinstance(control, Toggle) or (isinstance(control, Choice) and not numbers):
        options = "".join(
            f'<option value="{i}"{" selected" if i == first else ""}>{html.escape(name)}</option>'
            for i, name in enumerate(names)
        )
        return f'<div class="control">{label}<select id="{name}">{options}</select></div>'
    slide = (
        f'{label}<output for="{name}"></output>'
        f'<input type="range" id="{name}" min="0" max="{len(values) - 1}" value="{first}">'
    )
    if not (isinstance(control, Slider) and control.play):
        return f'<div class="control">{slide}</div>'
    pause = 100 if len(values) > 24 else 600  # milliseconds: a film, or steps to be looked at
    play = (
        f'<button type="button" class="play" data-moves="{name}" data-pause="{pause}" '
        f'aria-describedby="{name}-label">Play</button>'
    )
    return f'<div class="control plays">{slide}{play}</div>'

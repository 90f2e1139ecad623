"""The trained weights that come with the checkout: where they lie, what is known of them.

    shipped     their names, NETWORK.TAG, each with its manifest
    manifest    how one was made and what it reaches
    ship        a finished run -> weights in half precision, with manifest, history, evaluation

`hl.create("hire_mlp_pico", pretrained=True)` loads from here; nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from .._shared.errors import HirelabError, unknown
from .._shared.files import atomic, data_folder, write_atomic

FOLDER = data_folder("weights")
MOST_BYTES = 10_000_000
"""Largest file of weights that is shipped: a checkout should stay quick to clone."""


def path_of(name: str) -> Path:
    """The weights' file of a name such as "hire_mlp_pico.imagenette", there or not."""
    return FOLDER / f"{name}.safetensors"


def shipped() -> dict[str, dict[str, Any]]:
    """{name: manifest} of all weights in the checkout."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


def manifest(name: str) -> dict[str, Any]:
    """How a shipped network was trained and what it reaches.

    Raises:
        HirelabError: there is none of that name; the message suggests near ones.
    """
    known = shipped()
    if name not in known:
        cure = f"Shipped are {', '.join(known) or 'none'}, in {FOLDER}."
        raise HirelabError(unknown("shipped network", name, known, cure))
    return known[name]


def evaluation(name: str):
    """The `evaluation.Evaluation` of a shipped network: its answer on every validation image."""
    from ..training.evaluation import Evaluation

    manifest(name)
    return Evaluation.load(FOLDER / f"{name}.evaluation.npz")


def history(name: str):
    """The `runs.History` of a shipped network's training."""
    from ..training.runs import read_history

    manifest(name)
    return read_history(FOLDER / f"{name}.history.jsonl")


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``state`` with its matrices and kernels in float16.

    Vectors stay: they are a hundredth of the bytes, and a running variance may exceed float16.
    """
    return {
        key: (value.half() if value.is_floating_point() and value.ndim > 1 else value).contiguous()
        for key, value in state.items()
    }


def ship(run: str | Path, name: str, notes: str = "") -> dict[str, Any]:
    """Publish a finished run's weights in `FOLDER` as ``name``; returns the manifest.

    The accuracy in the manifest is that of the published, halved weights, measured here on the
    run's validation images.

    Args:
        run: the folder of a run of `training.train` that came to its end.
        name: NETWORK.TAG, such as "hire_mlp_pico.imagenette".
        notes: anything else that a reader of the manifest should know.

    Raises:
        HirelabError: the run is not finished or of another network, the file is too large.
    """
    from ..training.evaluation import evaluate
    from ..training.recipes import Recipe
    from ..training.runs import history as rows_of
    from ..training.runs import load_run, validation

    run = Path(run)
    network, _, tag = name.partition(".")
    net, facts = load_run(run)
    asked = facts["asked"]
    if asked["model"] != network or not re.fullmatch(r"[a-z0-9_]+", tag):
        raise HirelabError(
            f"{run} trained {asked['model']} and is to be shipped as {name!r}: name it "
            f"{asked['model']}.TAG, in lower case"
        )
    net.load_state_dict(state := halved(net.state_dict()))
    recipe = Recipe(**asked["recipe"])
    judged = evaluate(net, validation(facts), recipe.size)
    path = path_of(name)
    with atomic(path) as temporary:
        save_file(state, temporary)
        if temporary.stat().st_size > MOST_BYTES:
            raise HirelabError(
                f"{name} takes {temporary.stat().st_size / 1e6:.1f} MB and at most "
                f"{MOST_BYTES / 1e6:.0f} MB are shipped: publish the manifest alone"
            )
    judged.save(FOLDER / f"{name}.evaluation.npz")
    rows = "".join(json.dumps(row) + "\n" for row in rows_of(run).rows)
    write_atomic(FOLDER / f"{name}.history.jsonl", rows)
    content = {
        "name": name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "megabytes": round(path.stat().st_size / 1e6, 2),
        "parameters": sum(p.numel() for p in net.parameters()),
        "size": recipe.size,
        "crop": recipe.crop,
        "top1": round(judged.top(1), 2),
        "top5": round(judged.top(5), 2),
        "loss": round(judged.loss, 4),
        "calibration_error": round(judged.calibration(), 2),
        "images": len(judged.labels),
        "class_names": judged.classes,
        "licence": "MIT, as the code. Trained on images under ImageNet's terms (research and "
        "teaching only); whether these bind what is trained on them is not settled, so take them "
        "as binding.",
        "notes": notes,
        **facts,
    }
    write_atomic(FOLDER / f"{name}.json", json.dumps(content, indent=1) + "\n")
    _write_card()
    return content


def card_tables() -> str:
    """The tables of data/weights/README.md: accuracy and calibration, and accuracy by class."""
    known = shipped()
    judged = {name: evaluation(name) for name in known}
    head = ["weights", "top-1, %", "95 % interval", "top-5, %", "loss", "calibration error, %"]
    rows = [head]
    for name, one in judged.items():
        low, high = interval(one.top(1) / 100, len(one.labels))
        cells = [one.top(1), one.top(5), one.loss, one.calibration()]
        top, five, loss, off = (f"{v:.2f}" for v in cells)
        rows.append([name, top, f"{100 * low:.1f} to {100 * high:.1f}", five, loss, off])
    names = next(iter(judged.values())).classes
    by_class = [["class", *known]]
    shares = [one.by_class() for one in judged.values()]
    by_class += [[word, *(f"{share[word]:.1f}" for share in shares)] for word in names]
    wrong = [["taken for", *known]]
    tables = {name: one.confusion() for name, one in judged.items()}
    first = next(iter(tables.values())).copy()
    np.fill_diagonal(first, 0)
    for flat in np.argsort(first, axis=None)[::-1][:5]:
        right, said = np.unravel_index(flat, first.shape)
        counts = [str(table[right, said]) for table in tables.values()]
        wrong.append([f"{names[right]} for {names[said]}", *counts])
    text = "\n\n".join(_markdown(one) for one in (rows, by_class, wrong))
    if len(judged) != 2:
        return text
    first_right, second_right = (one.predicted == one.labels for one in judged.values())
    only = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    return f"{text}\n\n" + (
        f"Image by image: {only[0]} are right with the first network alone, {only[1]} with the "
        f"second alone; two networks that are equally good would differ at least so much with "
        f"probability {mcnemar(*only):.2g} (McNemar's exact test)."
    )


def mcnemar(first: int, second: int) -> float:
    """Two-sided probability of so uneven a split of cases on which exactly one of two is right,
    were both equally good (McNemar 1947, exact binomial form)."""
    cases = first + second
    tail = sum(math.comb(cases, k) for k in range(min(first, second) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**cases)))


def _write_card() -> None:
    """Put `card_tables` between the markers of the model card."""
    card = FOLDER / "README.md"
    block = re.compile(r"(<!-- tables -->\n).*?(<!-- end -->)", re.DOTALL)
    tables = card_tables()
    text = card.read_text(encoding="utf-8")
    write_atomic(card, block.sub(lambda m: f"{m[1]}{tables}\n{m[2]}", text))


def interval(share: float, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share of ``count`` independent cases."""
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z / (1 + z**2 / count) * (share * (1 - share) / count + z**2 / (4 * count**2)) ** 0.5
    return centre - half, centre + half


def _markdown(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])

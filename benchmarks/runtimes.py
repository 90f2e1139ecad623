"""Exported files: an ONNX file in onnxruntime against PyTorch, eager and deployed.

CPU, 2 threads, float32, 224 x 224 pixels, Hire-MLP-Tiny, in turn in one run; ratios are medians
with their middle half, and the share of the machine's limit (`_timing.Limit`). The goal is to be as
fast as eager PyTorch.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import onnxruntime
import torch
from _report import report, table
from _timing import Limit, in_turn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.models.export import export


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(2)
    model = hl.create("hire_mlp_tiny", seed=0)
    deployed = hl.deploy(model)
    macs = count_macs(model, torch.zeros(1, 3, 224, 224))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    # idle threads that spin would take the cores from the other candidates
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    rows, limit = [], Limit()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        file = export(deployed, Path(folder) / "tiny", "onnx")
        session = onnxruntime.InferenceSession(str(file), options)
        for batch in (1, 8):
            x = torch.randn(batch, 3, 224, 224)
            feed = {"pixels": x.numpy()}
            torch.testing.assert_close(
                torch.from_numpy(session.run(None, feed)[0]), model(x), rtol=1e-4, atol=1e-5
            )
            rounds = in_turn(
                {
                    "network": partial(model, x),
                    "deployed": partial(deployed, x),
                    "onnxruntime": partial(session.run, None, feed),
                    **limit.candidates,
                },
                20 if batch == 1 else 10,
                warm_up=2,
            )
            most = limit.rate(rounds) / (batch * macs)  # batches a second
            share = {
                n: 1 / (most * rounds.median(n)) for n in ("network", "deployed", "onnxruntime")
            }
            row = [str(batch), f"{rounds.median('network') * 1e3:.0f} ({share['network']:.0%})"]
            for name in ("deployed", "onnxruntime"):
                middle, low, high = rounds.faster(name, "network")
                row.append(f"{middle:.2f} [{low:.2f}, {high:.2f}] ({share[name]:.0%})")
            rows.append(row)
    head = ["batch", "network, ms", "deployed, times as fast", "ONNX file, times as fast"]
    note = "In parentheses the share of the machine's limit."
    report("runtimes", f"{table(head, rows)}\n\n{note}")


if __name__ == "__main__":
    main()

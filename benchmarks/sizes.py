"""Cost against input size: Hire-MLP grows with the number of pixels, attention and Mixer faster.

CPU, 2 threads, float32, batch 1, in turn in one run: pixels a second from 64 to 1024 pixels a side.
A network whose cost is linear in the input keeps its pixels a second; DeiT's attention compares all
tokens with all, and Mixer's token layers are built for one size, so it is built anew for each.
"""

from __future__ import annotations

import timm
import torch
from _report import report, table
from _timing import in_turn

import hirelab as hl

SIDES = (64, 128, 256, 512, 1024)


def main() -> None:
    """Measure, print and keep the table."""
    torch.set_num_threads(2)
    tiny = hl.create("hire_mlp_tiny", seed=0)
    deployed = hl.deploy(tiny)
    rows = {name: [name] for name in ("hire_mlp_tiny", "deployed", "deit_tiny", "mixer_s16")}
    with torch.inference_mode():
        for side in SIDES:
            x = torch.randn(1, 3, side, side)
            deit = timm.create_model("deit_tiny_patch16_224", img_size=side).eval()
            mixer = timm.create_model("mixer_s16_224", img_size=side).eval()
            candidates = dict(zip(rows, (tiny, deployed, deit, mixer), strict=True))
            rounds = in_turn(
                {n: lambda m=m, x=x: m(x) for n, m in candidates.items()}, 9 if side < 512 else 5
            )
            for name, row in rows.items():
                row.append(f"{side * side / rounds.median(name) / 1e6:.2f}")
    head = ["million pixels/s", *(f"{side} px" for side in SIDES)]
    report("sizes", table(head, list(rows.values())))


if __name__ == "__main__":
    main()

"""Detectors and segmenters: size and cost beside the paper's, speed and memory beside peers.

Counted: multiply-adds on networks that have shapes but no numbers, for the image sizes of the paper
(detection 1280 x 800 px, 80 classes; segmentation 2048 x 512 px, 150 classes). Timed: CPU, 1
thread, float32, 512 x 512 px, batch 1, random weights, all backbones in turn in one run, by the
processor's time; ratios are medians with their middle half. Each peak of memory is that of a fresh
process.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path

# Read when torch is first imported: an operator's threads are more than torch.set_num_threads says.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from _report import report, table
from _timing import in_turn
from torch import Tensor, nn

import hirelab as hl
from hirelab import paper
from hirelab.analysis.cost import count_macs, macs_by_module
from hirelab.dense.backbone import Backbone
from hirelab.dense.detection import Detector, detector
from hirelab.dense.segmentation import Segmenter, segmenter

SIZES = ("small", "base", "large")
PAPER = {"retinanet": "RetinaNet", "mask_rcnn": "Mask R-CNN", "upernet": "UPerNet"}
SIDE = 512
PROPOSALS, MASKS = 1000, 100
# With how many rounds: UPerNet takes longest, and varies least.
TIMED = {
    "backbone": ("backbone alone", 5),
    "mask_rcnn": ("Mask R-CNN", 5),
    "upernet": ("UPerNet", 3),
    "fpn": ("Semantic FPN", 5),
}
DEPLOYED = "hire_mlp_small, deployed"
REFERENCE = "resnet50"
BACKBONES = (
    "hire_mlp_small",
    DEPLOYED,
    REFERENCE,
    "convnext_tiny",
    "swin_tiny_patch4_window7_224",
)


# ------------------------------------------------------------------ counting


Network = Backbone | Detector | Segmenter


def blank(kind: str, backbone: str, **settings: object) -> Network:
    """A network on the meta device, with the paper's number of classes."""
    with torch.device("meta"):
        if kind == "backbone":
            return Backbone(backbone, **settings.get("arguments", {})).eval()
        if kind in ("retinanet", "mask_rcnn"):
            return detector(kind, backbone, 80, **settings)
        return segmenter(kind, backbone, 150, **settings)


@torch.no_grad()
def cost(network: Network, height: int, width: int) -> dict[str, int]:
    """Multiply-adds for one image of a network's backbone, pyramid and heads.

    A detector's parts run one by one: what stands between them chooses boxes by their numbers,
    which a tensor of the meta device does not have. Mask R-CNN's box head gets as many proposals,
    its mask head as many boxes, as in mmdetection's own tool (`forward_dummy`).
    """
    x = torch.empty(1, 3, height, width, device="meta")
    if isinstance(network, Backbone):
        return {"backbone": count_macs(network, x)}
    if isinstance(network, Segmenter):
        done = macs_by_module(network, x)
        last = ("fpn_bottleneck", "classifier") if network.kind == "upernet" else ()
        heads = sum(done[f"head.decode.{name}"] for name in last) + done.get("head.classify", 0)
        return {
            "backbone": done["backbone"],
            "pyramid": done["head"] - heads,
            "heads": heads,
        }
    net = network.net
    kept: list[dict[str, Tensor]] = []
    handle = net.backbone.register_forward_hook(lambda module, given, out: kept.append(out))
    done = macs_by_module(net.backbone, x)
    handle.remove()
    maps = list(kept[0].values())
    if network.kind == "retinanet":
        heads = count_macs(net.head, maps)
    else:
        rois = net.roi_heads
        box, mask = (
            torch.empty(count, maps[0].shape[1], side, side, device="meta")
            for count, side in ((PROPOSALS, 7), (MASKS, 14))
        )
        heads = (
            count_macs(net.rpn.head, maps)
            + count_macs(nn.Sequential(rois.box_head, rois.box_predictor), box)
            + count_macs(nn.Sequential(rois.mask_head, rois.mask_predictor), mask)
        )
    return {"backbone": done["body"], "pyramid": done["fpn"], "heads": heads}


@contextmanager
def mmcv_extras(network: nn.Module) -> Iterator[Counter[str]]:
    """What mmcv's counter adds to the multiply-adds while a network runs: one for each number that
    gets a bias in a convolution or leaves a ReLU, two for each that enters a BatchNorm, one for
    each that enters a pooling layer."""
    extras: Counter[str] = Counter()

    def look(module: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            extras["bias"] += out.numel() if module.bias is not None else 0
        elif isinstance(module, nn.ReLU):
            extras["ReLU"] += out.numel()
        elif isinstance(module, nn.BatchNorm2d):
            extras["BatchNorm"] += 2 * given[0].numel()
        else:
            extras["pooling"] += given[0].numel()

    seen = (nn.Conv2d, nn.ConvTranspose2d, nn.ReLU, nn.BatchNorm2d, nn.AdaptiveAvgPool2d)
    handles = [m.register_forward_hook(look) for m in network.modules() if isinstance(m, seen)]
    try:
        yield extras
    finally:
        for handle in handles:
            handle.remove()


def params_in_millions(network: nn.Module) -> float:
    """Of all parameters, an auxiliary head's too."""
    return sum(p.numel() for p in network.parameters()) / 1e6


def sizes() -> str:
    """The table of sizes and costs, and what is known of the differences to the paper."""
    rows: list[list[str]] = []
    ours, theirs = [], []
    for kind, title in PAPER.items():
        published = {row[0]: row[1:3] for row in paper.dense(kind).rows}
        for size in SIZES:
            network = blank(kind, f"hire_mlp_{size}")
            shape = (512, 2048) if isinstance(network, Segmenter) else (800, 1280)
            with mmcv_extras(network) as extras:
                parts = cost(network, *shape)
            params, macs = params_in_millions(network), sum(parts.values()) / 1e9
            counted = macs + extras.total() / 1e9
            stated_params, stated = published[f"Hire-MLP-{size.capitalize()}"]
            ours.append((params, macs, counted))
            theirs.append((float(stated_params), int(stated), stated_params))
            counts = [f"{value / 1e9:.1f}" for value in parts.values()]
            row = [title, f"hire_mlp_{size}", f"{params:.2f}", stated_params, f"{macs:.1f}", stated]
            rows.append([*row, f"{counted:.1f}", *counts])
    head = ["", "backbone", "M params", "paper", "GMACs", "paper", "as mmcv counts"]
    head += ["of the GMACs: backbone", "pyramid", "heads"]
    return f"{table(head, rows)}\n\n{differences(ours, theirs)}"


def differences(
    ours: Sequence[tuple[float, float, float]], theirs: Sequence[tuple[float, int, str]]
) -> str:
    """Sentences on how far the counts are from the paper's, and which ways to count would agree."""
    pairs = list(zip(ours, theirs, strict=True))
    plain = [macs / stated - 1 for (_, macs, _), (_, stated, _) in pairs]
    rounded = sum(round(macs) == stated for (_, macs, _), (_, stated, _) in pairs)
    cuts = [int(counted) - stated for (*_, counted), (_, stated, _) in pairs]
    off = [f"{value:+d}" for value in cuts if value]
    sizes_off = [params / stated - 1 for (params, *_), (stated, *_) in pairs]
    digits = [len(text.partition(".")[2]) for *_, text in theirs]
    params_cut = sum(
        int(params * 10**n) == round(stated * 10**n)
        for ((params, *_), (stated, *_)), n in zip(pairs, digits, strict=True)
    )
    return (
        "The paper's FLOPs are multiply-adds (GMACs here); its figures are quoted by MS-MLP (arXiv "
        "2202.06510). Ours are counted on the built layers, none by formula: convolutions and "
        f"matrix products. Mask R-CNN's box head is counted on {PROPOSALS} proposals and its mask "
        f"head on {MASKS} boxes, as mmdetection's own tool does. UPerNet's auxiliary head runs in "
        "training only: it is in the parameters and not in the GMACs. Its pooling module is in the "
        "pyramid.\n\n"
        f"Explained: GMACs differ from the paper's by {min(plain):+.2%} to {max(plain):+.2%}, so "
        "no large part is missing on either side. *As mmcv counts* adds what mmcv's counter, which "
        "mmdetection and mmsegmentation call, counts beside multiply-adds: one for a bias or a "
        f"ReLU, two for a BatchNorm. Cut off to whole numbers it gives {len(pairs) - len(off)} of "
        f"the {len(pairs)} figures; GMACs alone, rounded, give {rounded}. Parameters differ by "
        f"{min(sizes_off):+.2%} to {max(sizes_off):+.2%}; cut off to the paper's digits, "
        f"{params_cut} of {len(pairs)} agree.\n\n"
        f"Not explained: the other {len(off)} costs (off by {', '.join(off)} GMACs) and "
        f"{len(pairs) - params_cut} of the parameters (by 1 in the last digit). The paper does not "
        "say which counter it used."
    )


# ------------------------------------------------------------------ speed and memory


class DeployedMaps(nn.Module):
    """The four maps of a deployed Hire-MLP, in place of timm's getter inside a `Backbone`.

    `hirelab.deploy` refuses the network of a backbone, whose final norm is pruned away. The maps
    are taken before that norm, so any norm serves.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        whole = deepcopy(network)
        whole.norm = nn.BatchNorm2d(whole.num_features)
        self.model = hl.deploy(whole)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.model.stem(x.contiguous(memory_format=torch.channels_last))
        maps = []
        for stage in self.model.stages:
            x = stage(x)
            maps.append(x)
        return maps


def settle_heads(network: Detector) -> None:
    """Let every Mask R-CNN do the same work after its pyramid, whatever its maps say.

    The last layers are zero: the same anchors become proposals, unmoved, and each is surely of the
    first class. They cost as much as before.
    """
    rpn, box = network.net.rpn.head, network.net.roi_heads.box_predictor
    for last in (rpn.cls_logits, rpn.bbox_pred, box.cls_score, box.bbox_pred):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    with torch.no_grad():
        box.cls_score.bias[1] = 10
    box.register_forward_pre_hook(check_proposals)


def check_proposals(module: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Stop where the box head does not get the proposals that the table says."""
    assert len(given[0]) == PROPOSALS


def settings_of(kind: str, backbone: str) -> dict[str, object]:
    """How a network is built for images of `SIDE` pixels."""
    settings: dict[str, object] = {}
    if backbone.startswith("swin"):  # its attention masks are made for one size
        settings["arguments"] = {"img_size": SIDE}
    if kind == "mask_rcnn":
        settings.update(min_size=SIDE, max_size=SIDE)
    return settings


def built(kind: str, backbone: str) -> Network:
    """A network with random weights, its BatchNorms as if trained, deployed where asked."""
    if kind == "backbone":  # of a segmenter, so that it is seeded and deployed as there
        return built("fpn", backbone).backbone
    name = backbone.split(",")[0]
    settings = settings_of(kind, name)
    if kind == "mask_rcnn":
        network = detector(kind, name, 80, seed=0, **settings)
        settle_heads(network)
    else:
        network = segmenter(kind, name, 150, seed=0, **settings)
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # fresh ones would make folding them trivial
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.8, 1.2, generator=generator)
    if backbone == DEPLOYED:
        body: Backbone = network.backbone
        body.body = DeployedMaps(body.network)
    return network


def image() -> Tensor:
    """One image, the same for every network and process."""
    return torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def run_once(network: Network, x: Tensor) -> Tensor:
    """What a network says of one image: its last map, its logits, or its masks."""
    if isinstance(network, Backbone):
        return network(x)[-1]
    if isinstance(network, Segmenter):
        return network(x)
    (found,) = network(list(x))
    assert found["masks"].shape == (MASKS, 1, SIDE, SIDE)
    return found["masks"]


def memory_now(field: str) -> int:
    """Bytes of this process: "VmRSS" now, "VmHWM" at most so far (Linux).

    getrusage's ru_maxrss would not do: a process begins with the peak of the one that started it.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"There is no {field} in /proc/self/status.")


def peak_of_process(kind: str, backbone: str) -> int:
    """The most bytes that this process holds while it runs a network, beyond those after import."""
    torch.set_num_threads(1)
    blank(kind, "resnet18")  # imports everything, and holds nothing
    before = memory_now("VmRSS")
    network, x = built(kind, backbone), image()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building
    with torch.inference_mode():
        run_once(network, x)
    return memory_now("VmHWM") - before


def peak_in_fresh_process(kind: str, backbone: str) -> int:
    """`peak_of_process`, in a process of its own."""
    command = [sys.executable, __file__, kind, backbone]
    # What is freed goes back at once: else the peak is also that of glibc's leftovers, which vary
    # by a tenth from one process to the next.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return int(done.stdout.split()[-1])


def held_equal(plain: Network, deployed: Network, x: Tensor) -> float:
    """The largest difference between two networks' maps, as a share of a map's largest value.

    Raises:
        AssertionError: their maps, masks or logits differ by more than rounding.
    """
    shares = []
    bodies = [n if isinstance(n, Backbone) else n.backbone for n in (plain, deployed)]
    for of_plain, of_deployed in zip(*(body(x) for body in bodies), strict=True):
        torch.testing.assert_close(of_deployed, of_plain, rtol=1e-4, atol=1e-4)
        shares.append(((of_deployed - of_plain).abs().max() / of_plain.abs().max()).item())
    torch.testing.assert_close(run_once(deployed, x), run_once(plain, x), rtol=1e-4, atol=1e-4)
    return max(shares)


def speed() -> str:
    """The table of speed and memory, and what deploying changes in the numbers."""
    torch.set_num_threads(1)
    rows, shares = [], []
    x = image()
    for kind, (title, count) in TIMED.items():
        networks = {name: built(kind, name) for name in BACKBONES}
        with torch.inference_mode():
            shares.append(held_equal(networks["hire_mlp_small"], networks[DEPLOYED], x))
            candidates = {name: partial(run_once, one, x) for name, one in networks.items()}
            rounds = in_turn(candidates, count, clock=time.process_time)
        del networks, candidates
        costs: dict[str, list[str]] = {}
        for name in BACKBONES:
            like = name.split(",")[0]
            if like not in costs:  # deploying changes neither, but for the norms folded away
                network = blank(kind, like, **settings_of(kind, like))
                parts = cost(network, SIDE, SIDE)
                macs = (sum(parts.values()), parts["backbone"])
                costs[like] = [f"{params_in_millions(network):.1f}"]
                costs[like] += [f"{value / 1e9:.1f}" for value in macs]
            middle, low, high = rounds.faster(name, REFERENCE)
            ratio = f"{middle:.2f} [{low:.2f}, {high:.2f}]"
            peak = f"{peak_in_fresh_process(kind, name) / 2**20:.0f}"
            rows.append([title, name, *costs[like], f"{1 / rounds.median(name):.3g}", ratio, peak])
    head = ["", "backbone", "M params", "GMACs", "of them the backbone"]
    head += ["images per processor second", f"times as fast as {REFERENCE}", "peak MiB"]
    counts = ", ".join(f"{title} {count}" for title, count in TIMED.values())
    return (
        f"{table(head, rows)}\n\n"
        f"{SIDE} x {SIDE} px, batch 1, 1 thread, evaluation mode, random weights. Rounds: "
        f"{counts}. Seconds are the processor's, not the clock's: others used the machine. So that "
        "all do the same work after the pyramid, the last layers of Mask R-CNN's heads are zero: "
        f"{PROPOSALS} proposals, the same for every backbone, and {MASKS} masks. A peak is that of "
        "a fresh process while it runs the network once, weights included, beyond what it held "
        "after import.\n\n"
        "`hl.deploy` does not take the network inside a detector or segmenter, whose final norm is "
        "pruned. Deployed with a norm put back (it comes after the last map), and set in place of "
        f"timm's getter, its maps differ by at most {max(shares):.0e} of their largest value, and "
        "masks and logits agree to 4 digits."
    )


def main() -> None:
    """Count, measure, print and keep the tables."""
    report("dense", f"{sizes()}\n\n{speed()}")


if __name__ == "__main__":
    if sys.argv[1:]:
        print(peak_of_process(*sys.argv[1:]))
    else:
        main()

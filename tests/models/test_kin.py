"""The relatives' index maps, against networks: timm's own, Hire-MLP's, and the papers' equations in
a few lines of torch. What may reach a token is where its gradient is not zero."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import GroupNorm1
from timm.models.metaformer import MetaFormer, Pooling
from torch import nn

import hirelab as hl
from hirelab.analysis.cost import count_macs
from hirelab.analysis.kin import sources_through
from hirelab.models.kin import KIN, member_of, stage_maps, windows, wire_kin
from hirelab.models.wiring import propagate

TIMM = {
    "Swin-T": "swin_tiny_patch4_window7_224",
    "ConvNeXt-T": "convnext_tiny",
    "PoolFormer-S24": "poolformer_s24",
}


def narrow(name: str) -> nn.Module:
    """timm's network with its own depths and a tenth of its channels; norms over the whole map are
    taken out, as they are in the index maps, and no layer scale makes a path too weak to see."""
    torch.manual_seed(0)
    depths = KIN[name].depths
    if name == "Swin-T":
        model = timm.create_model(TIMM[name], embed_dim=8, num_heads=(1, 1, 1, 1))
    elif name == "ConvNeXt-T":
        model = timm.create_model(TIMM[name], dims=(8, 12, 16, 24))
    else:
        model = MetaFormer(
            depths=depths, dims=(8, 12, 16, 24), token_mixers=Pooling, downsample_norm=None,
            mlp_act=nn.GELU, mlp_bias=True, norm_layers=GroupNorm1,
            layer_scale_init_values=1.0, res_scale_init_values=None, use_mlp_head=False,
        )  # fmt: skip
    for module in model.modules():
        for child, of in module.named_children():
            if isinstance(of, nn.GroupNorm):
                setattr(module, child, nn.Identity())
    for key, parameter in model.named_parameters():
        nn.init.ones_(parameter) if key.endswith("gamma") else nn.init.normal_(parameter, std=0.2)
    return model.double().eval()


def pixels(name: str, stage: int, position: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: the pixels that reach a token at a stage's end, by the index maps."""
    wiring = wire_kin(KIN[name])
    maps = {at: np.zeros(grid, bool) for at, grid in wiring.grids.items()}
    maps[f"stages.{stage}.out"][position] = True
    propagate(wiring.edges, maps, back=True)
    return maps["input"]


def support(output: torch.Tensor, x: torch.Tensor) -> np.ndarray:
    """Where the gradient of a vector of outputs, weighed at random, is not zero. timm masks
    attention by -100 and not by minus infinity, which leaves 1e-44."""
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(3)).double()
    (gradient,) = torch.autograd.grad((output * weights).sum(), x, retain_graph=True)
    size = gradient.abs().sum((0, 1)).numpy()
    return size > 1e-25 * size.max()


@pytest.mark.parametrize("name", TIMM)
def test_pixels_that_reach_a_token_of_timms_network(name):
    model = narrow(name)
    x = torch.randn(1, 3, 224, 224, dtype=torch.float64, requires_grad=True)
    outputs = model.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True)
    assert len(outputs) == 4
    for stage, output in enumerate(outputs):
        assert output.shape[2:] == stage_maps(KIN[name])[stage]
        last = output.shape[2] - 1
        for position in ((0, 0), (last // 2, last // 3), (last, 1)):
            found = support(output[:, :, position[0], position[1]], x)
            np.testing.assert_array_equal(found, pixels(name, stage, position))


@pytest.mark.parametrize("name", TIMM)
def test_layouts_are_timms(name):
    model = timm.create_model(TIMM[name], device="meta")
    member = KIN[name]
    stages = model.layers if name == "Swin-T" else model.stages
    assert tuple(len(stage.blocks) for stage in stages) == member.depths
    assert tuple(info["num_chs"] for info in model.feature_info) == member.dims


def test_hire_mlp_is_its_own_wiring():
    model = hl.create("hire_mlp_small", device="meta")
    member = KIN["Hire-MLP-S"]
    assert tuple(len(stage.blocks) for stage in model.stages) == member.depths
    assert tuple(info["num_chs"] for info in model.feature_info) == member.dims
    for stage, (rows, columns) in stage_maps(member).items():
        for position in ((0, 0), (rows // 2, columns - 1), (rows - 1, 1)):
            found = hl.provenance(model, position, f"stages.{stage}.out", paths="spatial")
            np.testing.assert_array_equal(
                found.pixels, pixels("Hire-MLP-S", stage, position), strict=True
            )


# ------------------------------------------------------------------ the papers' equations

DIM, SIZE = 30, (11, 9)


def moved(x: torch.Tensor, offset: int, dim: int) -> torch.Tensor:
    """Every token of a map taken from ``offset`` places on; zeros beyond the border."""
    pad = [abs(offset)] * 2 if dim == 3 else [0, 0] + [abs(offset)] * 2
    return torch.roll(F.pad(x, pad), -offset, dim).narrow(dim, abs(offset), x.shape[dim])


def by_groups(x: torch.Tensor, offsets: list[int], dim: int) -> torch.Tensor:
    """Channel groups, each moved by an offset of its own (AS-MLP, section 3.2)."""
    groups = x.chunk(len(offsets), 1)
    return torch.cat([moved(g, o, dim) for g, o in zip(groups, offsets, strict=True)], 1)


def by_channel(x: torch.Tensor, kernel: int, dim: int) -> torch.Tensor:
    """Channel c moved by (c mod kernel) - kernel // 2 (CycleMLP, equation 2)."""
    channels = [moved(one, c % kernel - kernel // 2, dim) for c, one in enumerate(x.split(1, 1))]
    return torch.cat(channels, 1)


def four_ways(x: torch.Tensor) -> torch.Tensor:
    """A quarter of the channels from either side (S2-MLP, section 3.2). At the border a token keeps
    its own."""
    up, down, left, right = (quarter.clone() for quarter in x.tensor_split(4, 1))
    up[:, :, 1:], down[:, :, :-1] = up[:, :, :-1].clone(), down[:, :, 1:].clone()
    left[..., 1:], right[..., :-1] = left[..., :-1].clone(), right[..., 1:].clone()
    return torch.cat([up, down, left, right], 1)


class Simulated(nn.Module):
    """Blocks of one family on a map: token mixing and a residual connection."""

    def __init__(self, name: str):
        super().__init__()
        torch.manual_seed(1)
        self.name = name
        one = {"AS-MLP-T": 4, "S2-MLP-deep": 2, "CycleMLP-B2": 4, "Wave-MLP-S": 6}[name]
        self.fc = nn.ModuleList([nn.Conv2d(DIM, DIM, 1) for _ in range(one)])
        self.windows = nn.ModuleList()
        if name == "Wave-MLP-S":
            self.windows.append(nn.Conv2d(2 * DIM, DIM, (7, 1), padding=(3, 0), groups=DIM))
            self.windows.append(nn.Conv2d(2 * DIM, DIM, (1, 7), padding=(0, 3), groups=DIM))

    def mix(self, x: torch.Tensor) -> torch.Tensor:
        fc = self.fc
        if self.name == "AS-MLP-T":
            x = fc[0](x).sin()
            steps = [-2, -1, 0, 1, 2]
            return fc[3](fc[1](by_groups(x, steps, 2)).sin() + fc[2](by_groups(x, steps, 3)).sin())
        if self.name == "S2-MLP-deep":
            return fc[1](four_ways(fc[0](x).sin()))
        if self.name == "CycleMLP-B2":
            return fc[3](fc[0](by_channel(x, 3, 2)) + fc[1](by_channel(x, 3, 3)) + fc[2](x))
        waves = []
        for amplitude, phase, window in zip(fc[:2], fc[2:4], self.windows, strict=True):
            size, angle = amplitude(x), phase(x)
            waves.append(window(torch.cat([size * angle.cos(), size * angle.sin()], 1)))
        return fc[5](waves[0] + waves[1] + fc[4](x))

    def forward(self, x: torch.Tensor, blocks: int) -> torch.Tensor:
        for _ in range(blocks):
            x = x + self.mix(x).sin()
        return x


@pytest.mark.parametrize("name", ["AS-MLP-T", "S2-MLP-deep", "CycleMLP-B2", "Wave-MLP-S"])
def test_tokens_that_reach_a_token_of_the_papers_equation(name):
    network = Simulated(name).double()
    x = torch.randn(1, DIM, *SIZE, dtype=torch.float64, requires_grad=True)
    for position in ((0, 0), (5, 3), (10, 8)):
        steps = sources_through(KIN[name], SIZE, 2, position, 4)
        assert steps[0].sum() == 1
        for blocks in range(1, 5):
            output = network(x, blocks)[:, :, position[0], position[1]]
            np.testing.assert_array_equal(support(output, x), steps[blocks])
        assert not steps[2].all()  # or there would be nothing to compare


@pytest.mark.parametrize("name", ["AS-MLP-T", "S2-MLP-deep", "CycleMLP-B2", "Wave-MLP-S"])
def test_multiply_adds_of_the_papers_equation(name):
    square, single = KIN[name].mixing
    counted = count_macs(_Mixing(Simulated(name)), torch.zeros(1, DIM, *SIZE))
    assert counted == SIZE[0] * SIZE[1] * (square * DIM**2 + single * DIM)


class _Mixing(nn.Module):
    def __init__(self, network: Simulated):
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network.mix(x)


# ------------------------------------------------------------------ cost


def test_multiply_adds_of_mixing_are_those_of_built_blocks():
    made: dict[str, nn.Module] = {"Hire-MLP-S": hl.create("hire_mlp_small", device="meta")}
    made |= {name: timm.create_model(of, device="meta") for name, of in TIMM.items()}
    for name, model in made.items():
        block = (model.layers if name == "Swin-T" else model.stages)[0].blocks[0].eval()
        dim, tokens = KIN[name].dims[0], 56 * 56
        x, besides = torch.empty(1, dim, 56, 56, device="meta"), 8 * dim * dim * tokens
        if name == "Swin-T":
            x = x.permute(0, 2, 3, 1)
        if name == "Hire-MLP-S":
            block = block.hire
            besides = count_macs(block.gate, torch.empty(1, dim, device="meta"))
        assert count_macs(block, x) == tokens * KIN[name].mixing_macs(0) + besides, name


@pytest.mark.parametrize("name", KIN)
def test_published_multiply_adds_follow_from_the_layout(name):
    """Stem, downsampling, mixing, and a channel MLP of ratio 4 with 8 C^2: a wrong depth or width
    would show."""
    member, maps = KIN[name], stage_maps(KIN[name])
    macs, before = 0, 3
    for i, (rows, columns) in maps.items():
        kernel = member.stem[0] if i == member.stages[0] else member.downsample[0]
        dim = member.dims[i]
        macs += rows * columns * kernel**2 * before * dim
        macs += rows * columns * member.depths[i] * (member.mixing_macs(i) + 8 * dim**2)
        before = dim
    assert macs / 1e9 == pytest.approx(member.macs[0], rel=0.02)


def test_counted_multiply_adds_are_timms():
    for name in ("PoolFormer-S24", "ConvNeXt-T"):
        model = timm.create_model(TIMM[name], device="meta").eval()
        counted = count_macs(model, torch.empty(1, 3, 224, 224, device="meta"))
        assert f"{counted / 1e9:.1f}" == f"{KIN[name].macs[0]:.1f}"


# ------------------------------------------------------------------ faults


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(hl.HirelabError, match="16 tokens cannot be cut into windows of 7"):
        windows(7)(16, 0, 0)
    assert windows(7)(6, 0, 1).all()  # no larger than a window: one window


def test_unknown_members_and_small_images_are_refused():
    with pytest.raises(hl.HirelabError, match="Did you mean 'AS-MLP-T'"):
        member_of("AS-MLP-S")
    with pytest.raises(hl.HirelabError, match="img_size"):
        wire_kin(KIN["AS-MLP-T"], 16)


def test_index_maps_cannot_be_written_to():
    for member in KIN.values():
        line = member.line(14, 2, 1)
        with pytest.raises(ValueError, match="read-only"):
            line[0, 0] = False

"""What timm builds, with one sentence for weights that cannot be had (timm has `_builder.py`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from timm.models import build_model_with_cfg
from timm.models._pretrained import DefaultCfg
from torch import nn

from .checkpoints import checkpoint_filter_fn
from .pretrained import path_of


def build(
    network: type[nn.Module],
    variant: str,
    cfg: DefaultCfg,
    pretrained: bool,
    **kwargs: Any,
) -> Any:
    """A network by timm's builder.

    Args:
        network: the class.
        variant: its name without a tag; ``cfg`` holds what is known of its weights.
        kwargs: arguments of the class, and timm's.

    Raises:
        FileNotFoundError: the bundled weights do not exist; the message says where they should.
        RuntimeError: the weights could not be downloaded; the message says from where, and how to
            do without.
    """
    with _readable_errors(variant, cfg, kwargs):
        return build_model_with_cfg(
            network,
            variant,
            pretrained,
            pretrained_filter_fn=checkpoint_filter_fn,
            feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)},
            **kwargs,
        )


@contextmanager
def _readable_errors(variant: str, cfg: DefaultCfg, kwargs: dict[str, Any]) -> Iterator[None]:
    overlay = kwargs.get("pretrained_cfg_overlay") or {}
    try:
        yield
    except FileNotFoundError as error:
        tag = kwargs.get("pretrained_cfg") or cfg.tags[0]
        raise FileNotFoundError(
            f"{overlay.get('file') or path_of(f'{variant}.{tag}')} does not exist; the bundled "
            "weights lie in data/weights of the checkout: clone it, and `pip install -e .` there."
        ) from error
    except (URLError, ConnectionError, TimeoutError) as error:
        url = overlay.get("url") or cfg.default.url
        folder = Path(kwargs.get("cache_dir") or Path(torch.hub.get_dir()) / "checkpoints")
        raise RuntimeError(
            f"{url.rsplit('/', 1)[-1]} could not be downloaded from {url} ({error}); put the file "
            f"into {folder}, or load it with hirelab.load(path)."
        ) from error

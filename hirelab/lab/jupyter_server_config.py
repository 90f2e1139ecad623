"""What the lab's server does before it saves a notebook.

Jupyter reads this as one of its settings files, because `open_lab` puts its folder on Jupyter's
path. It imports nothing of hirelab then, so that the server need not load torch.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


def drop_views(notebook: Mapping[str, Any]) -> None:
    """Drop from ``notebook``, in place, every reference to a widget that has an image beside it.

    Without a kernel there is no such widget, and JupyterLab would say so instead of showing the
    image. What is on a reader's screen stays live: only the file is without it.
    """
    for cell in notebook.get("cells", []):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if any(kind.startswith("image/") for kind in data):
                data.pop(WIDGET_VIEW, None)


def before_saving(model: Mapping[str, Any], **_: Any) -> None:
    """Jupyter's ``pre_save_hook``: ``model`` is what was sent to be saved."""
    if model["type"] == "notebook":
        drop_views(model["content"])


if get_config := globals().get("get_config"):  # read as settings, not imported
    get_config().ContentsManager.pre_save_hook = before_saving
    # Jupyter validates the setting twice, and takes it for another one the second time
    warnings.filterwarnings("ignore", "Overriding existing pre_save_hook")

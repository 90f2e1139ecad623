"""Networks: importing this package registers them with timm."""

from .deploy import deploy
from .factory import create, load, model_names
from .hire_mlp import HireMLP

__all__ = ["HireMLP", "create", "deploy", "load", "model_names"]

"""Networks: importing this package registers them with timm."""

from .deploy import deploy
from .hire_mlp import HireMLP, create, load, model_names

__all__ = ["HireMLP", "create", "deploy", "load", "model_names"]

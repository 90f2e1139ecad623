"""Networks: importing this package registers them with timm."""

from .hire_mlp import HireMLP, create, model_names

__all__ = ["HireMLP", "create", "model_names"]

"""Imports that wait: modules of a room until they are named, an action until a package is used."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import lazy_loader


def attach_modules(package: str, path: Iterable[str]) -> Any:
    """(__getattr__, __dir__, __all__) of a package whose names are its modules, each imported when
    it is first used: `hirelab.training.runs` then needs no import of its own.

    Args:
        package, path: the package's ``__name__`` and ``__path__``.
    """
    return lazy_loader.attach(package, [module.name for module in iter_modules(path)])


def after_import(name: str, action: Callable[[], object]) -> None:
    """Call ``action`` once the top-level package ``name`` is imported; now, if it already is.

    So a plug-in can be there for whoever uses the package, without the seconds that importing it
    takes for whoever does not.
    """
    if name in sys.modules:
        action()
    else:
        sys.meta_path.insert(0, _Watch(name, action))


class _Watch(MetaPathFinder):
    """Finds one package as the finders after it do, and acts when it has been run."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self.name, self.action = name, action

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        found = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((one for one in found if one is not None), None)
        if spec is None or spec.loader is None:
            return spec
        run = spec.loader.exec_module

        def run_and_act(module: ModuleType) -> None:
            run(module)
            if self in sys.meta_path:  # only once, and only when it was imported without an error
                sys.meta_path.remove(self)
                self.action()

        spec.loader.exec_module = run_and_act  # type: ignore[method-assign]
        return spec

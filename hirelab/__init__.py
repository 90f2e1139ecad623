"""hirelab: look inside Hire-MLP.

Importing the package sees to it that timm knows the networks. Everything loads when it is first
used, so that `import hirelab` brings neither torch nor matplotlib; `__init__.pyi` beside this file
is the one list of the public names, for Python and for type checkers alike.
"""

from importlib import import_module as _import_module

# lazy_loader: scientific Python's own answer to slow imports (scikit-image brings it); it keeps
# tab completion and type checkers working, which a hand-written __getattr__ did not.
import lazy_loader

from ._shared.imports import after_import as _after_import

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

# timm takes three seconds to import. Who asks it for a network imports it; then ours are there.
_after_import("timm", lambda: _import_module("hirelab.models"))

"""hirelab: look inside Hire-MLP.

Importing the package registers the networks with timm. Everything else loads when it is first
used, so that `import hirelab` brings neither matplotlib nor ipywidgets; `__init__.pyi` beside this
file is the one list of the public names, for Python and for type checkers alike.
"""

# lazy_loader: scientific Python's own answer to slow imports (scikit-image brings it); it keeps
# tab completion and type checkers working, which a hand-written __getattr__ did not.
import lazy_loader

from . import models as _registers_the_networks_with_timm  # noqa: F401

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

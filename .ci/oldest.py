"""Print the oldest version of every package that pyproject.toml allows, one pin per line.

    python .ci/oldest.py > oldest.txt; pip install -c oldest.txt -e '.[dev]'

`make oldest` runs the tests with these, so that the lower bounds are measured and not believed.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def oldest(spec: str) -> str:
    """Return ``name==version`` for a requirement such as ``torch>=2.4``."""
    requirement = Requirement(spec)
    (bound,) = (part for part in requirement.specifier if part.operator == ">=")
    return f"{requirement.name}=={bound.version}"


if __name__ == "__main__":
    print("\n".join(map(oldest, PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])))

"""AblationExplorer: the paper's tables beside what trained networks say of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import Image

from .._shared.errors import HirelabError
from ..ablation.report import METRICS, AblationResult, ablation_table, ledgers, read_runs
from ..ablation.tables import tables
from .controls import choice, toggle
from .explorer import Explorer

_UNITS = {"top1": "points of top-1", "loss": "nats"}


class AblationExplorer(Explorer):
    """One of the paper's ablation tables: our differences with their intervals, the paper's on the
    same scale, and what follows for each claim.

    Nothing is trained for it: it reads ledgers, once; make another explorer to see new runs.

    Args:
        folders: ledgers by name or folder, one or several; by default all that come with hirelab.
        settings: see ``AblationExplorer.Settings``; ``ledger`` is the name of one, which says the
            data set.

    Raises:
        HirelabError: there is no ledger at all; and as `Explorer`.
    """

    title = "Which parts of the design earn their accuracy"

    density = 1.44  # of matplotlib's sheets

    @dataclass(frozen=True)
    class Settings:
        table: str = choice("components", (*tables(), "peers"), "table")
        metric: str = choice("top1", METRICS, "metric")
        ledger: str = choice("imagenette-cpu", ("imagenette-cpu",), "ledger")
        seeds: bool = toggle(True, "single trainings")

    def __init__(
        self, folders: str | Path | Iterable[str | Path] | None = None, **settings: Any
    ) -> None:
        chosen = ledgers() if folders is None else folders
        given = [chosen] if isinstance(chosen, str | Path) else list(chosen)
        self._folders = {Path(one).name: one for one in given}
        if len(self._folders) < len(given):
            raise HirelabError(
                f"folders are {given}; give each ledger once, with another folder name each."
            )
        if not self._folders:
            raise HirelabError("There is no ledger; `hirelab ablate` trains one, give its folder.")
        self._runs = lru_cache(maxsize=None)(read_runs)
        self._table = lru_cache(maxsize=None)(ablation_table)
        super().__init__(**settings)

    def limits(self) -> dict[str, Any]:
        return {"ledger": tuple(self._folders)}

    def problem(self, s: Settings) -> str | None:
        try:
            self.table(s)
        except HirelabError as error:
            return str(error)
        return None

    def table(self, s: Settings | None = None) -> AblationResult:
        """The table of the settings, by default of the current ones."""
        s = s or self.settings
        return self._table(s.table, self._runs(self._folders[s.ledger]), s.metric)

    def measure(self, s: Settings) -> AblationResult:
        return self.table(s)

    def facts(self, s: Settings, found: AblationResult) -> dict[str, Any]:
        words = [one["word"] for one in found.verdicts]
        trained = sum(n > 0 for n in found.seeds)
        spread = f"{found.deviation:.3g}" if found.freedom else "unknown, no second seed"
        return {
            "trained": f"{trained} of {len(found.rows)} rows",
            "spread_of_one_training": spread,
            **{word.replace(" ", "_"): words.count(word) for word in dict.fromkeys(words)},
        }

    def words(self, s: Settings, found: AblationResult) -> str:
        said = [one["word"] for one in found.verdicts]
        counts = ", ".join(f"{said.count(word)} {word}" for word in dict.fromkeys(said))
        trained = f"Of {len(found.rows)} rows {sum(n > 0 for n in found.seeds)} are trained"
        if not found.freedom:
            return f"{trained}; without a second seed nobody knows how much trainings differ."
        spread = f"{found.deviation:.3g} {_UNITS[s.metric]} (standard deviation)"
        return f"{trained}, and single trainings spread by {spread}. Claims: {counts}."

    def draw(self, s: Settings, found: AblationResult) -> Image.Image:
        return found.plot(s.seeds).image

"""Mutants that no test can kill, because nobody could tell them from the module as it is."""

# ruff: noqa: E501

from __future__ import annotations

LEDGER = "hirelab/ablation/ledger.py"
LAYOUTS = "hirelab/hooks/layouts.py"
POINTS = "hirelab/hooks/points.py"
CHECKPOINTS = "hirelab/models/checkpoints.py"

# (module, function, its line, the change) -> why it makes no difference
# fmt: off
EXPLAINED: dict[tuple[str, str, str, str], str] = {
    (LEDGER, "", "LEASE_SECONDS = 300.0", "300.0 -> 301.0"):
        "any time of about this length will do",
    (LEDGER, "renew", "while not over.wait(seconds / 4):", "4 -> 5"):
        "it is renewed often enough either way",
    (LEDGER, "lease", "thread = threading.Thread(target=renew, daemon=True)", "True -> False"):
        "the thread is joined in any case; only an interpreter that dies in the block tells",
    (LEDGER, "lease", "path.unlink(missing_ok=True)", "True -> False"):
        "for a lease that is lost between two lines",
    (LEDGER, "_take", "aside.unlink(missing_ok=True)", "True -> False"):
        "it was renamed a few lines before, to a name that nobody else has",
    (LEDGER, "_abandoned", "return time.time() - found.st_mtime > (seconds if found.st_size else min(seconds, WRITING))", "time.time() - found.st_mtime > (seconds if found.st_size ... -> time.time() - found.st_mtime >= (seconds if ..."):
        "no two readings of a clock are exactly that far apart",
    (LEDGER, "_abandoned", "return False", "False -> True"):
        "for a lease that is given back between two lines: either answer was true a moment ago",
    (LEDGER, "_wrong", "if self.images and abs(100 * self.answers.mean() - self.top1) > 1e-6:", "abs(100 * self.answers.mean() - self.top1) > 1e-6 -> abs(100 * self.answers.mean() - self.top1) >= 1e-06"):
        "a tolerance, on which nothing lies exactly",
    (POINTS, "", "@dataclass(frozen=True, repr=False)", "False -> True"):
        "the class has a __repr__ of its own, which a dataclass leaves alone",
    (POINTS, "describe", "line = entered[parent_name][-1][AXES[axis]]", "1 -> 0"):
        "the last and the first that was entered are one: a branch does not run inside itself",
    (POINTS, "", "home: int = 0  # the module's id; 0 before it is attached", "0 -> 1"):
        "neither is the id of a module",
    (LAYOUTS, "_lay", "if len(found) > 1:  # 16 x 16 tokens of 256 channels: which axis follows the image?", "len(found) > 1 -> len(found) >= 1"):
        "where one layout is possible, asking further leaves that one",
    (LAYOUTS, "_lay", "if len(found) > 1:  # a network for one size only, which says what it cuts the image into", "1 -> 0"):
        "where one layout is possible, asking further leaves that one",
    (CHECKPOINTS, "_check_held", "held = value.untyped_storage().nbytes() // max(1, value.element_size())", "1 -> 0"):
        "no number takes less than a byte",
    (CHECKPOINTS, "architecture", "hidden.append(_shape(state, mlp)[0] if mlp in state else 4 * dim)", "4 * dim -> 4 // dim"):
        "a block without its MLP fits no network and is refused next",
}

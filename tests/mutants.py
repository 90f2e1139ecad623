"""Mutants: is each line held by a test? One small change at a time, and some test must fail.

    python tests/mutants.py                        40 mutants of every module
    python tests/mutants.py --only ledger --sample 0      every mutant of one
    python tests/mutants.py --write docs/testing.md       and the table into the document

A mutant differs from a module in one place: an operator, a number, a truth, a statement that is
left out, a branch that is swapped, a value that is not returned. The files of the checkout stay as
they are: PyTorch and its like are imported once, and each mutant is tried in a fork of that
process, where hirelab is imported with the changed text in the place of the module. The tests
that reach the changed function are run, quick ones first, until one fails. What none of them
notices is alive: it needs a test, or a reason in `mutants_explained.py` why nobody could notice it.

Results are kept, a line each, in ``--out``, so that the same command goes on where it was stopped.
A mutant that died is not tried again until its module changes; one that lives, when its tests do.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import gc
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import linecache
import os
import pickle
import re
import signal
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import pytest
from hypothesis import settings
from mutants_explained import EXPLAINED

ROOT = Path(__file__).resolve().parents[1]  # of the checkout

# What is mutated, and the tests that hold it: those of its own room.
MODULES: dict[str, tuple[str, ...]] = {
    "hirelab/rearrange.py": ("tests/test_rearrange.py",),
    "hirelab/hooks/points.py": ("tests/hooks",),
    "hirelab/hooks/layouts.py": ("tests/hooks",),
    "hirelab/hooks/forward.py": ("tests/hooks",),
    "hirelab/hooks/edit.py": ("tests/hooks",),
    "hirelab/analysis/provenance.py": ("tests/analysis/test_provenance.py",),
    "hirelab/analysis/receptive_field.py": ("tests/analysis/test_receptive_field.py",),
    "hirelab/analysis/fields.py": (
        "tests/analysis/test_fields.py",
        "tests/analysis/test_receptive_field.py",
    ),
    "hirelab/analysis/attribution.py": ("tests/analysis/test_attribution.py",),
    "hirelab/models/deploy.py": ("tests/models/test_deploy.py",),
    "hirelab/models/checkpoints.py": (
        "tests/models/test_checkpoints.py",
        "tests/hooks/test_attacked.py",
    ),
    "hirelab/training/data.py": ("tests/training/test_data.py",),
    "hirelab/ablation/ledger.py": ("tests/ablation/test_ledger.py",),
}

# Imported once, before anything is tried; nothing of hirelab.
WARM = (
    "torch",
    "torch._dynamo",
    "torchvision",
    "timm",
    "safetensors.torch",
    "accelerate",
    "captum.attr",
    "scipy.stats",
    "skimage.transform",
    "matplotlib.pyplot",
    "PIL.Image",
    "IPython.display",
    "ipywidgets",
    "nbval.plugin",  # pytest loads it, 3 s
    "xdist.plugin",
    "pytest_cov.plugin",
)

# ------------------------------------------------------------------ the changes


@dataclass(frozen=True)
class Mutant:
    """A change in one place of a module.

    Attributes:
        line: where it stands, counted from 1; ``text``: that line; ``column``: in bytes.
        start, end: the bytes that are replaced; ``after``: what stands there then.
        change: "before -> after", shortened, for people.
        function: whose body holds it, "" outside of all; ``scope``: its first and last line.
    """

    line: int
    text: str
    column: int
    start: int
    end: int
    after: str
    change: str
    function: str
    scope: tuple[int, int]

    def apply(self, source: str) -> str:
        """The module's text with the change."""
        raw = source.encode()
        return (raw[: self.start] + self.after.encode() + raw[self.end :]).decode()


_OTHER: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def _with(node: ast.AST, **changed: Any) -> str:
    """The text of a node with other fields."""
    return ast.unparse(type(node)(**dict(ast.iter_fields(node)) | changed))


def _changes(node: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """What of a node is replaced, and by what."""
    match node:
        case ast.Compare(ops=ops):
            for i, op in enumerate(ops):
                yield node, _with(node, ops=[*ops[:i], _OTHER[type(op)](), *ops[i + 1 :]])
        case ast.BinOp(op=op) | ast.BoolOp(op=op) | ast.AugAssign(op=op) if type(op) in _OTHER:
            yield node, _with(node, op=_OTHER[type(op)]())
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield node, ast.unparse(operand)
        case ast.Constant(value=bool(truth)):
            yield node, str(not truth)
        case ast.Constant(value=int(number) | float(number)):
            yield node, repr(type(number)({0: 1, 1: 0}.get(number, number + 1)))
        case ast.If(test=test) | ast.IfExp(test=test) if not _is_negated_anyway(test):
            yield test, f"not ({ast.unparse(test)})"
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            yield node, "return None"
        case ast.Break():
            yield node, "continue"
        case ast.Continue():
            yield node, "break"
    if isinstance(node, ast.Raise | ast.Assign | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield node, "pass"


def _is_optional(node: ast.AST) -> bool:
    """Whether it is a type, such as ``Tensor | None``."""
    return isinstance(node, ast.BinOp) and ast.unparse(node.right) == "None"


def _is_negated_anyway(test: ast.expr) -> bool:
    """Whether the change of a condition's own operator swaps the branches already."""
    match test:
        case ast.UnaryOp(op=ast.Not()):
            return True
        case ast.Compare(ops=[op]):
            return not isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    return False


class _Finder(ast.NodeVisitor):
    """Walks over what runs: not over type hints, texts, `__all__`, or how a thing shows itself.

    Nor over the ``strict=True`` of a zip, which is a check of the code and no behaviour.
    """

    def __init__(self, source: str) -> None:
        self.lines = source.split("\n")
        starts = [0]
        for line in self.lines:
            starts.append(starts[-1] + len(line.encode()) + 1)
        self.starts, self.raw = starts, source.encode()
        self.function, self.scope = "", (0, 0)
        self.found: list[Mutant] = []

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom) or _is_optional(node):
            return
        if isinstance(node, ast.keyword) and node.arg == "strict":
            return
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return
        for place, after in _changes(node):
            # what a module or a class is made of: without it the import fails, which says nothing
            if after != "pass" or self.scope != (0, 0):
                self.add(place, after)
        if isinstance(node, ast.Raise):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.enter(node)
        elif isinstance(node, ast.AnnAssign):
            if node.value:
                self.visit(node.value)
        else:
            self.generic_visit(node)

    def enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        if node.name in ("__repr__", "__str__", "extra_repr"):
            return
        for part in [*node.decorator_list, *node.args.defaults, *node.args.kw_defaults]:
            if part:
                self.visit(part)
        outside = self.function, self.scope
        self.function, self.scope = node.name, (node.body[0].lineno, node.end_lineno or 0)
        for statement in node.body:
            self.visit(statement)
        self.function, self.scope = outside

    def add(self, node: Any, after: str) -> None:
        start = self.starts[node.lineno - 1] + node.col_offset
        end = self.starts[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(self.raw[start:end].decode().split())
        change = f"{_short(before)} -> {_short(after)}"
        text = self.lines[node.lineno - 1].strip()
        if isinstance(node, ast.expr):
            after = f"({after})"  # stays one operand
        place = (node.lineno, text, node.col_offset, start, end)
        self.found.append(Mutant(*place, after, change, self.function, self.scope))


def _short(text: str) -> str:
    return textwrap.shorten(text, 60, placeholder=" ...")


def find_mutants(source: str) -> list[Mutant]:
    """Every mutant of a module's text, from its first line to its last."""
    finder = _Finder(source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda m: (m.start, m.end, m.after))


def choose(mutants: list[Mutant], sample: int, seed: str) -> list[Mutant]:
    """``sample`` of them (0: all) in an order that the seed shuffles.

    A smaller sample is the beginning of a larger one, and a change elsewhere in the module leaves
    the order of the others as it is.
    """

    def place(mutant: Mutant) -> bytes:
        text = f"{seed}: {mutant.text}: {mutant.column}: {mutant.change}"
        return hashlib.sha256(text.encode()).digest()

    return sorted(mutants, key=place)[: sample or None]


# ------------------------------------------------------------------ trying one


class _Changed(importlib.machinery.SourceFileLoader):
    """Loads a module from another text than its file's."""

    def __init__(self, name: str, path: str, source: str) -> None:
        super().__init__(name, path)
        self.source = source

    def get_code(self, fullname: str) -> Any:
        return compile(self.source, self.path, "exec", dont_inherit=True)

    def get_source(self, fullname: str) -> str:
        return self.source


class _Finds(importlib.abc.MetaPathFinder):
    """Finds one module, and leaves all others to Python."""

    def __init__(self, name: str, path: str, source: str) -> None:
        self.name, self.loader = name, _Changed(name, path, source)

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> Any:
        if fullname != self.name:
            return None
        return importlib.util.spec_from_file_location(
            fullname, self.loader.path, loader=self.loader
        )


def install(path: Path, source: str) -> None:
    """From now on the module of a file is imported with this text, in this process."""
    for name, module in list(sys.modules.items()):  # whatever was imported of the checkout
        if str(getattr(module, "__file__", "")).startswith((f"{ROOT}/hirelab/", f"{ROOT}/tests/")):
            del sys.modules[name]
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    sys.meta_path.insert(0, _Finds(name, str(path), source))
    # whoever asks for the source, as TorchScript does, gets this one
    linecache.cache[str(path)] = (len(source), None, source.splitlines(True), str(path))


@dataclass
class Outcome:
    """What a run of pytest showed; and a plugin of pytest that sees to it.

    Attributes:
        chosen: the tests to run, quickest first; None runs all in their order.
        seconds: of each test; ``failed``: the first that failed, "" where none did.
        reached: of each test, the lines of the module that it ran.
    """

    chosen: Sequence[str] | None = None
    coverage: Any = None
    seconds: dict[str, float] = field(default_factory=dict)
    failed: str = ""
    reached: dict[str, set[int]] = field(default_factory=dict)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.chosen is not None:
            place = {name: i for i, name in enumerate(self.chosen)}
            known = [item for item in items if item.nodeid in place]
            items[:] = sorted(known, key=lambda item: place[item.nodeid])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        if self.coverage:
            self.coverage.switch_context(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed = self.failed or report.nodeid

    def run(self, files: Sequence[str]) -> None:
        # the same examples for every mutant, and none of its failures kept for tests that follow
        settings.register_profile("mutants", database=None, derandomize=True, deadline=None)
        quiet = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile", "mutants"]
        code = pytest.main([*quiet, *files], plugins=[self])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            self.failed = self.failed or f"pytest: {pytest.ExitCode(code).name}"


def run_tests(files: Sequence[str], chosen: Sequence[str] | None = None) -> dict[str, Any]:
    """Run tests in this process: their seconds, and the first that failed."""
    ran = Outcome(chosen)
    ran.run(files)
    return {"seconds": ran.seconds, "failed": ran.failed}


def look(files: Sequence[str]) -> dict[str, Any]:
    """Run all tests on hirelab as it is; also, of each module, {test: the lines that it ran}."""
    import coverage

    paths = [str(ROOT / path) for path, held_by in MODULES.items() if held_by == files]
    watch = coverage.Coverage(data_file=None, config_file=False, include=paths)
    ran = Outcome(coverage=watch)
    watch.start()
    ran.run(files)
    watch.stop()
    reached = {}
    for path in paths:
        lines = watch.get_data().contexts_by_lineno(path)
        reached[path] = {t: {n for n, tests in lines.items() if t in tests} for t in ran.seconds}
    return {"seconds": ran.seconds, "failed": ran.failed, "reached": reached}


def forked(work: Callable[[], dict[str, Any]], limit: float) -> dict[str, Any]:
    """What work returns, done in a fork; {"failed": why} if that takes too long or dies."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer"
        child = os.fork()
        if child == 0:
            _work(work, answer)
        left = limit
        while os.waitpid(child, os.WNOHANG)[0] == 0:
            if left < 0:
                os.killpg(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"failed": "time limit"}
            before = time.monotonic()
            time.sleep(0.02)
            left -= min(time.monotonic() - before, 1)  # more has passed where all were stopped
        with contextlib.suppress(ProcessLookupError):  # what the tests started and left behind
            os.killpg(child, signal.SIGKILL)
        return pickle.loads(answer.read_bytes()) if answer.exists() else {"failed": "crash"}


def _work(work: Callable[[], dict[str, Any]], answer: Path) -> NoReturn:
    """Write what work returns into a file, in a group of processes of its own, and end."""
    try:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        result = pickle.dumps(work())
        answer.with_suffix(".part").write_bytes(result)
        answer.with_suffix(".part").rename(answer)
    finally:
        os._exit(0)


@dataclass(frozen=True)
class Room:
    """A module and the tests that hold it."""

    path: str
    files: tuple[str, ...]

    @property
    def source(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")

    def tests_hash(self) -> str:
        """Of the tests' text: a mutant that lived is tried again when it changes."""
        texts = [f.read_bytes() for name in self.files for f in sorted(_tests(ROOT / name))]
        return hashlib.sha256(b"".join(texts)).hexdigest()[:16]

    def watch(self) -> Outcome:
        """The tests on the module as it is: what each takes, and which lines it reaches.

        Raises:
            SystemExit: a test fails already.
        """
        seen = _seen(self)
        if seen["failed"]:
            raise SystemExit(f"{self.path}: {seen['failed']} fails without any change.")
        return Outcome(seconds=seen["seconds"], reached=seen["reached"][str(ROOT / self.path)])

    def judge(self, mutant: Mutant, seen: Outcome) -> str:
        """The test that fails for a mutant, or what else ended it; "" where it lives.

        Asked are the tests that reach its function, quick ones first; all of them where the import
        runs it.
        """
        first, last = mutant.scope
        quick = sorted(seen.seconds, key=lambda test: seen.seconds[test])
        near = [t for t in quick if not last or any(first <= n <= last for n in seen.reached[t])]
        if not near:
            return ""
        limit = 60 + 6 * sum(seen.seconds[t] for t in near)
        return forked(partial(_try, self, mutant.apply(self.source), near), limit)["failed"]


def _seen(room: Room) -> dict[str, Any]:
    """What `look` returns, kept until the tests or the modules that they hold change."""
    held = [(ROOT / path).read_bytes() for path in MODULES if MODULES[path] == room.files]
    name = hashlib.sha256(room.tests_hash().encode() + b"".join(held)).hexdigest()[:16]
    kept = Path(tempfile.gettempdir()) / f"hirelab-mutants-{name}.pickle"
    if kept.exists():
        return pickle.loads(kept.read_bytes())
    seen = forked(partial(look, room.files), limit=1800)
    if not seen["failed"]:
        kept.write_bytes(pickle.dumps(seen))
    return seen


def _try(room: Room, source: str, tests: Sequence[str]) -> dict[str, Any]:
    install(ROOT / room.path, source)
    return run_tests(room.files, tests)


def _tests(path: Path) -> list[Path]:
    return list(path.rglob("*.py")) if path.is_dir() else [path]


def warm_up() -> None:
    """Import what every try needs, so that a fork has it already."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch; threads that wait cost ten times
    for name in WARM:
        importlib.import_module(name)
    gc.freeze()  # what is there now is not looked through again in every try


# ------------------------------------------------------------------ all of them


def key_of(room: Room, mutant: Mutant) -> str:
    """What a result is remembered by: the module's text and the change in it."""
    text = f"{room.path}:{room.source}:{mutant.start}:{mutant.end}:{mutant.after}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """The kept results by their key, later ones in the place of earlier ones."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["key"]: row for row in map(json.loads, lines)}


def explained(path: str, row: Mapping[str, Any]) -> str:
    """Why nobody could notice a mutant; "" where no reason is known."""
    return EXPLAINED.get((path, row["function"], row["text"], row["change"]), "")


def try_room(
    room: Room, sample: int, seed: int, out: Path, known_only: bool = False
) -> list[dict[str, Any]]:
    """The results of a module's mutants; those that are not known yet are found out, or left out
    where only what is known is asked for."""
    mutants = choose(find_mutants(room.source), sample, f"{seed} {room.path}")
    known, tests_hash, seen = read_results(out), room.tests_hash(), None
    rows = []
    for mutant in mutants:
        key = key_of(room, mutant)
        row = known.get(key)
        if known_only and row is None:
            continue
        if row is None or (not known_only and not row["by"] and row["tests"] != tests_hash):
            seen = seen or room.watch()
            start = time.monotonic()
            row = {"key": key, "module": room.path, "by": room.judge(mutant, seen)}
            row |= {"tests": tests_hash, "line": mutant.line, "function": mutant.function}
            row |= {"text": mutant.text, "change": mutant.change}
            row["seconds"] = round(time.monotonic() - start, 1)
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            said = row["by"] or explained(room.path, row) or "ALIVE"
            print(f"{room.path}:{mutant.line}: {mutant.change}: {said}", flush=True)
        rows.append(row | {"function": mutant.function})
    return rows


def counts(path: str, rows: Sequence[Mapping[str, Any]]) -> tuple[int, int, int, int]:
    """Mutants, and of them killed, explained and alive."""
    killed = sum(bool(row["by"]) for row in rows)
    reasons = sum(not row["by"] and bool(explained(path, row)) for row in rows)
    return len(rows), killed, reasons, len(rows) - killed - reasons


def table_of(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The Markdown table, a row a module and one for all."""
    from hirelab._shared.tables import table  # not before: what is tried is imported by each try

    lines = {path: counts(path, rows) for path, rows in results.items()}
    lines["all"] = tuple(map(sum, zip(*lines.values(), strict=True)))
    rows = [
        [name, *numbers, f"{1 - numbers[-1] / numbers[0]:.1%}"] for name, numbers in lines.items()
    ]
    head = ["module", "mutants", "killed", "explained", "alive", "share that is held"]
    return table([head, *rows], align="lr", markdown=True)


def write_between(path: Path, text: str) -> None:
    """Put a text between the markers of a document."""
    page = path.read_text(encoding="utf-8")
    block = re.compile(r"(<!-- mutants -->\n).*?(<!-- end -->)", re.DOTALL)
    if not block.search(page):
        raise SystemExit(f"{path} has no <!-- mutants --> ... <!-- end -->.")
    path.write_text(block.sub(lambda m: f"{m[1]}{text}\n{m[2]}", page), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", nargs="*", default=[""], help="parts of paths of modules")
    parser.add_argument("--sample", type=int, default=40, help="mutants of a module, 0 for all")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--out", type=Path, default=ROOT / "mutants.jsonl", help="results")
    parser.add_argument("--known", action="store_true", help="try nothing, show what is known")
    parser.add_argument("--write", type=Path, help="a document whose table is written anew")
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    if not asked.known:
        warm_up()
    results = {}
    for path, files in MODULES.items():
        if any(part in path for part in asked.only):
            room = Room(path, files)
            rows = try_room(room, asked.sample, asked.seed, asked.out, asked.known)
            results |= {path: rows} if rows else {}
    said = table_of(results)
    alive = [
        f"{path}:{row['line']}: {row['change']}"
        for path, rows in results.items()
        for row in sorted(rows, key=lambda row: row["line"])
        if not row["by"] and not explained(path, row)
    ]
    size = f"{asked.sample} of each module" if asked.sample else "all"
    said += f"\n\n*{date.today()}, {size}, seed {asked.seed}.*"
    print("\n".join([said, "", "Alive:" if alive else "None is alive.", *alive]))
    if asked.write:
        write_between(asked.write, said)
    gc.unfreeze()


if __name__ == "__main__":
    main()

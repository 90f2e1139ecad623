"""The command line: ``hirelab lab | info | data | train | evaluate | ...``; see ``--help``.

Every command is a few lines that import what they call only when they run, so that
``hirelab --help`` answers at once.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from ._shared.errors import HirelabError, unknown
from ._shared.files import project_folder


class _Parser(argparse.ArgumentParser):
    """A parser that suggests near names for a mistyped command."""

    commands: Any = None

    def add_commands(self, metavar: str) -> Any:
        self.commands = self.add_subparsers(metavar=metavar, required=True)
        return self.commands

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[override]
        given = list(sys.argv[1:] if args is None else args)
        if self.commands and given and not given[0].startswith("-"):
            known = self.commands.choices
            if given[0] not in known:
                cure = f"`{self.prog} --help` says what each does: {', '.join(known)}."
                self.error(unknown("command", given[0], known, cure))
        return super().parse_known_args(given, namespace)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status.

    0: done. 1: the command itself reports a failure. 2: something the user can put right, said in
    one sentence on stderr. 130: interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.command(options) or 0
    except HirelabError as error:
        print(f"hirelab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output, `head` say, has gone; so is said to the shell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return 130


def _parser() -> _Parser:
    parser = _Parser(
        prog="hirelab", description="A microscope for Hire-MLP and its hierarchical rearrangement."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_commands("COMMAND")

    def command(name: str, function: Callable[..., int | None], text: str) -> _Parser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function)
        return added

    lab = command("lab", _lab, "Open JupyterLab on the first notebook.")
    lab.add_argument("--port", type=int, help="use this port and no other (default: a free one)")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    lab.add_argument("--allow-root", action="store_true", help="start as root, in a container say")
    _add_notebooks_folder(lab)

    command("info", _info, "Print versions, device, threads and the data folders found.")

    notebooks = command("notebooks", _notebooks, "Run notebooks and store their outputs in them.")
    notebooks.add_argument("names", nargs="*", help="notebook names, such as 01_region_partition")
    _add_notebooks_folder(notebooks)

    gallery = command("gallery", _gallery, "Write every notebook as a page that needs no Python.")
    gallery.add_argument("--out", type=Path, default=Path("gallery"), help="folder (%(default)s)")
    gallery.add_argument(
        "--thumbnails", type=Path, metavar="DIR", help="write a small image of each instead"
    )
    _add_notebooks_folder(gallery)

    export = command("export", _export, "Write a network for other runtimes, deployed.")
    export.add_argument("network", help="a network's name, or a checkpoint file of a Hire-MLP")
    export.add_argument("--format", default="onnx", help="onnx or exported-program (%(default)s)")
    export.add_argument("--out", type=Path, help="file (default: the network's name)")
    export.add_argument(
        "--img-size", type=int, default=224, help="input pixels a side (%(default)s)"
    )
    export.add_argument(
        "--dynamic-size", action="store_true", help="let height and width vary (batch always does)"
    )

    train = command("train", _train, "Train a network; the same command goes on after a stop.")
    train.add_argument("--model", default="hire_mlp_pico", help="any network of timm's or ours")
    train.add_argument("--data", required=True, help="a data set's name, a folder or a zip")
    train.add_argument("--preset", default="subset", help="recipe to start from (%(default)s)")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe (epochs=10) or the network (model.cross_region=none)",
    )
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--workers", type=int, default=0, help="loading processes (%(default)s)")
    train.add_argument(
        "--micro-batch", type=int, default=0, help="images a process computes at once (all)"
    )
    train.add_argument("--save-minutes", type=float, default=5, help="between checkpoints")
    train.add_argument("--tensorboard", action="store_true", help="also write for TensorBoard")

    command("recipes", _recipes, "Print the paper's recipe, and how the presets differ from it.")

    ablate = command("ablate", _ablate, "Train what is missing of the paper's ablation tables.")
    ablate.add_argument(
        "--table",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="tables of networks to train, or `diagnostics` (all tables)",
    )
    ablate.add_argument(
        "--profile", default="cpu", help="smoke, cpu, gpu or imagenet (%(default)s)"
    )
    ablate.add_argument("--data", help="a data set's name, a folder or a zip (the profile's)")
    ablate.add_argument("--model", help="the Hire-MLP to vary (the profile's)")
    ablate.add_argument(
        "--seeds", type=int, help="trainings of a cell; the default design has more (the profile's)"
    )
    ablate.add_argument("--img-size", type=int, help="pixels a side (the profile's)")
    ablate.add_argument("--epochs", type=int, help="(the profile's)")
    ablate.add_argument(
        "--ledger", type=Path, help="folder of results (data/results/ablations/DATA-PROFILE)"
    )
    ablate.add_argument(
        "--out", type=Path, default=Path("runs/ablations"), help="runs going on (%(default)s)"
    )
    ablate.add_argument("--status", action="store_true", help="say where it stands, run nothing")
    ablate.add_argument("--retry", action="store_true", help="run again what failed")
    ablate.add_argument("--keep", action="store_true", help="keep run folders, with their weights")
    ablate.add_argument(
        "--on", metavar="ray[:ADDRESS]", help="run on a Ray cluster; ADDRESS is host:port"
    )

    evaluate = command("evaluate", _evaluate, "Accuracy of a network on validation images.")
    evaluate.add_argument(
        "network", help="a bundled one (hire_mlp_pico.imagenette), a run's folder, or a checkpoint"
    )
    evaluate.add_argument("--data", help="a data set's name, a folder or a zip (default: its own)")
    evaluate.add_argument("--img-size", type=int, help="pixels a side (default: its own)")
    evaluate.add_argument("--by-class", action="store_true", help="also every class's accuracy")

    release = command("release", _release, "Put a finished run's weights into data/weights.")
    release.add_argument("run", type=Path, help="the folder of the run")
    release.add_argument("name", help="NETWORK.TAG, such as hire_mlp_pico.imagenette")
    release.add_argument("--notes", default="", help="for the manifest")

    data = command("data", _data, "List, get and check data sets.")
    actions = data.add_commands("ACTION")
    for name, argument, text in (
        ("list", None, "What is known by name, and what of it is here."),
        ("get", "name", "Download a data set from its publisher, or go on with it."),
        ("check", "source", "Read every image of a data set, a folder or a zip."),
        ("where", "name", "Print where a data set lies."),
    ):
        action = actions.add_parser(name, help=text, description=text)
        action.set_defaults(command=_data, action=name, argument=None)
        if argument:
            action.add_argument("argument", metavar=argument.upper())

    bench = command("bench", _bench, "Run the benchmarks, all or those named.")
    bench.add_argument("names", nargs="*", help="benchmark names (see --list)")
    bench.add_argument("--list", action="store_true", help="say what there is, run nothing")
    return parser


def _add_notebooks_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--notebooks", type=Path, metavar="DIR", help="another folder (default: the project's own)"
    )


def _notebooks_folder(options: argparse.Namespace) -> Path:
    if options.notebooks is None:
        return project_folder("notebooks")
    if not options.notebooks.is_dir():
        raise HirelabError(f"--notebooks: there is no folder {options.notebooks}")
    return options.notebooks


def _lab(options: argparse.Namespace) -> None:
    from hirelab.lab.jupyter import open_lab

    folder = _notebooks_folder(options)
    open_lab(folder, options.port, browser=not options.no_browser, root=options.allow_root)


def _info(options: argparse.Namespace) -> None:
    from hirelab.lab.info import report

    print(report())


def _notebooks(options: argparse.Namespace) -> None:
    from hirelab.lab.notebooks import find, run_notebooks

    run_notebooks(find(_notebooks_folder(options), options.names))


def _gallery(options: argparse.Namespace) -> None:
    from hirelab.lab.gallery import write_gallery, write_thumbnails
    from hirelab.lab.notebooks import find

    notebooks = find(_notebooks_folder(options))
    if options.thumbnails:
        written = write_thumbnails(notebooks, options.thumbnails)
        print(f"{len(written)} thumbnails in {options.thumbnails}")
    else:
        print("drawing every position of every control takes a minute or two", flush=True)
        print(f"open {write_gallery(notebooks, options.out)}")


def _export(options: argparse.Namespace) -> None:
    from hirelab.models import create, load, model_names
    from hirelab.models.export import export

    source = options.network
    try:
        if source in model_names():
            print(f"{source}: random weights; give a checkpoint file for trained ones")
            model = create(source)
        else:
            model = load(source)
        out = options.out or Path(Path(source).stem)
        print(export(model, out, options.format, options.img_size, options.dynamic_size))
    except (ValueError, FileNotFoundError, ImportError) as error:
        raise HirelabError(str(error)) from error


def _train(options: argparse.Namespace) -> int:
    from hirelab.training.loop import train
    from hirelab.training.recipes import preset

    recipe, arguments = preset(options.preset, options.set)
    run = train(
        options.model,
        options.data,
        recipe,
        options.out,
        model_arguments=arguments,
        seed=options.seed,
        workers=options.workers,
        micro_batch=options.micro_batch,
        save_minutes=options.save_minutes,
        tensorboard=options.tensorboard,
        command=shlex.join(["hirelab", *sys.argv[1:]]),
    )
    return 0 if run.done else 130


def _ablate(options: argparse.Namespace) -> int:
    from hirelab.ablation.ablate import ablate, ablation_status
    from hirelab.ablation.protocols import DIAGNOSTICS, default_ledger, protocol

    own = {name: getattr(options, name) for name in ("data", "model", "img_size", "epochs")}
    if DIAGNOSTICS in options.table and (given := [k for k, v in own.items() if v is not None]):
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise HirelabError(f"--table {DIAGNOSTICS} trains on generated tasks; leave {flags} out.")
    chosen = protocol(
        options.profile,
        seeds=options.seeds,
        **own,
    )
    ledger = options.ledger or default_ledger(options.table, chosen.data, options.profile)
    if options.status:
        print(ablation_status(options.table, chosen, ledger))
        return 0
    more = {"retry": options.retry, "keep": options.keep, "on": options.on or ""}
    try:
        finished = ablate(options.table, chosen, ledger, options.out, **more)
    except KeyboardInterrupt:
        finished = False
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    found = ablation_status(options.table, chosen, ledger)
    print(f"{found.rest}; they are in {ledger}")
    return 1 if found.reasons else 0


def _recipes(options: argparse.Namespace) -> None:
    from hirelab.training.recipes import table

    print(table())


def _evaluate(options: argparse.Namespace) -> None:
    from hirelab.training.evaluation import evaluate_checkpoint

    found = evaluate_checkpoint(options.network, options.data, options.img_size)
    print(found)
    for name, share in found.by_class().items() if options.by_class else ():
        print(f"{share:6.1f} %  {name}")


def _release(options: argparse.Namespace) -> None:
    from hirelab.models.pretrained import path_of
    from hirelab.training.release import release

    made = release(options.run, options.name, options.notes)
    print(f"{path_of(options.name)}: {made['megabytes']} MB, top-1 {made['top1']} %")


def _data(options: argparse.Namespace) -> int:
    from hirelab.datasets.check import check, listing
    from hirelab.datasets.download import get
    from hirelab.datasets.subsets import locate

    if options.action == "list":
        print(listing())
    elif options.action == "get":
        print(get(options.argument))
    elif options.action == "where":
        print(locate(options.argument))
    else:
        report = check(options.argument)
        print(report)
        return 0 if report.ok else 1
    return 0


def _bench(options: argparse.Namespace) -> int:
    from hirelab.lab import bench

    failed = 0
    for path in bench.find_benchmarks(project_folder("benchmarks"), options.names):
        print(f"{path.stem}: {bench.first_line(path)}", flush=True)
        failed += 0 if options.list else bool(bench.run(path))
    return min(failed, 1)


if __name__ == "__main__":
    raise SystemExit(main())

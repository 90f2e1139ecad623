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
from typing import Any, NoReturn

from . import __version__
from ._shared.errors import HirelabError, unknown
from ._shared.files import REFUSALS, notebooks_folder, project_folder
from .training.recipes import PRESETS

FORMATS = ("onnx", "exported-program")
DENSE_TASKS = {"detection": ("mask_rcnn", "retinanet"), "segmentation": ("upernet", "fpn")}
PROFILES = ("smoke", "cpu", "gpu", "imagenet")
NETWORK = "a trained network: its name (NAME.TAG, or NAME for its first weights), a run's folder, "
NETWORK += "or a checkpoint file"


class _Parser(argparse.ArgumentParser):
    """A parser that suggests near names for a mistyped command."""

    commands: Any = None

    def add_commands(self, metavar: str) -> Any:
        self.commands = self.add_subparsers(metavar=metavar, required=True)
        return self.commands

    def refuse(self, command: str, arguments: Sequence[str]) -> NoReturn:
        """End with a sentence on what a command does not take, with near names for an option."""
        found: Any = self
        for word in command.split():  # "dense train" is a command of a command
            found = found.commands.choices[word]
        parser: argparse.ArgumentParser = found
        first = arguments[0]
        if first.startswith("-"):
            known = [name for name in parser._option_string_actions if name.startswith("--")]
            cure = f"`{parser.prog} --help` says what each does: {', '.join(known)}."
            parser.error(unknown("option", first.partition("=")[0], known, cure))
        parser.error(
            f"{shlex.join(arguments)} is more than {parser.prog} takes; `{parser.prog} --help` "
            "says what it takes."
        )

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
    _fill_streams()
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest:
        parser.refuse(options.called, rest)
    if threads := getattr(options, "threads", None):
        os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(threads)
    try:
        _check_here()
        return options.command(options) or 0
    except HirelabError as error:
        print(f"hirelab: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # who read the output, `head` say, has gone; so is said to the shell
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in REFUSALS:
            raise
        cure = "make room or check the permissions there, and run the same command again"
        print(f"hirelab: {error}: {cure}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nhirelab {options.called}: stopped by Ctrl-C, before its end", file=sys.stderr)
        return 130


def _fill_streams() -> None:
    """Let what is written to a stream that was closed for us (``>&-``) go nowhere: libraries write
    without asking."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def _check_here() -> None:
    """Make sure that there is a working folder: without one not even torch can be imported.

    Raises:
        HirelabError: it was removed meanwhile.
    """
    try:
        Path.cwd()
    except OSError as error:
        raise HirelabError(
            f"the folder that this was started in cannot be used ({error.strerror}): cd to another"
        ) from error


def _parser() -> _Parser:
    parser = _Parser(
        prog="hirelab", description="A microscope for Hire-MLP and its hierarchical rearrangement."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_commands("COMMAND")

    def command(name: str, function: Callable[..., int | None], text: str) -> _Parser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=function, called=name)
        return added

    lab = command("lab", _lab, "Open JupyterLab on your own copies of the notebooks.")
    lab.add_argument("--port", type=int, help="use this port and no other (default: a free one)")
    lab.add_argument("--no-browser", action="store_true", help="print the address, open no browser")
    lab.add_argument("--allow-root", action="store_true", help="start as root, in a container say")
    lab.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="open this folder; what it lacks of the notebooks is copied into it "
        "(default: my_notebooks in the checkout, hirelab_notebooks here without one)",
    )

    command("info", _info, "Print versions, device, threads and the data folders found.")

    notebooks = command("notebooks", _notebooks, "Run notebooks and store their outputs in them.")
    notebooks.add_argument("names", nargs="*", help="notebook names, such as 01_region_partition")
    _add_notebooks_folder(notebooks)

    gallery = command(
        "gallery", _gallery, "Write notebooks, documents and API as a site without Python."
    )
    gallery.add_argument("--out", type=Path, default=Path("gallery"), help="folder (%(default)s)")
    gallery.add_argument(
        "--thumbnails", type=Path, metavar="DIR", help="write a small image of each instead"
    )
    _add_notebooks_folder(gallery)

    export = command("export", _export, "Write a network for other runtimes, deployed.")
    export.add_argument("network", help=f"{NETWORK} of a Hire-MLP")
    export.add_argument(
        "--untrained", action="store_true", help="with random weights, of a NAME alone"
    )
    export.add_argument(
        "--format", default="onnx", choices=FORMATS, help="what to write (%(default)s)"
    )
    export.add_argument("--out", type=Path, help="file (default: the network's name, here)")
    export.add_argument(
        "--img-size", type=_at_least(3), default=224, help="input pixels a side (%(default)s)"
    )
    export.add_argument(
        "--dynamic-size", action="store_true", help="let height and width vary (batch always does)"
    )
    export.add_argument(
        "--rearrangeable",
        action="store_true",
        help="take the index maps of every branch as inputs, so that shift, padding, mode and "
        "restore can be moved in the file; how to drive it stands in its metadata",
    )
    export.add_argument(
        "--point",
        nargs="+",
        metavar="NAME",
        help="with --rearrangeable: points to return beside the logits, names or patterns such as "
        "'stages.2.*.hire.out' (default: the stages' outputs and the gates' shares)",
    )

    train = command("train", _train, "Train a network; the same command goes on after a stop.")
    train.add_argument("--data", required=True, help="a data set's name, a folder or a zip")
    train.add_argument("--out", type=Path, required=True, help="folder of the run, new or its own")
    train.add_argument(
        "--model",
        default="hire_mlp_pico",
        help="the network: hire_mlp_atto, _pico, _tiny, _small, _base, _large, or any of timm's "
        "(%(default)s)",
    )
    train.add_argument(
        "--preset",
        default="subset",
        help=f"recipe to start from: {', '.join(PRESETS)} (%(default)s); `hirelab recipes` prints "
        "them",
    )
    train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe (epochs=10) or the network (model.cross_region=none)",
    )
    train.add_argument(
        "--seed",
        type=_at_least(0),
        default=0,
        help="of the first weights, the order of the images and their augmentation (%(default)s)",
    )
    train.add_argument(
        "--workers", type=_at_least(0), default=0, help="loading processes (%(default)s)"
    )
    train.add_argument(
        "--micro-batch",
        type=_at_least(0),
        default=0,
        help="images a process computes at once (default: its whole share of a batch)",
    )
    train.add_argument(
        "--save-minutes", type=float, default=5, help="between checkpoints (%(default)s)"
    )
    train.add_argument("--tensorboard", action="store_true", help="also write for TensorBoard")
    _add_threads(train)

    dense = command("dense", _dense_train, "Train and evaluate detectors and segmenters.")
    actions = dense.add_commands("ACTION")
    text = "Train a detector or segmenter; the same command goes on after a stop."
    dense_train = actions.add_parser("train", help=text, description=text)
    dense_train.set_defaults(command=_dense_train, called="dense train")
    dense_train.add_argument("--task", required=True, help=", ".join(DENSE_TASKS))
    dense_train.add_argument("--data", required=True, help="a data set's name, a folder or a zip")
    dense_train.add_argument("--out", type=Path, required=True, help="folder of the run")
    dense_train.add_argument(
        "--head",
        help="; ".join(f"{task}: {', '.join(kinds)}" for task, kinds in DENSE_TASKS.items())
        + " (the first)",
    )
    dense_train.add_argument(
        "--model",
        default="hire_mlp_pico",
        help="the backbone: ours, or any of timm's with four stages (%(default)s)",
    )
    dense_train.add_argument(
        "--untrained", action="store_true", help="begin with random weights of the backbone"
    )
    dense_train.add_argument(
        "--preset",
        default="small",
        help="recipe to start from: 1x, 3x, ade20k-upernet, ade20k-fpn, small (%(default)s)",
    )
    dense_train.add_argument(
        "--set",
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="change the recipe (epochs=10) or the network (model.stage_norms=True)",
    )
    dense_train.add_argument("--seed", type=_at_least(0), default=0, help="(%(default)s)")
    dense_train.add_argument(
        "--workers", type=_at_least(0), default=0, help="loading processes (%(default)s)"
    )
    dense_train.add_argument(
        "--save-minutes", type=float, default=5, help="between checkpoints (%(default)s)"
    )
    _add_threads(dense_train)
    text = "Evaluate what `hirelab dense train` trained, one image at a time."
    dense_evaluate = actions.add_parser("evaluate", help=text, description=text)
    dense_evaluate.set_defaults(command=_dense_evaluate, called="dense evaluate")
    dense_evaluate.add_argument("network", type=Path, help="a run's folder, or its weights' file")
    dense_evaluate.add_argument("--data", help="data to evaluate on (default: the run's own)")
    dense_evaluate.add_argument("--split", default="val", help="(%(default)s)")
    dense_evaluate.add_argument(
        "--multi-scale",
        action="store_true",
        help="of a segmenter: average over six sizes of the image and their mirror images",
    )
    dense_evaluate.add_argument(
        "--pad",
        type=_at_least(0),
        default=0,
        help="pixels of empty canvas right of and below each image, as a larger image in its batch "
        "would bring (%(default)s)",
    )
    dense_evaluate.add_argument(
        "--masked",
        action="store_true",
        help="with --pad: the gates of a Hire-MLP average over the image alone",
    )
    dense_evaluate.add_argument("--by-class", action="store_true", help="also for each class")
    _add_threads(dense_evaluate)

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
        "--row", nargs="+", default=[], metavar="NAME", help="rows of these tables (all)"
    )
    ablate.add_argument("--profile", default="cpu", help=f"{', '.join(PROFILES)} (%(default)s)")
    ablate.add_argument("--data", help="a data set's name, a folder or a zip (the profile's)")
    ablate.add_argument("--model", help="the Hire-MLP to vary (the profile's)")
    ablate.add_argument(
        "--seeds",
        type=int,
        help="trainings of a cell; the default design has more (the profile's)",
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
    ablate.add_argument(
        "--keep",
        action="store_true",
        help="keep run folders with their weights, in lockstep the weights",
    )
    ablate.add_argument(
        "--on",
        metavar="HOW",
        help="lockstep[:N]: N trainings side by side on this machine's GPU (32); "
        "ray[:ADDRESS]: on a Ray cluster, ADDRESS is host:port",
    )
    _add_threads(ablate)

    evaluate = command("evaluate", _evaluate, "Accuracy of a network on validation images.")
    evaluate.add_argument("network", help=NETWORK)
    evaluate.add_argument("--data", help="a data set's name, a folder or a zip (default: its own)")
    evaluate.add_argument("--img-size", type=_at_least(1), help="pixels a side (default: its own)")
    evaluate.add_argument("--by-class", action="store_true", help="also every class's accuracy")
    _add_threads(evaluate)

    release = command("release", _release, "Put a finished run's weights into data/weights.")
    release.add_argument("run", type=Path, help="the folder of the run")
    release.add_argument("name", help="NETWORK.TAG, such as hire_mlp_pico.imagenette")
    release.add_argument("--notes", default="", help="for the manifest")

    data = command("data", _data, "List, get and check data sets.")
    actions = data.add_commands("ACTION")
    for name, argument, text in (
        ("list", None, "What is known by name, and what of it is here."),
        ("get", "name", "Download a data set from its publisher, or go on with it."),
        ("check", "source", "Read every image and label of a data set, a folder or a zip."),
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


def _add_threads(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--threads",
        type=_at_least(1),
        help="processor cores to compute with (default: all); fewer are faster where other "
        "programs keep some of them busy",
    )


def _at_least(low: int) -> Callable[[str], int]:
    """A whole number of at least ``low``, for argparse."""

    def whole(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < low:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number of at least {low}")
        return int(text)

    return whole


def _notebooks_folder(options: argparse.Namespace, default: Callable[[], Path]) -> Path:
    if options.notebooks is None:
        return default()
    if not options.notebooks.is_dir():
        raise HirelabError(f"--notebooks: there is no folder {options.notebooks}")
    return options.notebooks


def _lab(options: argparse.Namespace) -> None:
    from hirelab.lab.copies import bring_notebooks, copies_folder
    from hirelab.lab.jupyter import open_lab

    folder = options.folder or copies_folder()
    print(bring_notebooks(notebooks_folder(), folder), flush=True)
    open_lab(folder, options.port, browser=not options.no_browser, root=options.allow_root)


def _info(options: argparse.Namespace) -> None:
    from hirelab.lab.info import report

    print(report())


def _notebooks(options: argparse.Namespace) -> None:
    from hirelab.lab.notebooks import find, run_notebooks

    folder = _notebooks_folder(options, lambda: project_folder("notebooks"))
    run_notebooks(find(folder, options.names))


def _gallery(options: argparse.Namespace) -> None:
    from hirelab.lab.gallery import write_gallery, write_thumbnails
    from hirelab.lab.notebooks import find

    notebooks = find(_notebooks_folder(options, notebooks_folder))
    if options.thumbnails:
        written = write_thumbnails(notebooks, options.thumbnails)
        print(f"{len(written)} thumbnails in {options.thumbnails}")
    else:
        print(
            "drawing every position of every control takes two minutes on a free machine and "
            "several on a busy one",
            flush=True,
        )
        print(f"open {write_gallery(notebooks, options.out)}")


def _export(options: argparse.Namespace) -> None:
    from hirelab.models import HireMLP, create
    from hirelab.models.export import FORMATS, export
    from hirelab.training.runs import open_network

    source = options.network
    try:
        if options.untrained and "." in source:
            raise HirelabError(
                f"{source} names trained weights and --untrained asks for random ones: give "
                f"{source.partition('.')[0]!r}, or leave --untrained out"
            )
        model = create(source) if options.untrained else open_network(source)[0]
        if not isinstance(model, HireMLP):
            raise HirelabError(f"{source} is a {type(model).__name__}; only a Hire-MLP is exported")
        name = Path(source).stem if Path(source).is_file() else Path(source).name
        out = options.out or Path(name + FORMATS[options.format])
        more = {"rearrangeable": options.rearrangeable, "points": options.point}
        print(export(model, out, options.format, options.img_size, options.dynamic_size, **more))
    except (ImportError, OSError) as error:
        raise HirelabError(str(error)) from error


def _train(options: argparse.Namespace) -> int:
    from hirelab.training.recipes import preset

    recipe, arguments = preset(options.preset, options.set)
    speaks = int(os.environ.get("RANK", "0")) == 0  # one of several processes
    if speaks:
        first, last = recipe.start_img_size or recipe.img_size, recipe.img_size
        print(
            f"training {options.model} on {options.data} into {options.out}: preset "
            f"{options.preset}, {recipe.total_epochs} epochs, batches of {recipe.batch_size}, "
            f"images of {last} pixels a side" + f" ({first} at first)" * (first != last),
            flush=True,
        )
    from hirelab.datasets.subsets import DATA_SETS, decoded_note
    from hirelab.training.loop import train
    from hirelab.training.rehearsal import rehearse

    rehearse(
        options.model,
        options.data,
        recipe,
        options.out,
        arguments,
        options.seed,
        tensorboard=options.tensorboard,
    )
    if speaks:
        print(decoded_note(recipe.stored_size, data=DATA_SETS.get(options.data)), flush=True)
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
    if not run.done and speaks:
        print("stopped; the same command goes on", file=sys.stderr)
    return 0 if run.done else 130


def _dense_train(options: argparse.Namespace) -> int:
    from hirelab.dense.recipes import DENSE_PRESETS
    from hirelab.training.recipes import changed

    for name, value, known in (
        ("task", options.task, DENSE_TASKS),
        ("head", options.head, DENSE_TASKS.get(options.task, ())),
    ):
        if value is not None and value not in known:
            raise HirelabError(unknown(name, value, known, f"There are {', '.join(known)}."))
    recipe, settings = changed(DENSE_PRESETS, options.preset, options.set)
    head = options.head or DENSE_TASKS[options.task][0]
    speaks = int(os.environ.get("RANK", "0")) == 0  # one of several processes
    if speaks:
        print(
            f"training {head} on {options.model} with {options.data} into {options.out}: preset "
            f"{options.preset}, {recipe.epochs} epochs, batches of {recipe.batch_size}",
            flush=True,
        )
    from hirelab.dense.loop import train_dense

    run = train_dense(
        head,
        options.model,
        options.data,
        recipe,
        options.out,
        pretrained=not options.untrained,
        settings=settings,
        seed=options.seed,
        workers=options.workers,
        save_minutes=options.save_minutes,
        command=shlex.join(["hirelab", *sys.argv[1:]]),
    )
    if not run.done and speaks:
        print("stopped; the same command goes on", file=sys.stderr)
    return 0 if run.done else 130


def _dense_evaluate(options: argparse.Namespace) -> None:
    from hirelab.dense.loop import evaluate_dense

    print(f"evaluating {options.network} ...", file=sys.stderr, flush=True)
    found = evaluate_dense(
        options.network,
        options.data,
        options.split,
        multi_scale=options.multi_scale,
        pad=options.pad,
        masked=options.masked,
    )
    print(found)
    if options.by_class:
        for name, value in found.by_class().items():
            print(f"{name}: {value:.1f} %")


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
        print(ablation_status(options.table, chosen, ledger, options.row))
        return 0
    more = {"retry": options.retry, "keep": options.keep, "on": options.on or ""}
    try:
        finished = ablate(options.table, chosen, ledger, options.out, rows=options.row, **more)
    except KeyboardInterrupt:
        finished = False
    if not finished:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    found = ablation_status(options.table, chosen, ledger, options.row)
    print(f"{found.rest}; they are in {ledger}")
    return 1 if found.reasons else 0


def _recipes(options: argparse.Namespace) -> None:
    from hirelab.training.recipes import table

    print(table())


def _evaluate(options: argparse.Namespace) -> None:
    print(f"evaluating {options.network} ...", file=sys.stderr, flush=True)
    from hirelab.training.evaluation import evaluate_checkpoint

    found = evaluate_checkpoint(options.network, options.data, options.img_size, say=_say)
    print(found)
    for name, share in found.by_class().items() if options.by_class else ():
        print(f"{share:6.1f} %  {name}")


def _say(text: str) -> None:
    """Beside the output, and not in it."""
    print(text, file=sys.stderr, flush=True)


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

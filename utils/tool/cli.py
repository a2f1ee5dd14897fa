"""The command line: `keras-sbp prune MODEL.keras --data=DATA --target=3`.

Nothing here imports TensorFlow, which takes seconds, before the arguments are known to be good.
"""

import argparse
import os
import sys
from pathlib import Path

from keras_sbp.utils.io import terminal
from keras_sbp.utils.io.command_line import UserError
from keras_sbp.utils.tool.refusal import FULL

DESCRIPTION = """\
Makes a trained Keras network smaller: trains it with noise, removes the units that do least, and fine-tunes the rest.
Writes a plain Keras network, and beside it a folder with the report (report.txt, .json, .png), the training, and a log.
A command that was interrupted or killed continues when it is started again.

DATA is a .npz file with x and y, or x_train, y_train, x_test, y_test; or a folder with a folder of images per class,
or with two of these called train and test. Without test data, a tenth of each class is held out. Default:
scikit-learn's digits, in 28x28x1 or 32x32x3.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str):
        raise UserError(f"{message}; {self.prog} --help lists the flags")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="keras-sbp", description="Structured Bayesian Pruning for Keras.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=_Parser)
    prune = commands.add_parser(
        "prune", help="make a trained network smaller", description=DESCRIPTION, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add = prune.add_argument
    add("network", nargs="?", metavar="MODEL", help="a .keras or .h5 file")
    add("--model", metavar="NAME", help="a network of keras.applications with random weights, instead of MODEL")
    add("--checkpoint", metavar="FILE", help="weights to start from: a .weights.h5 or .keras file of the same network")
    add("--data", metavar="DATA", help="see above")
    goal = prune.add_mutually_exclusive_group()
    goal.add_argument("--target", type=float, metavar="TIMES", help="how many times fewer MACs (multiply-adds)")
    goal.add_argument("--target_latency", metavar="MS", help='milliseconds in LiteRT; or "2x" for twice as fast')
    goal.add_argument(
        "--max_drop", type=float, metavar="POINTS", help="points of accuracy that may be lost (default: 1)"
    )
    add("--output", default="smaller.keras", metavar="FILE", help="the smaller network (default: %(default)s)")
    add("--checkpoints_dir", metavar="DIR", help="directory of the run (default: --output without .keras, plus -run)")
    add("--epochs", type=_positive, metavar="N", help="with noise (default: 20, or as many as make 1,500 steps)")
    add("--finetune_epochs", type=_natural, metavar="N", help="without noise (default: a sixth of --epochs)")
    add("--batch_size", type=_positive, metavar="N", help="default: 64, less for few examples")
    add("--learning_rate", type=float, default=1e-3, metavar="RATE", help="of the weights (default: %(default)s)")
    add("--noise_learning_rate", type=float, metavar="RATE", help="default: 0.02, more for fewer than 1,500 steps")
    add(
        "--multiple_of",
        type=_positive,
        default=1,
        metavar="N",
        help="pad filters with zeros to a multiple: 8 for a GPU",
    )
    add("--exclude", type=_names, default=[], metavar="NAMES", help="layers that keep all units")
    add(
        "--loss",
        metavar="NAME",
        help="a loss of keras.losses, in place of the one compiled with",
    )
    add("--custom_objects", metavar="FILE.py", help="defines the network's own layers and losses; this file is run")
    add("--seed", type=_natural, default=0, metavar="N", help="of splits, order and noise (default: %(default)s)")
    add("--control", action="store_true", help="also train the network without noise for as long, to compare with")
    return parser


def _parse(arguments: list[str]) -> argparse.Namespace:
    options = _parser().parse_args(arguments)
    for name in ("network", "checkpoint", "data", "output", "checkpoints_dir", "custom_objects"):
        # bash does not expand a ~ after an equals sign.
        if path := getattr(options, name):
            setattr(options, name, os.path.expanduser(path))
    return options


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _positive(text: str) -> int:
    return _whole_number(text, 1)


def _natural(text: str) -> int:
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not text.isdecimal() or int(text) < least:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from {least}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """Run a command; bad input is one line on stderr and exit status 2, Ctrl-C is exit status 130."""
    try:
        options = _parse(sys.argv[1:] if arguments is None else arguments)
        _check(options)
        folder = _folder(options)
        with terminal.quiet(folder / "log.txt"):
            from keras_sbp.utils.tool import command  # imports TensorFlow

            try:
                command.prune(options, folder)
            except UserError:
                _remove_if_unused(folder)
                raise
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.errno not in FULL:  # TMPDIR may be full, too, where networks are saved first
            raise
        print(f"error: the disk is full ({error.strerror}): make room; the same command continues", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command continues from the last whole epoch", file=sys.stderr)
        sys.exit(130)


def _check(options: argparse.Namespace) -> None:
    """Refuse what needs no TensorFlow to be refused."""
    if bool(options.network) == bool(options.model):
        raise UserError("give one network: MODEL.keras, or --model=NAME")
    if not options.output.endswith(".keras"):
        raise UserError(f"--output={options.output} must end in .keras")
    if os.path.basename(options.output) == ".keras":
        raise UserError(f"--output={options.output} has no name: give one, such as smaller.keras")
    for name in ("network", "checkpoint", "custom_objects"):
        path = getattr(options, name)
        if path and not os.path.isfile(path):
            raise UserError(f"no file at {path}: give another {'MODEL' if name == 'network' else f'--{name}'}")
    if options.data and not os.path.exists(options.data):
        raise UserError(f"no data at {options.data}: give a .npz file, or a folder with a folder of images per class")
    if os.path.exists(options.output):
        raise UserError(f"{options.output} already exists: delete it or choose another --output")
    for name in ("learning_rate", "noise_learning_rate"):
        rate = getattr(options, name)
        if rate is not None and not 0 <= rate < float("inf"):
            raise UserError(f"--{name}={rate}: give a number from 0")


def _folder(options: argparse.Namespace) -> Path:
    parent = Path(options.output).absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {parent} ({error.strerror}): choose another --output") from None
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write into {parent}: choose another --output")
    folder = Path(options.checkpoints_dir or f"{options.output.removesuffix('.keras')}-run")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "log.txt").touch()
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another --checkpoints_dir") from None
    return folder


def _remove_if_unused(folder: Path) -> None:
    """Remove the directory of a run that was refused before it began."""
    if [path.name for path in folder.iterdir()] == ["log.txt"]:
        (folder / "log.txt").unlink()
        folder.rmdir()

"""How every script starts, and how it says no: one line on stderr and exit status 2."""

import functools
import math
import os
import signal
import subprocess
import sys

from absl import app, flags


class UserError(Exception):
    """Input that cannot be used. The text is one line: what is wrong and what to do about it."""


def _parse(argv, files=False):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; {argv[0]} --help lists the flags") from None
    if rest[1:] and not files:
        raise UserError(f"{rest[1]!r} is not a flag: they are given as --name=value; {argv[0]} --help lists them")
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value} is not finite: give a number that is")
        # bash does not expand it behind an equals sign.
        if isinstance(value, str) and value.startswith("~"):
            flags.FLAGS[name].value = os.path.expanduser(value)
    return rest


def run(main, files=False):
    """Parse absl's flags, call `main()`, and turn a UserError into its line and exit status 2.

    Ctrl-C where there is nothing to save, before and after training, is exit status 130.

    Args:
        files: whether main takes the arguments that are no flags, as a list.
    """
    app.define_help_flags()
    # --help shows a script's key flags: those that it took from utils/, too.
    for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
        for flag in module_flags if module.startswith("keras_sbp.") else []:
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    try:
        app.run(lambda argv: main(argv[1:]) if files else main(), flags_parser=functools.partial(_parse, files=files))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def call(command):
    """Run another script, what it prints on stderr. A signal is passed on to it; if it fails, so do we, as it did."""
    process = subprocess.Popen(command, stdout=sys.stderr)
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers}
    status = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if status:
        # A shell's status where a signal ended it.
        sys.exit(status if status > 0 else 128 - status)

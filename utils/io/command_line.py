"""How every script starts, and how it reports errors: one line on stderr and exit status 2."""

import functools
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from absl import app, flags

# Set in the environment of a process that `call` starts.
_CHILD = "SBP_ENDS_WITH_ITS_PARENT"


class UserError(Exception):
    """Input that cannot be used. The text is one line: what is wrong and what to do about it."""


def _parse(argv, accepts_files=False):
    try:
        rest = flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; {argv[0]} --help lists the flags") from None
    if rest[1:] and not accepts_files:
        raise UserError(f"{rest[1]!r} is not a flag: write flags as --name=value; {argv[0]} --help lists them")
    for name, value in flags.FLAGS.flag_values_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"--{name}={value} is not finite: use a finite number")
        # bash does not expand it after an equals sign.
        if isinstance(value, str) and value.startswith("~"):
            flags.FLAGS[name].value = os.path.expanduser(value)
    return rest


def run(main: Callable[..., None], accepts_files: bool = False) -> None:
    """Parse absl's flags, call `main()`, and turn a UserError into its line and exit status 2.

    Ctrl-C where there is nothing to save, before and after training, is exit status 130.

    Args:
        accepts_files: `main` takes the arguments that are not flags, as a list.
    """
    app.define_help_flags()
    # --help shows a script's key flags: make those that keras_sbp defined for it some of them.
    for module, module_flags in flags.FLAGS.flags_by_module_dict().items():
        for flag in module_flags if module.startswith("keras_sbp.") else []:
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    if os.environ.pop(_CHILD, None):
        threading.Thread(target=_end_with_parent, daemon=True).start()
    call_main = (lambda argv: main(argv[1:])) if accepts_files else (lambda argv: main())
    try:
        app.run(call_main, flags_parser=functools.partial(_parse, accepts_files=accepts_files))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with_parent():
    """End this process when its stdin ends. Checkpoints are written atomically, so none is damaged."""
    os.read(0, 1)
    os._exit(1)


def call(command: Sequence[str]) -> None:
    """Run another script, its stdout on our stderr. Signals are passed on to it; if it fails, we exit as it did."""
    # The child's stdin is a pipe that nothing is written to. It ends when this process dies, whatever killed it, and
    # then `_end_with_parent` ends the child.
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=sys.stderr, stderr=sys.stderr, env={**os.environ, _CHILD: "1"}
    )
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, lambda number, _: process.send_signal(number)) for number in numbers}
    status = process.wait()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    if status:
        # A shell's status where a signal ended it.
        sys.exit(status if status > 0 else 128 - status)

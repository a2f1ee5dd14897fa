"""How every script starts, and how it says no: one line on stderr and exit status 2."""

import sys

from absl import app, flags


class UserError(Exception):
    """Input that cannot be used. The text is one line: what is wrong and what to do about it."""


def _parse(argv):
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(f"{error}; {argv[0]} --help lists the flags") from None


def run(main):
    """Parse absl's flags, call `main()`, and turn a UserError into its line and exit status 2."""
    app.define_help_flags()
    try:
        app.run(lambda _: main(), flags_parser=_parse)
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)

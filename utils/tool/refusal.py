"""How the tool says no, from Python and from the shell."""

from keras_sbp.utils.io.command_line import UserError


class Refused(UserError, ValueError):
    """A model, data or settings that cannot be used: one line, what is wrong and what to do.

    A ValueError for whoever calls from Python; `scripts/prune.py` prints the line and exits with status 2.
    """

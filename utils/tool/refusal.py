"""The error for models, data and settings that the tool cannot use."""

import errno

from keras_sbp.utils.io.command_line import UserError

# Of an OSError: no space, too large a file, over quota.
FULL = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


class Refused(UserError, ValueError):
    """A model, data or settings that cannot be used: one line, what is wrong and what to do.

    A ValueError in Python; `scripts/prune.py` prints the line and exits with status 2.
    """

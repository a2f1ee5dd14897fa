"""What each kind of layer means to units: one rule a kind, which is all that pruning and counting know of it.

A unit is an index of a tensor's last axis. A rule says of a node of the graph

- which of its outputs vary, if these of its inputs do (`varies`), and what they are without (`constants`);
- which of its inputs are read, if these of its outputs are to stay (`reads`), and which have to be there though they
  do not vary, since these of its outputs have to be (`pins`);
- how it is made anew with the units that stay (`rebuild`);
- how many multiply-adds it has (`multiply_adds`).

A kind without a rule is a `Barrier`: all that it reads and gives stays.
"""

from utils.pruning.rules.rule import Barrier, Input, Rule, width
from utils.pruning.rules.units import Flatten, Multiplier, Noise, Take, is_take, taken
from utils.pruning.rules.weighted import Normalisation, Weighted

__all__ = ["Input", "Noise", "Normalisation", "Weighted", "is_take", "of", "taken", "width"]

# The first that fits.
KINDS = (Input, Noise, Weighted, Normalisation, Multiplier, Flatten, Take, Rule, Barrier)


def of(node, multiplier=None):
    """The rule of a node; `multiplier`: (units,), for a noise layer what it multiplies its units by."""
    return next(rule for rule in KINDS if rule.fits(node))(node, multiplier)

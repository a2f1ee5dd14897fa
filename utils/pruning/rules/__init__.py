"""What each kind of layer means to units: one rule a kind, which is all that pruning and counting know of it.

A unit is an index of a tensor's last axis. A rule says of a node of the graph

- which of its outputs vary, given which inputs do (`varies`), and the values of those that do not (`constants`);
- which of its inputs are read, given which outputs stay (`reads`), and which must stay although they do not vary
  (`pins`); which of its outputs stay together (`stays`);
- how it is made anew with the units that stay (`rebuild`);
- how many multiply-adds it has (`multiply_adds`).

A kind without a rule is a `Barrier`: all that it reads and gives stays.
"""

from keras_sbp.utils.pruning.rules.counted import Attention, Recurrent, Unweighted
from keras_sbp.utils.pruning.rules.depthwise import Depthwise, Separable
from keras_sbp.utils.pruning.rules.kernel import Convolution, Grouped, Normalisation, Transposed, Weighted
from keras_sbp.utils.pruning.rules.merge import Concatenate, Merge, Product
from keras_sbp.utils.pruning.rules.rule import (
    Barrier,
    Input,
    Rule,
    Spatial,
    ZeroPadding,
    is_of,
    treats_units_alone,
    width,
)
from keras_sbp.utils.pruning.rules.units import (
    Affine,
    Elementwise,
    Flatten,
    Noise,
    Reshape,
    Scalar,
    Take,
    is_take,
    taken,
)

__all__ = ["Barrier", "Concatenate", "Input", "Merge", "Noise", "Normalisation", "Product", "Spatial", "Take"]
__all__ += ["Weighted", "ZeroPadding", "is_of", "is_take", "of", "taken", "treats_units_alone", "width"]

# The first that fits.
KINDS = (
    *(Input, Noise, Weighted, Convolution, Grouped, Transposed, Depthwise, Separable, Normalisation),
    *(Merge, Product, Concatenate, Affine, Scalar, Take, Reshape, Flatten, Spatial, ZeroPadding, Rule, Elementwise),
    *(Recurrent, Attention, Unweighted, Barrier),
)


def of(node, multiplier=None):
    """The rule of a node; `multiplier`: (units,), for a noise layer what it multiplies its units by."""
    return next(rule for rule in KINDS if rule.fits(node))(node, multiplier)

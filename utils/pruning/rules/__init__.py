"""What each kind of layer means to units: one rule per kind, and nothing else in pruning knows kinds of layers.

A unit is an index of a tensor's last axis. A rule says of one call of a layer

- which units of its outputs vary, given which of its inputs do, and the values of those that do not (constant
  propagation): `varying_outputs`, `constant_outputs`;
- which units of its inputs have an effect, given which of its outputs are kept: `used_inputs`, `required_inputs`,
  `coupled_outputs`;
- how to call it again with the kept units only: `rebuild`;
- its MACs: `multiply_adds`.

Layers without a rule are a `Barrier` and keep all their units. `register` adds the rule of a layer of one's own.
"""

import inspect
from collections.abc import Sequence

import keras

from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.arithmetic import Affine, Scalar
from keras_sbp.utils.pruning.rules.attention import Attention
from keras_sbp.utils.pruning.rules.barrier import Barrier, Heads, Input, NoProducts, Steps, Zeros
from keras_sbp.utils.pruning.rules.cloning import clone_layer, set_weights
from keras_sbp.utils.pruning.rules.depthwise import Depthwise, Separable
from keras_sbp.utils.pruning.rules.einsum import DotProductAttention, EinsumDense, Weighted
from keras_sbp.utils.pruning.rules.embedding import Embedding
from keras_sbp.utils.pruning.rules.inner import Inner, Theta
from keras_sbp.utils.pruning.rules.kernel import Convolution, Dense, Grouped, Kernel, Transposed
from keras_sbp.utils.pruning.rules.merge import Concatenate, Merge, Product, Where
from keras_sbp.utils.pruning.rules.norm import BatchNorm
from keras_sbp.utils.pruning.rules.normalization import Centered, Normalization, RootMeanSquare, connect
from keras_sbp.utils.pruning.rules.positions import Chained, MaskedMean, Positions
from keras_sbp.utils.pruning.rules.recurrent import Recurrent
from keras_sbp.utils.pruning.rules.renumber import Pad, Split, Take
from keras_sbp.utils.pruning.rules.reshape import Blocks, Flatten, Reshape, example_counts, examples
from keras_sbp.utils.pruning.rules.rule import (
    Array,
    Indices,
    LiveTensor,
    Mask,
    Rebuilder,
    Rule,
    is_kind,
    is_unitwise,
    width,
)
from keras_sbp.utils.pruning.rules.scores import Dot, Scored, Sum
from keras_sbp.utils.pruning.rules.unitwise import (
    Elementwise,
    Noise,
    Resized,
    Spatial,
    Unitwise,
    ZeroPadding,
    is_noise,
)

__all__ = ["Barrier", "BatchNorm", "Convolution", "Dense", "Inner", "Input", "Kernel", "Merge", "Noise", "Rule", "Take"]
__all__ += ["Normalization"]
__all__ += ["Unitwise", "register", "of", "of_network", "reason"]
__all__ += ["Array", "Indices", "LiveTensor", "Mask", "Node", "Rebuilder"]
__all__ += ["clone_layer", "example_counts", "examples", "is_kind", "is_noise", "is_unitwise", "set_weights", "width"]

# The first that matches, and has no obstacle.
RULES: tuple[type[Rule], ...] = (
    *(Input, Noise, Dense, Convolution, Grouped, Transposed, Depthwise, Separable, BatchNorm, Merge, Product),
    *(Centered, RootMeanSquare, Normalization, Embedding, Theta, Recurrent, Attention, MaskedMean, Positions),
    *(Chained, EinsumDense, Weighted, DotProductAttention, Sum, Dot, Scored, Where, Concatenate, Affine, Scalar),
    *(Take, Split, Pad, Reshape, Flatten, Blocks),
    *(Spatial, Resized, ZeroPadding, Unitwise, Elementwise),
    *(Zeros, Steps, Heads, NoProducts, Barrier),
)
_REGISTERED: dict[type[keras.Layer], type[Rule]] = {}


def register(layer_class: type[keras.Layer], rule_class: type[Rule]) -> None:
    """Prune layers of a class of one's own, which otherwise are opened or keep all their units, by a rule.

    Often a rule of this package fits: `Unitwise` for an activation; `Dense` or `Convolution` for a layer that computes
    activation(kernel * inputs + bias). Otherwise derive one:

    >>> import keras
    >>> from keras_sbp.utils.pruning import rules
    >>> class Snake(keras.Layer):
    ...     def call(self, x):
    ...         return x + keras.ops.sin(x) ** 2
    >>> rules.register(Snake, rules.Unitwise)

    >>> class CenteredConv2D(keras.layers.Conv2D):
    ...     def convolution_op(self, inputs, kernel):
    ...         return super().convolution_op(inputs, kernel - keras.ops.mean(kernel, axis=(0, 1, 2)))
    >>> class CenteredRule(rules.Convolution):
    ...     @property
    ...     def kernel(self):
    ...         return super().kernel - super().kernel.mean(axis=(0, 1, 2))
    >>> rules.register(CenteredConv2D, CenteredRule)

    >>> model = keras.Sequential(
    ...     [keras.Input((8, 8, 3)), CenteredConv2D(4, 3, name="conv"), Snake(), keras.layers.Flatten()]
    ...     + [keras.layers.Dense(2, name="logits")]
    ... )
    >>> from keras_sbp import unprunable
    >>> unprunable(model)
    {'logits': 'output of the network'}

    Args:
        layer_class: the rule is for its instances, but not for those of subclasses, which may compute something else.
        rule_class: a subclass of `Rule`. Registering another one replaces it.
    Raises:
        TypeError: `rule_class` is not a rule, or has abstract methods.
    """
    if not (isinstance(rule_class, type) and issubclass(rule_class, Rule)) or inspect.isabstract(rule_class):
        raise TypeError(f"{rule_class} is not a complete rule: derive it from rules.Unitwise or another class of rules")
    _REGISTERED[layer_class] = rule_class


def of(node: Node) -> Rule:
    """The rule of a node."""
    return next(rule for rule in _candidates(node) if not rule.obstacle(node))(node)


def of_network(nodes: Sequence[Node], outputs: Sequence[keras.KerasTensor], inference: bool = False) -> list[Rule]:
    """The rules of a network's nodes, each of which knows what it has to know of the others.

    Args:
        nodes: of the network, inputs first.
        outputs: of the network.
        inference: whether the network without the dead units is for inference, where kernels take up the
            normalizations before them.
    """
    found = [of(node) for node in nodes]
    for rule in found:
        rule.inference = inference
    connect(found, outputs, fold=inference)
    return found


def reason(node: Node) -> str:
    """Why a node's rule is a `Barrier`."""
    obstacles = (rule.obstacle(node) for rule in _candidates(node))
    return next(filter(None, obstacles), f"no rule for {type(node.operation).__name__}")


def _candidates(node: Node) -> list[type[Rule]]:
    registered = _REGISTERED.get(type(node.operation))
    return [registered, Barrier] if registered else [rule for rule in RULES if rule.matches(node)]

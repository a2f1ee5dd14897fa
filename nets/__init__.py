"""The networks of the tables, each written once."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import keras

if __name__ != "keras_sbp.nets":  # a second copy of the modules, and of the classes that Keras knows by name
    raise ImportError(f"{__name__} is a part of keras_sbp: write keras_sbp.{__name__}")

from keras_sbp.nets import lenet5, lenet_fc, resnet20, vgglike


class Network(NamedTuple):
    """A network of the tables.

    Attributes:
        name: as in the tables.
        script: the name of its Original's script, with which the names of the methods' scripts start.
        build: returns the network; a method's layers are keyword arguments.
        units: given {layer's name: shape of its kernel} of a smaller network, returns its units per layer as the tables
            list them.
    """

    name: str
    script: str
    build: Callable[..., keras.Model]
    units: Callable[[Mapping[str, tuple[int, ...]]], list[int]]


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("Lenet-fc", "lenet-fc", lenet_fc.lenet_fc, lenet_fc.units),
        Network("LeNet5", "lenet5", lenet5.lenet5, lenet5.units),
        Network("VGG-like", "vgglike", vgglike.vgglike, vgglike.units),
        Network("ResNet-20", "resnet20", resnet20.resnet20, resnet20.units),
    )
}

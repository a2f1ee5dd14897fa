"""The networks of the tables, each written once."""

from collections.abc import Callable
from typing import NamedTuple

if __name__ != "keras_sbp.nets":  # a second copy of the modules, and of the classes that Keras knows by name
    raise ImportError(f"{__name__} is a part of keras_sbp: write keras_sbp.{__name__}")

from keras_sbp.nets import lenet5, lenet_fc, resnet20, vgglike


class Network(NamedTuple):
    """How a network is made and its rows are read.

    script: its Original's script, with which the names of the methods' scripts begin.
    build: from a method's layers to the network.
    units: from a smaller network's kernels to its units a layer, as the tables list them.
    """

    script: str
    build: Callable
    units: Callable


NETWORKS = {
    "Lenet-fc": Network("lenet-fc", lenet_fc.lenet_fc, lenet_fc.units),
    "LeNet5": Network("lenet5", lenet5.lenet5, lenet5.units),
    "VGG-like": Network("vgglike", vgglike.vgglike, vgglike.units),
    "ResNet-20": Network("resnet20", resnet20.resnet20, resnet20.units),
}

"""The networks of the tables, each written once."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import keras

if __name__ != "keras_sbp.nets":  # a second copy of the modules, and of the classes that Keras knows by name
    raise ImportError(f"{__name__} is a part of keras_sbp: write keras_sbp.{__name__}")


class Network(NamedTuple):
    """A network of the tables.

    Attributes:
        name: as in the tables.
        script: the name of its Original's script, with which the names of the methods' scripts start.
        module: of this package, with a function of that name that builds it.
    """

    name: str
    script: str
    module: str

    @property
    def build(self) -> Callable[..., keras.Model]:
        """Returns the network; a method's layers are keyword arguments."""
        return getattr(self._module, self.module)

    @property
    def units(self) -> Callable[[Mapping[str, tuple[int, ...]]], list[int]]:
        """From {layer's name: shape of its kernel} of a smaller network to its units per layer, as in the tables."""
        return self._module.units

    @property
    def _module(self):
        # Imported when it is needed: Keras takes seconds.
        return importlib.import_module(f"{__name__}.{self.module}")


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network("Lenet-fc", "lenet-fc", "lenet_fc"),
        Network("LeNet5", "lenet5", "lenet5"),
        Network("VGG-like", "vgglike", "vgglike"),
        Network("ResNet-20", "resnet20", "resnet20"),
        Network("ResNet-56", "resnet56", "resnet56"),
        Network("LSTM", "lstm-mnist", "lstm"),
        Network("ViT", "vit-cifar", "vit"),
    )
}

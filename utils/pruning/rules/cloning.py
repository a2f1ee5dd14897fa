"""How a layer is made again: from its config, and from what the configs of some kinds of layers leave out."""

import inspect
from typing import Any

import keras
import numpy as np
from keras import layers

from keras_sbp import keras_private


def clone_layer(layer: keras.Layer, kind: type[keras.Layer] | None = None, **changes: Any) -> keras.Layer:
    """A layer like another, without its weights yet.

    Args:
        layer: the other.
        kind: the class of the new layer, by default that of the other.
        changes: to those settings that the config has.
    Raises:
        ValueError: the class cannot be built from the config.
    """
    kind = kind or type(layer)
    try:
        config = kind.get_config(layer)
        config |= {name: value for name, value in changes.items() if name in config} | _unsaved(layer, config)
        if isinstance(layer, layers.Lambda):
            own = {name: config[name] for name in ("name", "dtype", "trainable")}
            shape = keras_private.lambda_output_shape(layer)
            return kind(layer.function, shape, layer.mask, layer.arguments, **own)
        if config.get("lora_rank") and config.get("lora_alpha") not in (None, config["lora_rank"]):
            raise ValueError("Keras builds it with a lora_alpha of its lora_rank; enable LoRA without lora_alpha")
        return kind.from_config(config)
    except Exception as error:  # a user's layer may raise anything
        why = " ".join(str(error).split())
        raise ValueError(
            f"{layer.name} ({type(layer).__name__}) cannot be built from its config ({why}): give it a get_config that "
            "matches its __init__"
        ) from error


def set_weights(layer: keras.Layer, weights: list[np.ndarray]) -> None:
    """Set the weights of a new layer, in the order of `layer.weights`."""
    layer.set_weights(weights)
    if isinstance(layer, layers.Normalization):
        layer.finalize_state()  # it computes with values that it derives from its weights
    if not layer.trainable:
        # What it made when it was built is not frozen, and Keras does nothing if the value is the same.
        layer.trainable = True
        layer.trainable = False


def _unsaved(layer: keras.Layer, config: dict[str, Any]) -> dict[str, Any]:
    """Settings that a config does not hold, or holds for another size."""
    found = {}
    for name in config:
        value = getattr(layer, name, None)
        if inspect.isfunction(value) and not keras_private.is_from_keras(value):
            found[name] = value  # Keras may not know a user's function by its name
        elif isinstance(value, keras.initializers.Initializer) and np.ndim(getattr(value, "value", 0)):
            found[name] = "zeros"  # Constant with an array; the weights are set afterwards
    if config.get("vocabulary", "none") is None and layer.vocabulary_size():
        words = layer.get_vocabulary(include_special_tokens=False)
        found["vocabulary"] = [word.item() if isinstance(word, np.generic) else word for word in words]
        if config["output_mode"] == "tf_idf":
            first = layer.vocabulary_size() - len(words)
            idf = keras_private.lookup_table(layer).idf_weights
            found["idf_weights"] = np.asarray(idf)[first : first + len(words)].tolist()
    return found

"""Backbones of KerasHub, small and with random weights, with half of the units of each noise layer dead.

    pip install keras-hub
    python -m tests.stress.keras_hub

For each: how many times fewer MACs are left, how much the outputs differ from those of the network with its units
masked, relative to their scale, also after saving, and the loss of five steps of `fit`; then the layers whose units all
stay, and why.
"""

import argparse
import os
import sys
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers as L

from tests.stress import keras_applications
from tests.support.halves import halved, losses_of_five_steps

LENGTH, WORDS, CLASSES, TOLERANCE = 24, 50, 3, 1e-5
TEXT = {"vocabulary_size": WORDS, "num_layers": 2, "hidden_dim": 64}
# Without dropout, whose random numbers can raise the loss of the last of five steps.
FIRST = TEXT | {"num_heads": 4, "intermediate_dim": 128, "max_sequence_length": LENGTH, "dropout": 0.0}
GROUPED = TEXT | {"num_query_heads": 4, "num_key_value_heads": 2}
MOBILE = {
    "stackwise_expansion": [[40, 56], [64, 144, 144]],
    "stackwise_num_blocks": [2, 3],
    "stackwise_num_filters": [[16, 16], [24, 24, 24]],
    "stackwise_kernel_size": [[3, 3], [5, 5, 5]],
    "stackwise_num_strides": [[2, 1], [2, 1, 1]],
    "stackwise_se_ratio": [[None, None], [0.25, 0.25, 0.25]],
    "stackwise_activation": [["relu", "relu"], ["hard_swish"] * 3],
    "stackwise_padding": [[1, 1], [2, 2, 2]],
    "output_num_filters": 128,
    "input_num_filters": 16,
    "input_activation": "hard_swish",
    "output_activation": "hard_swish",
    "depthwise_filters": 8,
    "depthwise_stride": 2,
    "depthwise_residual": False,
    "last_layer_filter": 96,
}
EFFICIENT = {
    "stackwise_kernel_sizes": [3, 3, 3],
    "stackwise_num_repeats": [1, 2, 2],
    "stackwise_input_filters": [24, 24, 48],
    "stackwise_output_filters": [24, 48, 64],
    "stackwise_expansion_ratios": [1, 4, 4],
    "stackwise_squeeze_and_excite_ratios": [0.0, 0.0, 0.25],
    "stackwise_strides": [1, 2, 2],
    "stackwise_width_coefficients": [1.0] * 3,
    "stackwise_depth_coefficients": [1.0] * 3,
    "stackwise_force_input_filters": [0] * 3,
    "stackwise_nores_option": [False] * 3,
    "input_shape": (64, 64, 3),
    "num_features": 256,
}
# {name: (class, arguments)}
BACKBONES = {
    "BERT": ("BertBackbone", FIRST),
    "DistilBERT": ("DistilBertBackbone", FIRST),
    "RoBERTa": ("RobertaBackbone", FIRST),
    "GPT-2": ("GPT2Backbone", FIRST),
    "Llama": ("LlamaBackbone", GROUPED | {"intermediate_dim": 128}),
    "Gemma": ("GemmaBackbone", GROUPED | {"intermediate_dim": 256, "head_dim": 16}),
    "T5": ("T5Backbone", TEXT | {"num_heads": 4, "intermediate_dim": 128}),
    "ViT": (
        "ViTBackbone",
        {
            "image_shape": (32, 32, 3),
            "patch_size": 4,
            "num_layers": 2,
            "num_heads": 4,
            "hidden_dim": 64,
            "mlp_dim": 128,
        },
    ),
    "MobileNet": ("MobileNetBackbone", MOBILE | {"image_shape": (64, 64, 3)}),
    "EfficientNet": ("EfficientNetBackbone", EFFICIENT | {"stackwise_block_types": ["v1"] * 3}),
    "EfficientNetV2": ("EfficientNetBackbone", EFFICIENT | {"stackwise_block_types": ["fused", "fused", "unfused"]}),
    "MiT": (
        "MiTBackbone",
        {
            "layerwise_depths": [1, 1],
            "num_layers": 2,
            "layerwise_num_heads": [1, 2],
            "layerwise_sr_ratios": [4, 2],
            "max_drop_path_rate": 0.1,
            "layerwise_patch_sizes": [7, 3],
            "layerwise_strides": [4, 2],
            "image_shape": (64, 64, 3),
            "hidden_dims": [32, 64],
        },
    ),
}


def classifier(name):
    """A backbone with a dense layer on its first position, or on the mean of its image."""
    import keras_hub

    kind, settings = BACKBONES[name]
    backbone = getattr(keras_hub.models, kind)(**settings)
    inputs = keras.tree.map_structure(
        lambda x: keras.Input((LENGTH,) if len(x.shape) == 2 else x.shape[1:], dtype=x.dtype, name=x.name),
        backbone.input,
    )
    outputs = backbone(inputs)
    x = keras.tree.flatten(outputs)[0] if isinstance(outputs, dict) else outputs
    if isinstance(outputs, dict):
        x = outputs.get("decoder_sequence_output", outputs.get("sequence_output"))
    x = x[:, -1] if len(x.shape) == 3 else L.GlobalAveragePooling2D()(x)
    return keras.Model(keras.tree.flatten(inputs), L.Dense(CLASSES)(x))


def examples(model, rng, count=8):
    """Random inputs; masks of 1 and, at the end, 0."""
    found = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        if "mask" in tensor.name:
            found.append((np.arange(LENGTH) < rng.integers(LENGTH // 2, LENGTH + 1, (count, 1))).astype("int32"))
        else:
            whole, words = tensor.dtype.startswith("int"), 2 if "segment" in tensor.name else WORDS
            found.append(rng.integers(words, size=shape) if whole else rng.normal(size=shape).astype(np.float32))
    return found if len(found) > 1 else found[0]


def check(name):
    """(MACs before, after, difference, that of the saved file, losses of five steps, layers that stay)."""
    rng, model = np.random.default_rng(0), classifier(name)
    noisy, smaller = halved(model)
    inputs = examples(model, rng)
    difference = keras_applications.difference(noisy, smaller, inputs)
    with tempfile.TemporaryDirectory() as directory:
        smaller.save(f"{directory}/smaller.keras")
        with keras.saving.custom_object_scope({}):
            loaded = keras.models.load_model(f"{directory}/smaller.keras")
    kinds = {type(operation).__module__.split(".")[0] for operation in loaded.operations}
    if kinds != {"keras"}:
        raise ValueError(f"{name} has layers of {kinds}")
    saved = keras_applications.difference(noisy, loaded, inputs)
    losses = losses_of_five_steps(loaded, inputs, CLASSES)
    return (*map(keras_applications.counted, (model, smaller)), difference, saved, losses, model)


def main():
    from keras_sbp.utils import pruning

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(BACKBONES)}; without any, all")
    names, failed = parser.parse_args().names or list(BACKBONES), False
    for name in names:
        before, after, difference, saved, losses, model = check(name)
        fits = np.isfinite(losses).all() and losses[-1] < losses[0]
        failed |= max(difference, saved) > TOLERANCE or not fits
        print(
            f"{name:<16}{before / 1e6:8.3f} M -> {after / 1e6:7.3f} M {before / after:6.2f}x   {difference:.0e} "
            f"{saved:.0e}   {losses[0]:.3f} -> {losses[-1]:.3f}",
            flush=True,
        )
        for layer, why in pruning.unprunable(model).items():
            print(f"    {layer}: {why}", flush=True)
    sys.exit(int(failed))


if __name__ == "__main__":
    main()

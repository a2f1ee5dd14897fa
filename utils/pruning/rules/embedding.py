"""The rule of embeddings: their columns are units, their words stay."""

import numpy as np
from keras import layers

from keras_sbp import keras_private
from keras_sbp.keras_private import Node
from keras_sbp.utils.pruning.rules.rule import Array, Indices, LiveTensor, Mask, Rebuilder, Rule, width


class Embedding(Rule):
    """An embedding: a table (words, units)."""

    kinds = (layers.Embedding, layers.ReversibleEmbedding)
    is_source = True

    @classmethod
    def obstacle(cls, node: Node) -> str | None:
        if node.operation.lora_enabled:
            return "LoRA is enabled"
        if any(keras_private.arguments(call)[1].get("reverse") for call in keras_private.calls(node.operation)):
            return "its table is that of the outputs, too"
        return None

    def varying_outputs(self, varying: list[Mask], constants: list[Array]) -> list[Mask]:
        # Also where it is the same for all words, or has one: what else would be left of a class token?
        return [np.asarray(self.op.embeddings).any(0)]

    def constant_outputs(self, constants: list[Array]) -> list[Array]:
        return [np.zeros(width(self.node.outputs[0]))]

    def used_inputs(self, kept: list[Mask]) -> list[Mask]:
        return [np.full(width(tensor), kept[0].any()) for tensor in self.node.input_tensors]

    def required_inputs(self, kept: list[Mask], pinned: list[Mask]) -> list[Mask]:
        return self.used_inputs(kept)

    def rebuild(self, build: Rebuilder, inputs: list[LiveTensor], kept: list[Indices]) -> list[LiveTensor]:
        layer = build.clone(self, output_dim=len(kept[0]), embeddings_constraint=None)
        (tensor,) = keras_private.call(self.node, layer, [live.tensor for live in inputs])
        build.set_weights(layer, self.op, [(..., kept[0])])
        return [build.live(tensor, kept[0])]

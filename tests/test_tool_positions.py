"""prune: examples with weights, masks, ignored classes, and inputs of any size."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_sbp.utils.tool import examples

pytestmark = pytest.mark.usefixtures("no_latency")


class Batches(keras.utils.PyDataset):
    """Batches that are given one by one."""

    def __init__(self, *batches):
        super().__init__()
        self.given = batches

    def __len__(self):
        return len(self.given)

    def __getitem__(self, number):
        return self.given[number]


@pytest.mark.parametrize("kind", ["tf.data", "PyDataset"])
def test_weights_of_a_streams_examples_are_refused_as_those_of_arrays_are(kind):
    parts = np.zeros((6, 4)), np.arange(6) % 2, np.ones(6)
    stream = Batches(parts) if kind == "PyDataset" else tf.data.Dataset.from_tensor_slices(parts).batch(3)
    with pytest.raises(ValueError, match="three parts: .*weights of examples are not taken"):
        examples.part(stream, "data")

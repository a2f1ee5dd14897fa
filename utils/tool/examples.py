"""The examples: training, validation and test data, from arrays or from streams that do not fit in memory.

Arrays are never copied as a whole: a part of them is a list of indices, and a batch is cut when it is read. They keep
their own dtype.
"""

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
from tqdm import tqdm

from keras_sbp.lazy import tf
from keras_sbp.utils.tool.refusal import Refused

# Of the examples of each class, where no validation or test data are given.
VALIDATION_FRACTION = TEST_FRACTION = 0.1
# Examples at a time where nothing is trained: less for small batches, as memory may be short.
EVALUATION_BATCH = 256
EVALUATED_PER_TRAINED = 4
# Seconds after which the counting of a stream is shown.
SHOWN_AFTER = 2.0


class Shuffled(keras.utils.PyDataset):
    """Batches of some examples of arrays, for `fit` with shuffle=False.

    Their order is a function of (seed, epoch): `FollowEpochs` sets the epoch, so that a run that was killed and started
    again sees the same batches. Incomplete batches are left out.
    """

    def __init__(self, x: Any, y: np.ndarray, indices: np.ndarray, batch_size: int, seed: int):
        super().__init__()
        self.x, self.y, self.indices, self.batch_size, self.seed = x, y, indices, batch_size, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        self._order = np.random.default_rng([self.seed, epoch]).permutation(self.indices)

    def __len__(self) -> int:
        return len(self.indices) // self.batch_size

    def __getitem__(self, number: int) -> tuple[Any, np.ndarray]:
        # In the order of the file where the arrays are mapped from one.
        chosen = np.sort(self._order[number * self.batch_size : (number + 1) * self.batch_size])
        return keras.tree.map_structure(lambda array: array[chosen], self.x), self.y[chosen]


class FollowEpochs(keras.callbacks.Callback):
    """Tells batches that have `set_epoch`, such as `Shuffled`, which epoch it is."""

    def __init__(self, batches: Any):
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        if hasattr(self.batches, "set_epoch"):
            self.batches.set_epoch(epoch)


class Arrays(NamedTuple):
    """Some examples of arrays.

    x: an array (N, ...), or a list, tuple or dict of them; y: (N, ...); indices: (count,), the examples of this part;
    at_once: how many are in one of `batches()`.
    """

    x: Any
    y: np.ndarray
    indices: np.ndarray
    at_once: int = EVALUATION_BATCH

    @property
    def count(self) -> int:
        return len(self.indices)

    def shuffled(self, batch_size: int, seed: int) -> Shuffled:
        return Shuffled(self.x, self.y, self.indices, batch_size, seed)

    def batches(self) -> Iterator[tuple[Any, np.ndarray]]:
        """All of them, in order."""
        for start in range(0, self.count, self.at_once):
            chosen = self.indices[start : start + self.at_once]
            yield keras.tree.map_structure(lambda array: array[chosen], self.x), self.y[chosen]

    def labels(self) -> np.ndarray:
        return self.y[self.indices]

    @property
    def shapes(self) -> set[tuple[tuple[int, ...], ...]]:
        """Of the inputs of one example: one element, as all are of one size."""
        return {_shapes(self.x)}


class Stream(NamedTuple):
    """A tf.data.Dataset or PyDataset of batches (x, y), read from its start each time.

    count: how many examples it has, of training data at most; batch_size: how many are in its first batch; is_counted:
    whether it was read to its end for that; shapes: of the inputs of one example, in all batches that were read.
    """

    dataset: Any
    count: int
    batch_size: int
    is_counted: bool
    shapes: set[tuple[tuple[int, ...], ...]]

    def shuffled(self, batch_size: int, seed: int) -> Any:
        """The data set itself: it comes in batches, in its own order."""
        return self.dataset

    def batches(self) -> Iterator[tuple[Any, np.ndarray]]:
        for x, y, *_ in _batches(self.dataset):
            yield keras.tree.map_structure(np.asarray, x), np.asarray(y)

    def labels(self) -> np.ndarray:
        return np.concatenate([y for _, y in self.batches()])


class Parts(NamedTuple):
    """What is trained on, what choices are made on, and what the report is about.

    notes: how they came about, a line each.
    """

    train: Arrays | Stream
    validation: Arrays | Stream
    test: Arrays | Stream
    notes: tuple[str, ...]


def split(
    train: Arrays | Stream,
    validation: Arrays | Stream | None,
    test: Arrays | Stream | None,
    seed: int,
    stratified: bool,
) -> Parts:
    """The parts of the data.

    Args:
        train: all of `data`, of which parts that are None are held out.
        stratified: whether labels are classes, each of which is to be in all parts.
    Raises:
        Refused: a class has too few examples to split, or a stream comes without test data.
    """
    notes = []
    if isinstance(train, Stream):
        if validation is None and test is None:
            raise Refused("data is a stream, which cannot be split reliably: give validation_data and test_data, too")
        if test is None:
            notes.append("test: the validation data, as no test_data was given")
        if validation is None:
            notes.append("choices are made on the test data, as no validation_data was given")
        return Parts(train, validation or test, test or validation, tuple(notes))
    missing = [name for name, given in (("test", test), ("validation", validation)) if given is None]
    for index, name in enumerate(missing):
        fraction = TEST_FRACTION if name == "test" else VALIDATION_FRACTION
        train, held_out = _held_out(train, fraction, seed, stratified, least=len(missing) - index + 1)
        notes.append(f"{name}: {held_out.count} of the examples in data, which are not trained on here")
        if name == "test":
            test = held_out
            notes.append("if the network as given was trained on them, its score is too good")
        else:
            validation = held_out
    return Parts(train, validation, test, tuple(notes))


def part(given: Any, name: str, batch_size: int | None = None, verbose: int = 0) -> Arrays | Stream:
    """All examples of an argument of `prune`.

    Args:
        batch_size: of the training.
        verbose: whether the counting of a stream of unknown length is shown.
    Raises:
        Refused: they are not such as it takes.
    """
    if isinstance(given, keras.utils.PyDataset) or _is_tf_dataset(given):
        return _stream(given, name, verbose)
    if isinstance(given, (tuple, list)) and len(given) == 3:
        raise Refused(f"{name} has three parts: give (x, y); weights of examples are not taken")
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise Refused(f"{name} is a {type(given).__name__}: give (x, y), a tf.data.Dataset or a keras PyDataset")
    x, y = given
    # A PyDataset takes lists of inputs for examples, and tuples for inputs.
    x, y = keras.tree.map_structure(np.asarray, tuple(x) if isinstance(x, list) else x), np.asarray(y)
    arrays = keras.tree.flatten(x)
    if isinstance(given[0], list) and not any(array.ndim for array in arrays):
        raise Refused(f"{name} has a list as x, which stands for several inputs: give np.asarray(x)")
    if any(array.dtype.kind not in "biuf" or not array.ndim for array in (*arrays, y)):
        raise Refused(f"{name} takes arrays of numbers, not of text or objects: x (N, ...) and y, a label for each")
    if not len(y):
        raise Refused(f"{name} has no examples")
    if any(len(array) != len(y) for array in arrays):
        raise Refused(f"{name} has {len(arrays[0])} examples and {len(y)} labels: give one label per example")
    for array in (*arrays, y):
        if array.dtype.kind == "f" and not _finite(array):
            raise Refused(f"{name} holds numbers that are not finite: remove these examples")
    at_once = min(EVALUATION_BATCH, EVALUATED_PER_TRAINED * batch_size) if batch_size else EVALUATION_BATCH
    return Arrays(x, y, np.arange(len(y)), at_once)


def _finite(array: np.ndarray) -> bool:
    step = max(1, 2**22 // max(1, array[:1].size))  # not a mask of all at once
    return all(np.isfinite(array[start : start + step]).all() for start in range(0, len(array), step))


def _is_tf_dataset(given: Any) -> bool:
    # Where nobody has imported TensorFlow, there is none.
    return "tensorflow" in sys.modules and isinstance(given, tf.data.Dataset)


def _batches(dataset: Any) -> Any:
    if not isinstance(dataset, keras.utils.PyDataset):
        return dataset
    # Not its length: it may say in `num_batches` alone how many there are.
    return (dataset[number] for number in range(dataset.num_batches))


def _stream(dataset: Any, name: str, verbose: int) -> Stream:
    """Validation and test data are read once; of training data, all batches are taken to be as large as the first."""
    is_tf = _is_tf_dataset(dataset)
    number = int(dataset.cardinality()) if is_tf else dataset.num_batches
    if number is None or is_tf and number == tf.data.INFINITE_CARDINALITY:
        raise Refused(f"{name} has no end: give a data set of one epoch, without repeat()")
    first = next(iter(_batches(dataset)), None)
    if first is None:
        raise Refused(f"{name} has no examples")
    if not isinstance(first, (tuple, list)) or len(first) < 2:
        raise Refused(f"{name} does not yield batches (x, y): give a data set as fit takes it")
    if len(first) > 2:
        # Trained with them, the network would be judged without.
        raise Refused(f"{name} yields three parts: map them to (x, y); weights of examples are not taken")
    sizes = {len(array) if np.ndim(array) else -1 for array in keras.tree.flatten(list(first[:2]))}
    if len(sizes) > 1 or -1 in sizes:
        raise Refused(f"{name} yields single examples: batch it, with batch(64)")
    if is_tf and number == tf.data.UNKNOWN_CARDINALITY:
        # One without an end, such as of a generator, would not be told from a large one.
        what = f"counting the batches of {name}, which needs an end"
        shown = tqdm(
            dataset, what, unit=" batches", delay=SHOWN_AFTER, disable=not verbose, leave=False, file=sys.stderr
        )
        number = sum(1 for _ in shown)
        dataset = dataset.apply(tf.data.experimental.assert_cardinality(number))  # for fit
    size = sizes.pop()
    found = Stream(dataset, number * size, size, name != "data", {_shapes(first[0])})
    if not found.is_counted:
        return found
    count, shapes = 0, set()
    for x, y in found.batches():
        if not all(np.isfinite(array).all() for array in (*keras.tree.flatten(x), y)):
            raise Refused(f"{name} holds numbers that are not finite: remove these examples")
        count += len(y)
        shapes.add(_shapes(x))
    return found._replace(count=count, shapes=shapes)


def _shapes(x: Any) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(array.shape[1:]) for array in keras.tree.flatten(x))


def _classes_of(y: np.ndarray) -> np.ndarray:
    """The class of each example, (N,), numbered from 0 without gaps."""
    y = y.argmax(1) if y.ndim == 2 and y.shape[1] > 1 else y
    return np.unique(y.reshape(-1), return_inverse=True)[1]


def _held_out(part: Arrays, fraction: float, seed: int, stratified: bool, least: int) -> tuple[Arrays, Arrays]:
    """The rest, and a fraction of each class, at least one example; a class has to have `least` of them."""
    classes = _classes_of(part.labels()) if stratified else np.zeros(part.count, int)
    order = np.random.default_rng(seed).permutation(part.count)
    taken = np.zeros(part.count, bool)
    for each in range(classes.max() + 1):
        own = order[classes[order] == each]
        if len(own) < least:
            what = f"class {np.asarray(part.labels()[own[0]]).tolist()}" if stratified else "data"
            raise Refused(
                f"{what} has too few examples to be split ({len(own)}): give {least} or more, or "
                "validation_data and test_data"
            )
        taken[own[: max(1, round(fraction * len(own)))]] = True
    return part._replace(indices=part.indices[~taken]), part._replace(indices=part.indices[taken])


def example(model: keras.Model, part: Arrays | Stream) -> np.ndarray:
    """The first example, of the model's first input: (1, ...)."""
    x, _ = next(iter(part.batches()))
    return by_input(model, x)[0][:1]


def by_input(model: keras.Model, x: Any) -> list[np.ndarray]:
    """The arrays of x, one for each of `model.inputs`, as Keras pairs them: those of a dict by name."""
    if isinstance(x, dict) and not isinstance(model.input, dict) and {each.name for each in model.inputs} <= x.keys():
        return [x[each.name] for each in model.inputs]
    return keras.tree.flatten(x)

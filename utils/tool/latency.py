"""How long networks take in LiteRT for one example, on one thread."""

import warnings

import keras
import numpy as np

from keras_sbp.utils.deployment import runtimes, timing

# Seconds for each network, and rounds between networks at least.
SECONDS, ROUNDS = 0.75, 15


class NotMeasured(Exception):
    """Why there is no latency: one line."""


def milliseconds(models: list[keras.Model], x: np.ndarray) -> list[float]:
    """Median milliseconds of each network, measured in alternating rounds.

    Args:
        x: (N, ...), one example of which is run.
    Raises:
        NotMeasured: LiteRT does not run one of them.
    """
    if keras.backend.backend() != "tensorflow":
        raise NotMeasured("LiteRT needs KERAS_BACKEND=tensorflow")
    if any(len(model.inputs) != 1 for model in models):
        raise NotMeasured("networks with several inputs")
    runs = [_runner(model, x) for model in models]
    found = [[] for _ in models]
    calls = []
    for run in runs:
        run(3)
        calls.append(max(1, round(SECONDS / ROUNDS / timing.seconds(run, 3))))
    for _ in range(ROUNDS):
        for run, number, seconds in zip(runs, calls, found):
            seconds.append(timing.seconds(run, number))
    return [1000 * float(np.median(seconds)) for seconds in found]


def _runner(model: keras.Model, x: np.ndarray):
    example = np.asarray(x[:1]).astype(model.inputs[0].dtype)[None]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return runtimes.LiteRT(1).runner(timing.as_deployed(model), example)
    except Exception as error:  # whatever the converter and the interpreter raise
        reason, prefix = " ".join(str(error).split()), f"LiteRT cannot run {model.name}"
        raise NotMeasured(reason if reason.startswith(prefix) else f"{prefix} ({reason[:120]})") from None

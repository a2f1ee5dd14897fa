"""The README's example on one's own network, for some seeds.

    python -m tests.stress.readme_example --seeds 5

Beside each: the error of the same network trained on without noise, for as many epochs.
"""

import argparse
import contextlib
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_sbp.utils.pruning import counting

ROOT = Path(__file__).parents[2]
FIGURES = "{:.2f} % error, without noise {:.2f} %, {:.1f} times fewer multiply-adds"


def run(seed):
    """The names of the example, run with a seed."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    keras.utils.set_random_seed(seed)
    names = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(code, names)
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    rows = []
    for seed in range(parser.parse_args().seeds):
        with contextlib.redirect_stdout(sys.stderr):
            names = run(seed)
            model = names["model"]
            model.fit(names["x"], names["y"], 64, epochs=40, verbose=0)
            whole = 100 - 100 * model.evaluate(names["x_test"], names["y_test"], verbose=0)[1]
        rows.append(
            (names["errors"][1], whole, counting.multiply_adds(model) / counting.multiply_adds(names["smaller"]))
        )
        print(
            "seed {}: {:.2f} %, without noise {:.2f} %, {:.1f} times fewer multiply-adds".format(seed, *rows[-1]),
            flush=True,
        )
    print("mean: {:.2f} %, without noise {:.2f} %, {:.1f} times fewer multiply-adds".format(*np.mean(rows, 0)))


if __name__ == "__main__":
    main()

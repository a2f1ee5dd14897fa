"""The README's example for some seeds, and the error of its network trained for as many epochs more without noise.

python -m tests.stress.readme_example --seeds 5
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
LINE = "{}: {:.2f} % error, {:.2f} % without noise, {:.1f}x fewer MACs"


def run(seed, end=None):
    """Run the example with a seed, up to a comment of it; returns its variables."""
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    keras.utils.set_random_seed(seed)
    names = {}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        exec(code.split(end)[0] if end else code, names)
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
            without = 100 - 100 * model.evaluate(names["x_test"], names["y_test"], verbose=0)[1]
        speedup = counting.multiply_adds(model) / counting.multiply_adds(names["smaller"])
        rows.append((names["errors"][1], without, speedup))
        print(LINE.format(f"seed {seed}", *rows[-1]), flush=True)
    print(LINE.format("mean", *np.mean(rows, 0)))


if __name__ == "__main__":
    main()

"""Runs that are killed, with files damaged and disks full between their starts, end as one that nobody disturbed.

    python -m tests.stress.kills --kills 50

For each kill one run, on the digits: it is killed while a file is written, around its renaming, or at a random moment;
a checkpoint may be damaged then, or the next start find the disk full; then it is started again and runs to its end.
That must be the undisturbed run's: every bit of the last checkpoint and of network.keras, the row, and result.json.
"""

import argparse
import functools
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from pathlib import Path

from tests.support.forks import ROOT, Start, largest_file, no_timing, two_towers  # isort: skip, first: before NumPy

import h5py
import numpy as np
from tqdm import tqdm

from keras_sbp.utils.io import checkpoint

tqdm.monitor_interval = 0  # its thread

# Of the noise, a start and a rate at which some units die in so few epochs.
EPOCHS = 4
FLAGS = {
    "lenet-fc": [],
    "lenet-fc-sbp": ["--shrink_every=2", "--log_sigma=-1", "--noise_learning_rate=0.05"],
    "lenet-fc-ssl": [],
    "lenet-fc-sparsevd": [f"--checkpoint={ROOT / 'checkpoints' / 'published' / 'lenet-fc'}"],
}
PRUNE = ["--target=3", f"--epochs={EPOCHS}", "--finetune_epochs=2", "--batch_size=32"]
MODEL_AND_DATA = """
import sys
from tests.support.digits import dense, digits, train
import keras, numpy as np
x, y = digits()
train(dense(10, "softmax"), "sparse_categorical_crossentropy", x, y).save(f"{sys.argv[1]}/model.keras")
np.savez(f"{sys.argv[1]}/data.npz", x=x, y=y)
"""
TIMES = ("seconds", "seconds_before_finetuning", "command")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_writing(number, fraction):
    """Be killed when a fraction of the number-th file is written."""

    def change():
        write, left = checkpoint.write, number

        def dying(path, fill, aside=None):
            nonlocal left
            left -= 1

            def part(file):
                whole = io.BytesIO()
                fill(whole)
                file.write(whole.getvalue()[: int(fraction * len(whole.getvalue()))])
                file.flush()
                die()

            write(path, fill if left else part, aside)

        checkpoint.write = dying

    return change


def die_renaming(number, after):
    """Be killed just before or after the number-th file gets its name."""

    def change():
        replace, left = os.replace, number

        def dying(source, target):
            nonlocal left
            left -= 1
            if not left and not after:
                die()
            replace(source, target)
            if not left:
                die()

        os.replace = dying

    return change


def damage(folder, chance):
    """Cut the newest checkpoint short, or flip some of its bits; whether there was one."""
    path = max(folder.rglob("checkpoint-*.npz"), key=os.path.getmtime, default=None)
    if path:
        content = bytearray(path.read_bytes())
        if chance.random() < 0.5:
            del content[chance.randrange(len(content)) :]
        else:
            for _ in range(chance.randint(1, 8)):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
    return path is not None


def end(folder, row):
    """All that a run ends in, times aside."""
    found = {"row": row, "result": json.loads((folder / "result.json").read_text())}
    for name in TIMES:
        found["result"].pop(name, None)
    arrays = checkpoint.latest(folder)
    found |= {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items() if name != "seconds"}
    return found | network(folder / "network.keras")


def end_of_prune(folder):
    """All that scripts/prune.py ends in: once it has a network, the checkpoints of its training are read no more."""
    files = {path.name: path.read_bytes() for path in folder.glob("report.*")}
    networks = [network(folder / name) for name in ("noisy.keras", "smaller.keras")]
    return files | {f"{number}/{key}": value for number, found in enumerate(networks) for key, value in found.items()}


def network(path):
    """The config and the weights of a Keras file, whose bytes hold the time."""
    with zipfile.ZipFile(path) as archive:
        found = {"network": archive.read("config.json")}
        with h5py.File(io.BytesIO(archive.read("model.weights.h5"))) as weights:
            weights.visititems(lambda name, item: found.update({f"network/{name}": np.asarray(item).tobytes()})
                               if isinstance(item, h5py.Dataset) else None)  # fmt: skip
    return found


class Runs:
    """Runs of one script on N towers, in folders of their own."""

    def __init__(self, script, towers, folder, chance):
        self.script, self.folder, self.chance = script, folder, chance
        self.before = [no_timing] + [two_towers] * (towers == 2)
        # EPOCHS checkpoints, network.keras and result.json; of prune: settings, checkpoints, 2 networks, 3 reports.
        self.files = 1 + EPOCHS + 2 + 2 + 3 if script == "prune" else EPOCHS + 2
        if script == "prune":
            assert Start(MODEL_AND_DATA, [folder], folder / "model").wait() == 0
        self.counts = {"kills": 0, "damaged files": 0, "full disks": 0, "runs equal": 0}
        begin = time.monotonic()
        self.expected = self.finish("undisturbed")
        self.seconds = time.monotonic() - begin
        self.largest = max(path.stat().st_size for path in (self.folder / "undisturbed").rglob("*"))

    def start(self, name, *before):
        own, arguments = self.folder / name, [f"--checkpoints_dir={self.folder / name}"]
        if self.script == "prune":
            arguments += [f"{self.folder}/model.keras", f"--data={self.folder}/data.npz", *PRUNE]
            arguments.append(f"--output={own}/smaller.keras")
        else:
            arguments += ["--dataset=digits", f"--epochs={EPOCHS}", *FLAGS[self.script]]
        return Start(self.script, arguments, own, [*self.before, *before])

    def finish(self, name):
        """Run to the end, as a researcher does who reads the line that says what to do; what it ends in."""
        start = self.start(name)
        if start.wait() == 2 and "is intact: delete" in start.said():
            for path in (self.folder / name).rglob("checkpoint-*.npz"):
                path.unlink()
            start = self.start(name)
            start.wait()
        last = "smaller.keras" if self.script == "prune" else "result.json"
        if not (self.folder / name / last).exists():
            sys.exit(f"error: {self.script} did not end:\n{start.said()}")
        if self.script == "prune":
            return end_of_prune(self.folder / name)
        return end(self.folder / name, start.said("out"))

    def disturb(self, number):
        """Kill a run once, and see how it ends."""
        name, chance = f"run{number}", self.chance
        while True:
            file = chance.randint(1, self.files)
            if number % 3 == 0:
                status = self.start(name, die_writing(file, chance.random())).wait()
            elif number % 3 == 1:
                status = self.start(name, die_renaming(file, chance.random() < 0.5)).wait()
            else:
                start = self.start(name)
                time.sleep(chance.uniform(0, self.seconds))
                os.kill(start.process, signal.SIGKILL)
                status = start.wait()
            if status == -signal.SIGKILL:
                break
            # It was at its end before the moment came.
            name += "-again"
        self.counts["kills"] += 1
        folder = self.folder / name
        if chance.random() < 0.5:
            self.counts["damaged files"] += damage(folder, chance)
        if chance.random() < 0.3:
            full = functools.partial(largest_file, chance.randrange(self.largest))
            self.counts["full disks"] += self.start(name, full).wait() == 2
        found = self.finish(name)
        if found == self.expected:
            self.counts["runs equal"] += 1
        else:
            other = [key for key in found.keys() | self.expected.keys() if found.get(key) != self.expected.get(key)]
            print(f"{self.script}, {name}: another {', '.join(sorted(other))}", file=sys.stderr)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--scripts", nargs="+", default=[*FLAGS, "prune"], choices=[*FLAGS, "prune"])
    parser.add_argument("--towers", nargs="+", type=int, default=[1, 2], choices=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    settings = [(script, n) for n in options.towers for script in options.scripts if (script, n) != ("prune", 2)]
    rows = []
    with tempfile.TemporaryDirectory() as folder, tqdm(total=options.kills, unit="kill") as bar:
        for index, (script, towers) in enumerate(settings):
            numbers = range(index, options.kills, len(settings))
            if numbers:
                own = Path(folder, f"{script}-{towers}")
                own.mkdir()
                runs = Runs(script, towers, own, chance)
                for number in range(len(numbers)):
                    runs.disturb(number)
                    bar.update()
                rows.append((script, towers, runs.counts))
    print(f"{'':<18}{'towers':>8}" + "".join(f"{name:>15}" for name in runs.counts))
    for script, towers, counts in rows:
        print(f"{script:<18}{towers:>8}" + "".join(f"{count:>15}" for count in counts.values()))
    total = {name: sum(counts[name] for _, _, counts in rows) for name in runs.counts}
    print(f"{'all':<18}{'':>8}" + "".join(f"{count:>15}" for count in total.values()))
    sys.exit(total["runs equal"] != total["kills"])


if __name__ == "__main__":
    main()

"""Input that wants a script to fail: every case must end in one line `error: ...`, exit status 2, and no file changed.

    python -m tests.stress.bad_input --cases 500

A generator draws the cases from a seed: files of data, training checkpoints, .keras files, result.json, flags, folders.
Each case is a script's run in a process of its own, with 4 GiB of address space, a minute of a processor and ten by
the clock. Anything but the one line is a failure: a traceback, a hang, memory, a changed file, code in a file that ran.
"""

import argparse
import collections
import fcntl
import functools
import gzip
import hashlib
import io
import json
import os
import pickle
import random
import shutil
import stat
import struct
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.support.forks import ROOT, Start, largest_file, limited, no_timing  # isort: skip, first: before NumPy

import h5py
import numpy as np
from tqdm import tqdm

from keras_sbp.utils.io import download

tqdm.monitor_interval = 0  # its thread

SECONDS = 60
ADDRESSES = 4 * 2**30
HUGE = 10**12
OWN = (".lock", ".checkpoint.aside")  # what a run may change
DIGITS = ["--dataset=digits", "--epochs=2"]


class Code:
    """What a pickle that runs code looks like."""

    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


class Case:
    """One hostile run.

    Args:
        folder: of its own, that does not exist yet.
        base: a finished run of lenet-fc-sbp on the digits.
        chance: random.Random.
    Attributes:
        what: in words.
        script, arguments, before: as for `Start`.
    """

    def __init__(self, folder, base, chance):
        self.folder, self.base, self.chance = folder, base, chance
        folder.mkdir()
        self.run, self.canary = folder / "run", folder / "it ran"
        self.script, self.arguments, self.before = "lenet-fc-sbp", DIGITS, []
        self.what = getattr(self, chance.choice([name for name in dir(Case) if name.startswith("make_")]))()

    # Files in general

    def damaged(self, content, first=0):
        """Bytes cut short, with flipped bits, zeros, bytes too many or others' bytes, from `first` on."""
        chance, content = self.chance, bytearray(content)
        offset = chance.randrange(first, len(content))
        kind = chance.choice(["cut", "flip", "zero", "insert", "remove", "empty", "html", "noise"])
        if kind == "cut":
            del content[offset:]
        elif kind == "flip":
            for _ in range(chance.randint(1, 8)):
                content[chance.randrange(first, len(content))] ^= 1 << chance.randrange(8)
        elif kind == "zero":
            content[offset : offset + 64] = bytes(x ^ 255 for x in content[offset : offset + 64])
        elif kind == "insert":
            content[offset:offset] = chance.randbytes(chance.randint(1, 64))
        elif kind == "remove":
            del content[offset : offset + chance.randint(1, 64)]
        else:
            content = {"empty": b"", "html": b"<html>Not found</html>", "noise": chance.randbytes(1000)}[kind]
        return kind, bytes(content)

    def damaged_archive(self, content):
        """A zip's bytes, damaged where its members are: its directory has dates and the like that may be anything."""
        end = content.index(b"PK\1\2")
        kind, members = self.damaged(content[:end], first=200)
        return kind, members + content[end:] if kind in ("flip", "zero", "insert", "remove") else members

    def put(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def put_odd(self, path):
        """Something instead of a file that is not one: what it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = self.chance.choice(["folder", "pipe", "device", "loop"])
        if kind == "folder":
            path.mkdir()
        elif kind == "pipe":
            os.mkfifo(path)
        else:
            path.symlink_to("/dev/zero" if kind == "device" else path)
        return kind

    # Data

    def as_published(self, name, content):
        """Lay a data file down; half of them as if its checksum were the published one."""
        self.put(self.folder / "data" / name, content)
        if self.chance.random() < 0.5:
            self.before.append(lambda: download.MD5.update({name: hashlib.md5(content).hexdigest()}))
            return " with the published checksum"
        return ""

    def idx(self, *sizes, content=b"", kind=8):
        return gzip.compress(bytes([0, 0, kind, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + content, 1)

    def make_idx(self):
        chance = self.chance
        self.arguments = ["--dataset=mnist", f"--data_dir={self.folder / 'data'}"]
        images, labels = "mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz"
        kind = chance.choice(["damaged", "header", "labels", "bomb", "odd"])
        count = chance.randint(1, 20)
        good_images, good_labels = (
            self.idx(count, 28, 28, content=bytes(784 * count)),
            self.idx(count, content=bytes(count)),
        )
        if kind == "odd":
            return f"IDX: a {self.put_odd(self.folder / 'data' / images)}"
        if kind == "damaged":
            kind, good_images = self.damaged(good_images, first=10)
        elif kind == "header":
            sizes = [chance.choice([0, 1, 27, 28, 2**31, 2**32 - 1]) for _ in range(chance.choice([1, 2, 4, 5]))]
            good_images = self.idx(*sizes, content=bytes(784), kind=chance.randrange(256))
        elif kind == "labels":
            good_labels = self.idx(count, content=bytes([chance.randint(10, 255)] * count))
        else:
            good_images = gzip.compress(bytes(2**26), 1)
        known = self.as_published(images, good_images)
        return f"IDX: {kind}{known}{self.as_published(labels, good_labels)}"

    def make_cifar(self):
        chance = self.chance
        self.arguments = ["--dataset=cifar10", f"--data_dir={self.folder / 'data'}"]
        count = chance.randint(1, 5)
        batch = {b"data": np.zeros((count, 3072), np.uint8), b"labels": [0] * count}
        kind = chance.choice(["code", "keys", "shape", "labels", "type", "damaged", "array", "odd"])
        content = None
        if kind == "odd":
            return f"CIFAR-10: a {self.put_odd(self.folder / 'data' / download.CIFAR10 / 'data_batch_1')}"
        if kind == "code":
            batch[chance.choice([b"data", b"labels", b"more"])] = Code(self.canary)
        elif kind == "keys":
            del batch[chance.choice([b"data", b"labels"])]
        elif kind == "shape":
            batch[b"data"] = np.zeros((count, chance.choice([0, 1, 3071, 784])), np.uint8)
        elif kind == "labels":
            batch[b"labels"] = chance.choice(
                [[10] * count, [-1] * count, "0" * count, None, [[]] * count, [0.5] * count]
            )
        elif kind == "type":
            batch[b"data"] = chance.choice([batch[b"data"].astype(float), "text", [[0] * 3072] * count, None])
        elif kind == "array":
            # numpy.ndarray((10**12,)), one opcode after another
            content = b"\x80\x02cnumpy\nndarray\n\x8a\x06" + HUGE.to_bytes(6, "little") + b"\x85\x85R."
        content = content or pickle.dumps(batch, chance.choice([0, 2, 4]))
        if kind == "damaged":
            kind, content = self.damaged(content)
        return f"CIFAR-10: {kind}{self.as_published(f'{download.CIFAR10}/data_batch_1', content)}"

    # Training checkpoints

    def make_checkpoint(self):
        """A whole file's bytes damaged."""
        content = max(self.base.glob("checkpoint-*.npz")).read_bytes()
        path = self.run / "checkpoint-00000022.npz"
        kind, content = self.damaged_archive(content)
        self.put(path, content)
        return f"checkpoint: {kind}"

    def make_arrays(self):
        """A whole file of arrays that are not what they should be."""
        chance, run = self.chance, self.run
        with np.load(max(self.base.glob("checkpoint-*.npz"))) as held:
            arrays = dict(held)
        weights = [name for name in arrays if name.startswith(("model/", "optimizer/", "under/"))]
        name = chance.choice(weights)
        kind = chance.choice(["missing", "shape", "dtype", "object", "text", "config", "lies", "settings", "progress"])
        if kind == "missing":
            del arrays[chance.choice([name, "config", "done", "total", "seconds", "settings"])]
        elif kind == "shape":
            arrays[name] = np.zeros((*arrays[name].shape, chance.choice([0, 1, 2])), arrays[name].dtype)
        elif kind == "dtype":
            arrays[name] = arrays[name].astype(chance.choice(["float64", "complex64", "int8", "bool"]))
            if name.startswith("under/"):
                arrays[name] = arrays[name].astype("float32")
        elif kind == "object":
            arrays[chance.choice([name, "config"])] = np.array([Code(self.canary)], object)
        elif kind == "text":
            arrays[name] = np.array(chance.choice(["", "nan", "0" * 1000]))
        elif kind == "config":
            arrays["config"] = np.array(self.config(json.loads(str(arrays["config"]))))
        elif kind == "lies":
            arrays["config"] = np.array(
                chance.choice(["", "{", "[]", "null", "7", '"x"', "[" * 100_000, "{}", '{"a": 1}'])
            )
        elif kind == "settings":
            arrays["settings"] = np.array(chance.choice(["", "{", "[]", "null", "7", "[" * 100_000, '{"seed": 1}']))
        else:
            key, values = chance.choice([
                ("done", [-1, 10**9, 0.5, np.nan, "1", [1, 2]]),
                ("total", [0.0, [np.nan] * 4, [np.inf] * 4, [0.0] * 5, "x"]),
                ("seconds", [np.nan, np.inf, "x", [1.0, 2.0]]),
            ])  # fmt: skip
            arrays[key] = np.array(chance.choice(values))
        file = io.BytesIO()
        np.savez(file, **arrays)
        self.put(run / "checkpoint-00000022.npz", file.getvalue())
        return f"checkpoint: wrong {kind}"

    def make_archive(self):
        """A zip whose headers claim more than it holds."""
        chance, file = self.chance, io.BytesIO()
        kind = chance.choice(["terabytes", "bomb", "name", "nothing", "others", "header"])
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED) as archive:
            if kind == "terabytes":
                array = io.BytesIO()
                np.lib.format.write_array_header_1_0(
                    array, {"descr": chance.choice(["<f4", "|O", "<U9"]), "fortran_order": False, "shape": (HUGE, 3)}
                )
                archive.writestr("config.npy", array.getvalue())
            elif kind == "bomb":
                archive.writestr("config.npy", bytes(2**26))
            elif kind == "name":
                archive.writestr("../../it ran", b"")
            elif kind == "others":
                archive.writestr("config.json", b"{}")
            elif kind == "header":
                archive.writestr("config.npy", b"\x93NUMPY\x01\x00\x40\x00" + b"(" * 64)
        content = file.getvalue()
        if kind == "nothing":
            content += bytes(10)
        self.put(self.run / "checkpoint-00000022.npz", content)
        return f"checkpoint: an archive, {kind}"

    # Networks

    def config(self, config):
        """A network's config in JSON, changed to another's."""
        chance = self.chance
        layers = config["config"]["layers"]
        dense = [layer for layer in layers if layer["class_name"] == "Dense"]
        kind = chance.choice(["huge", "lambda", "class", "module", "name", "input", "activation", "layers", "padding"])
        if kind == "huge":
            layer = chance.choice(dense)
            layer["config"]["units"] = chance.choice([HUGE, 10**8, -1, 0, 1.5, "x", None, 10**400])
            for layer in layers:
                layer.pop("build_config", None)
        elif kind == "lambda":
            code = {"class_name": "__lambda__", "config": {"value": "4wAAAA==", "defaults": None, "closure": None}}
            chance.choice(dense).update(
                module="keras.layers", class_name="Lambda", registered_name=None,
                config={"name": "dense1", "function": code}, build_config=None)  # fmt: skip
        elif kind == "class":
            chance.choice(layers)["class_name"] = chance.choice(["Nothing", "", None, 7, "Model"])
        elif kind == "module":
            chance.choice(layers).update(
                module=chance.choice(["os", "subprocess", "builtins", "keras.utils"]),
                class_name=chance.choice(["system", "Popen", "exec", "get_file"]),
                registered_name=None,
            )
        elif kind == "name":
            chance.choice(dense)["config"]["name"] = chance.choice(["", "../x", None, "logits", "other"])
            for layer in dense:
                layer["config"]["name"] = dense[0]["config"]["name"]
        elif kind == "input":
            layers[0]["config"]["batch_shape"] = chance.choice([[None, 29, 28, 1], [None, HUGE, 1, 1], [], None, "x"])
        elif kind == "activation":
            chance.choice(dense)["config"]["activation"] = chance.choice(
                ["exec", "nothing", {"module": "os", "class_name": "system"}, 7]
            )
        elif kind == "layers":
            config["config"]["layers"] = chance.choice([[], None, layers[:2], layers[::-1][:3]])
        else:
            flatten = next(layer for layer in layers if layer["class_name"] == "Flatten")
            flatten.update(
                class_name="UpSampling2D",
                config={"size": [10**5, 10**5], "name": flatten["config"]["name"]},
                build_config=None,
            )
        return json.dumps(config)

    def make_keras(self):
        chance, path = self.chance, self.folder / "network.keras"
        self.script, self.arguments = "lenet-fc", [*DIGITS, f"--checkpoint={path}"]
        content = (self.base.parent / "original" / "network.keras").read_bytes()
        kind = chance.choice(["damaged", "config", "json", "weights", "bomb", "missing", "odd", "another", "pickle"])
        if kind == "odd":
            return f".keras: a {self.put_odd(path)}"
        if kind == "damaged":
            kind, content = self.damaged_archive(content)
        elif kind == "another":
            content = (ROOT / "tests" / "golden" / "lenet5.keras").read_bytes()
        elif kind == "pickle":
            content = pickle.dumps(Code(self.canary))
        else:
            content = self.keras_file(content, kind)
        self.put(path, content)
        return f".keras: {kind}"

    def keras_file(self, content, kind):
        chance, file = self.chance, io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        if kind == "config":
            members["config.json"] = self.config(json.loads(members["config.json"])).encode()
        elif kind == "json":
            members["config.json"] = chance.choice([b"", b"{", b"[]", b"null", b"7", b"[" * 100_000, b"\xff\xfe"])
        elif kind == "missing":
            del members[chance.choice(["config.json", "model.weights.h5"])]
        elif kind == "bomb":
            members["model.weights.h5"] = bytes(2**26)
        elif kind == "weights":
            weights = io.BytesIO(members["model.weights.h5"])
            with h5py.File(weights, "r+") as held:
                group = held["layers/dense1/vars"] if "dense1" in held["layers"] else held["layers/dense/vars"]
                del group["0"]
                wrong = chance.choice(["missing", "terabytes", "link", "shape", "text"])
                if wrong == "terabytes":
                    group.create_dataset("0", (HUGE, 500), "f4", chunks=(1000, 500))
                elif wrong == "link":
                    group["0"] = chance.choice([h5py.ExternalLink("/etc/passwd", "/"), h5py.SoftLink("/layers")])
                elif wrong == "shape":
                    group["0"] = np.zeros((3, 3), "f4")
                elif wrong == "text":
                    group["0"] = "text"
            members["model.weights.h5"] = weights.getvalue()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if kind == "bomb" else zipfile.ZIP_STORED) as archive:
            for name, member in members.items():
                archive.writestr(name, member)
        return file.getvalue()

    # Results

    def make_result(self):
        chance, path = self.chance, self.run / "result.json"
        content = (self.base / "result.json").read_bytes()
        result = json.loads(content)
        kind = chance.choice(["cut", "json", "missing", "type", "settings", "odd", "noise"])
        if kind == "odd":
            return f"result.json: a {self.put_odd(path)}"
        if kind == "cut":
            content = content[: chance.randrange(len(content) - 2)]
        elif kind == "noise":
            content = chance.randbytes(1000)
        elif kind == "json":
            content = chance.choice(
                [b"[]", b"null", b"7", b'"x"', b"[" * 100_000, b" " * 2_000_000, b"\xff\xfe{}", b"{}"]
            )
        else:
            key = chance.choice(["method", "settings", "error", "units", "cpu_speedup", "gpu_speedup", "flops_speedup"])
            if kind == "missing":
                del result[key]
            elif kind == "type":
                result[key] = (
                    chance.choice([{}, float("nan"), [[]], True, -1, float("inf")]) if key != "settings" else [1]
                )
            else:
                result["settings"]["seed"] = chance.choice([1, "0", None, [0], {"x": "\n"}])
            content = json.dumps(result).encode()
        self.put(path, content)
        return f"result.json: {kind}"

    # Flags and folders

    def make_flag(self):
        chance = self.chance
        words = ["nan", "inf", "-inf", "x", "", "1e999", "0x", "1,2", "ä", "%s", "--"]
        flags = {
            "epochs": ["0", "-1", "1.5", str(10**30), str(2**31), *words],
            "batch_size": ["0", "-1", "1.5", str(10**30), "1501", *words],
            "learning_rate": ["-1", "-1e-9", "1e30", "1e38", "1e300", *words],
            "weight_decay": ["-1", "1e39", "1e300", *words],
            "noise_learning_rate": ["-1", *words],
            "threshold": ["-1", *words],
            "criterion": ["SNR", "bmrs", *words],
            "log_sigma": ["-20.1", "5.1", "1e30", *words],
            "price": ["-1", *words],
            "kl_scale": ["-1", "1,2", "1,1,1,1", "cost,1", "1e39", "1e300", *words],
            "shrink_every": ["-1", "1.5", *words],
            "seed": ["-1", "1.5", str(2**31), str(10**30), *words],
            "num_gpus": ["-1", "7", "1.5", str(10**30), *words],
            "precision": ["float16", "FLOAT32", *words],
            "validate": ["2", "maybe", *words],
            "dataset": ["imagenet", "MNIST", "../digits", *words],
            "checkpoint": ["/nowhere", "/", "/dev/null", "nowhere.keras", "\n.keras", "x" * 5000],
            "data_dir": [],
            "epoch": ["3"], "no_such_flag": ["1"], "flagfile": ["/nowhere", "/"],
        }  # fmt: skip
        name = chance.choice([name for name in flags if flags[name]])
        value = chance.choice(flags[name])
        self.arguments = [*DIGITS, f"--{name}={value}"]
        if chance.random() < 0.1:
            self.arguments = [*DIGITS, chance.choice(["epochs=3", "--epochs", "---", "--no", "run", "-epochs 3"])]
        return f"flags: {self.arguments[-1][:60]!r}"

    def make_folder(self):
        chance = self.chance
        flag = chance.choice(["checkpoints_dir", "summaries_dir", "data_dir"])
        self.put(self.folder / "file", b"in the way")
        (self.folder / "loop").symlink_to(self.folder / "loop")
        where = chance.choice([
            self.folder / "file", self.folder / "file" / "run", self.folder / "loop", self.folder / "loop" / "run",
            "/proc/none", "/dev/null/run", self.folder / ("x" * 300), "/sys/none",
        ])  # fmt: skip
        self.arguments = [*DIGITS, f"--{flag}={where}"]
        if flag == "data_dir":
            self.arguments[0] = f"--dataset={chance.choice(['mnist', 'fashion_mnist', 'cifar10', 'mnist-random'])}"
        return f"folders: {self.arguments[-1].replace(str(self.folder), '')[:60]}"

    def make_taken(self):
        """A folder that another run holds, a name there that leads to another file, or no room."""
        kind = self.chance.choice(["held", "full", "target"])
        self.run.mkdir()
        if kind == "held":
            self.lock = open(self.run / ".lock", "w")
            fcntl.flock(self.lock, fcntl.LOCK_EX)
        elif kind == "full":
            self.before = [functools.partial(largest_file, self.chance.randint(20_000, 500_000))]
        else:
            (self.run / "checkpoint-00000011.npz").mkdir()
            self.put(self.folder / "precious", b"precious")
            for name in (".lock", ".checkpoint.aside"):
                (self.run / name).symlink_to(self.folder / "precious")
        return f"a run's folder: {kind}"

    # The end

    def command(self):
        named = any(argument.startswith("--checkpoints_dir=") for argument in self.arguments)
        return [*self.arguments, *([] if named else [f"--checkpoints_dir={self.run}"])]

    def files(self):
        """What was there before the run: {path: what it is}."""
        return {
            path: path.read_bytes() if stat.S_ISREG(path.lstat().st_mode) else path.lstat().st_ino
            for path in self.folder.rglob("*")
        }

    def fails(self):
        """What is wrong with the way it ends, or None."""
        before = self.files()
        start = Start(
            self.script,
            self.command(),
            f"{self.folder}-log",
            [no_timing, functools.partial(limited, ADDRESSES, SECONDS), *self.before],
        )
        status, said = start.wait(10 * SECONDS), start.said()
        after = self.files()
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        if status is None:
            return "hangs"
        if "Traceback" in said or status not in (0, 2):
            return f"status {status}: {' '.join(said.splitlines()[-1:])}"
        if self.canary.exists():
            return "ran what a file holds"
        changed = [str(path) for path, content in before.items() if after.get(path) != content and path.name not in OWN]
        if changed:
            return f"changed {changed}"
        if status != 2 or len(errors) != 1 or said.splitlines()[-1] != errors[0]:
            return f"status {status}, {len(errors)} errors"
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    kinds, failures = collections.Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        base = folder / "base"
        for script, name in ("lenet-fc-sbp", "base"), ("lenet-fc", "original"):
            start = Start(script, [*DIGITS, f"--checkpoints_dir={folder / name}"], folder / f"{name}-log", [no_timing])
            if start.wait():
                sys.exit(f"error: {script} does not run:\n{start.said()}")
        for number in tqdm(range(options.cases), unit="case"):
            case = Case(folder / str(number), base, random.Random(f"{options.seed} {number}"))
            kinds[case.what.split(":")[0]] += 1
            if wrong := case.fails():
                failures.append(f"case {number} ({case.what}) {wrong}")
                tqdm.write(failures[-1], sys.stderr)
            shutil.rmtree(case.folder)
    for kind, count in sorted(kinds.items()):
        print(f"{kind:<20}{count:>6}")
    print(f"{options.cases} hostile inputs: {options.cases - len(failures)} single-line errors")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()

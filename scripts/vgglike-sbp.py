"""VGG-like on CIFAR-10, StructuredBP: every filter and neuron with its own noise, from pretrained weights."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils import command_line, vgglike_sbp

vgglike_sbp.define_flags(kl_scale="1")

if __name__ == "__main__":
    command_line.run(lambda: vgglike_sbp.run("StructuredBP"))

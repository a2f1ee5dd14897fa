"""VGG-like on CIFAR-10, StructuredBPc: the KL divergence of a unit scaled by what the unit costs.

About the power 0.4 of that, in the short schedule from a start at three times as much: the cost itself would outweigh
the data, with 1,700 times the cheapest unit's for a filter of the second convolution. Not run to its end yet.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from utils import command_line, vgglike_sbp

vgglike_sbp.define_flags(kl_scale="30,30,20,20,13,13,13,7,7,7,3,3,2,1,1")

if __name__ == "__main__":
    command_line.run(lambda: vgglike_sbp.run("StructuredBPc", "90,90,60,60,40,40,40,20,20,20,8,8,5,3,3"))

"""What the paper reports: Tables 1 and 2 of Neklyudov, Molchanov, Ashukha and Vetrov, NIPS 2017 (arXiv 1705.07283)."""

from typing import NamedTuple


class Row(NamedTuple):
    """Test error in %, living units a layer, and how many times less than the Original's time and multiply-adds."""

    error: float
    units: tuple
    cpu: float
    gpu: float
    flops: float


class Later(NamedTuple):
    """A network of a later paper: test error in %, units a layer, multiply-adds, citation."""

    error: float
    units: tuple
    multiply_adds: int
    citation: str


def _row(error, units, cpu, gpu, flops):
    return Row(error, tuple(int(unit) for unit in units.split("-")), cpu, gpu, flops)


# {network: (data set, {method: row})}
TABLES = {
    "Lenet-fc": ("mnist", {
        "Original": _row(1.54, "784-500-300-10", 1.00, 1.00, 1.00),
        "SparseVD": _row(1.57, "537-217-130-10", 1.19, 1.03, 3.73),
        "SSL": _row(1.49, "434-174-78-10", 2.21, 1.04, 6.06),
        "StructuredBP": _row(1.55, "245-160-55-10", 2.33, 1.08, 11.23),
    }),
    "LeNet5": ("mnist", {
        "Original": _row(0.80, "20-50-800-500", 1.00, 1.00, 1.00),
        "SparseVD": _row(0.75, "17-32-329-75", 1.48, 1.41, 2.19),
        "SSL": _row(1.00, "3-12-800-500", 5.17, 1.80, 3.90),
        "StructuredBP": _row(0.86, "3-18-284-283", 5.41, 1.91, 10.49),
    }),
}  # fmt: skip

NOTE = (
    "The paper's units of LeNet5 give 2.01x, 4.53x and 10.78x by its own count of multiply-adds, not the 2.19x, 3.90x "
    "and 10.49x that it prints."
)

# {network: {method: row}} of later papers on the same data. Multiply-adds are as Tang et al. list them: "FLOPs as a Direct
# Optimization Objective for Learning Sparse Neural Networks", 2018 (arXiv 1811.03060).
_SRINIVAS = "Srinivas and Babu, Generalized Dropout, 2016 (arXiv 1611.06791)"
_LOUIZOS = "Louizos, Ullrich and Welling, Bayesian Compression for Deep Learning, NIPS 2017 (arXiv 1705.08665)"
_L0 = "Louizos, Welling and Kingma, Learning Sparse Neural Networks through L0 Regularization, 2018 (arXiv 1712.01312)"
LATER = {
    "LeNet5": {
        "Generalized dropout": Later(1.1, (7, 13, 208, 16), 254_000, _SRINIVAS),
        "BC-GNJ": Later(1.0, (8, 13, 88, 13), 290_000, _LOUIZOS),
        "BC-GHS": Later(1.0, (5, 10, 76, 16), 158_000, _LOUIZOS),
        "L0": Later(0.9, (20, 25, 45, 462), 1_300_000, _L0),
        "L0-sep": Later(1.0, (9, 18, 65, 25), 403_000, _L0),
    },
}

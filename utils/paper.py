"""What the paper reports: Tables 1 and 2 of Neklyudov, Molchanov, Ashukha and Vetrov, NIPS 2017 (arXiv 1705.07283)."""

from typing import NamedTuple


class Row(NamedTuple):
    """Test error in %, living units a layer, and how many times less than the Original's time and multiply-adds."""

    error: float
    units: tuple
    cpu: float
    gpu: float
    flops: float


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

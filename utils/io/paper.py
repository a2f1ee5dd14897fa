"""What the paper reports: Tables 1 and 2 of Neklyudov, Molchanov, Ashukha and Vetrov, NIPS 2017 (arXiv 1705.07283)."""

from typing import NamedTuple


class Row(NamedTuple):
    """Test error in %, live units per layer, and the speed-ups over the Original in time and multiply-adds."""

    error: float
    units: tuple[int, ...]
    cpu: float
    gpu: float
    flops: float


class Other(NamedTuple):
    """A network of another paper: test error in %, the Original's MACs over its own, units per layer if it has them."""

    error: float
    flops: float
    units: tuple[int, ...] = ()


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
    "VGG-like": ("cifar10", {
        "Original": _row(7.2, "64-64-128-128-256-256-256-512-512-512-512-512-512-512", 1.00, 1.00, 1.00),
        "SparseVD": _row(7.2, "64-62-128-126-234-155-31-81-76-9-138-101-413-373", 2.50, 1.69, 2.27),
        "StructuredBP": _row(7.5, "64-62-128-126-234-155-31-79-73-9-59-73-56-27", 2.71, 1.74, 2.30),
        "StructuredBPa": _row(9.0, "44-54-92-115-234-155-31-76-55-9-34-35-21-280", 3.68, 2.06, 3.16),
    }),
    "VGG-like, k = 1.5": ("cifar10", {
        "Original": _row(6.8, "96-96-192-192-384-384-384-768-768-768-768-768-768-768", 1.00, 1.00, 1.00),
        "SparseVD": _row(7.0, "96-78-191-146-254-126-27-79-74-9-137-100-416-479", 3.35, 2.16, 3.27),
        "StructuredBP": _row(7.2, "96-77-190-146-254-126-26-79-70-9-71-82-79-49", 3.63, 2.17, 3.32),
        "StructuredBPa": _row(7.8, "77-74-161-146-254-125-26-78-66-9-47-55-54-237", 4.47, 2.47, 3.93),
    }),
}  # fmt: skip

NOTE = (
    "The paper's units of LeNet5 give 2.01x (SparseVD), 4.53x (SSL) and 10.78x (StructuredBP) by its own count of\n"
    "multiply-adds, not the 2.19x, 3.90x and 10.49x that it prints."
)

# {network: {method: row}} of other papers on the same data. Most of their errors are the best epoch's on the test set.
# Lenet-fc, as RigL lists them (Evci et al., 2020, arXiv 1911.11134, Table 2), from 784-300-100, here relative to
# 784-500-300. VIBNet: Dai, Zhu, Guo and Wipf, ICML 2018 (arXiv 1802.10399). L0: Louizos, Welling and Kingma, ICLR 2018
# (arXiv 1712.01312).
# LeNet5, as Tang, Adhikari and Lin list them: "FLOPs as a Direct Optimization Objective for Learning Sparse Neural
# Networks", 2018 (arXiv 1811.03060). Generalized dropout: Srinivas and Babu, 2016 (arXiv 1611.06791). BC: Louizos,
# Ullrich and Welling, Bayesian Compression for Deep Learning, NIPS 2017 (arXiv 1705.08665).
# VGG-like. BC: errors from the README of its code (github.com/KarenUllrich/Tutorial_BayesianCompressionForDL), MACs
# counted from its units, which were not read in the paper itself. The others prune VGG-16, which has the same
# convolutions. CHIP (Sui et al., NeurIPS 2021, arXiv 2110.13981), APIB (Guo et al., ICCV 2023) and ACSP as ACSP lists
# them (Levin and Singer, 2025, arXiv 2505.13225, Table 1); SCP (Kang and Han, ICML 2020, arXiv 2007.03938) and PPSM as
# PPSM lists them ("Differentiable Network Pruning via Polarization of Probabilistic Channelwise Soft Masks", 2022, doi
# 10.1155/2022/7775419, Table 2); ABCPruner (Lin et al., IJCAI 2020, arXiv 2001.08565) and White-Box (Zhang et al.,
# 2022, arXiv 2104.11883) as the READMEs of their code do.
# ResNet-20, as FPGM lists them (He, Liu, Wang, Hu and Yang, CVPR 2019, arXiv 1811.00250, Table 1). SFP: He, Kang, Dong,
# Fu and Yang, IJCAI 2018 (arXiv 1808.06866).
# ResNet-56, from Originals of 6.3 to 6.6 %, as Torch-Pruning lists them in the README of its code
# (github.com/VainF/Torch-Pruning). Group: Fang, Ma, Song, Mi and Wang, DepGraph, CVPR 2023 (arXiv 2301.12900). ResRep:
# Ding et al., ICCV 2021 (arXiv 2007.03260). GReg-2: Wang, Qin, Zhang and Fu, ICLR 2021 (arXiv 2012.09243). PPSM: as
# above.
OTHERS = {
    "Lenet-fc": {
        "VIBNet": Other(1.6, 545_000 / 9_560, (97, 71, 33)),
        "L0": Other(1.6, 545_000 / 26_642, (266, 88, 33)),
    },
    "LeNet5": {
        "Generalized dropout": Other(1.1, 2_293_000 / 254_000, (7, 13, 208, 16)),
        "BC-GNJ": Other(1.0, 2_293_000 / 290_000, (8, 13, 88, 13)),
        "BC-GHS": Other(1.0, 2_293_000 / 158_000, (5, 10, 76, 16)),
        "L0": Other(0.9, 2_293_000 / 1_300_000, (20, 25, 45, 462)),
        "L0-sep": Other(1.0, 2_293_000 / 403_000, (9, 18, 65, 25)),
    },
    "VGG-like": {
        "BC-GNJ": Other(8.6, 2.22, (63, 64, 128, 128, 245, 155, 63, 26, 24, 20, 14, 12, 11, 15)),
        "BC-GHS": Other(9.0, 2.57, (51, 62, 125, 128, 228, 129, 38, 13, 9, 6, 5, 6, 6, 20)),
        "CHIP": Other(6.14, 2.38),
        "APIB": Other(5.92, 2.50),
        "ACSP": Other(6.08, 2.59),
        "PPSM": Other(6.22, 2.96),
        "SCP": Other(6.21, 2.96),
        "ABCPruner": Other(6.92, 3.80),
        "White-Box": Other(6.53, 4.24),
    },
    "ResNet-20": {
        "SFP": Other(9.17, 40_813_184 / 24_300_000),
        "FPGM 30 %": Other(8.91, 40_813_184 / 24_300_000),
        "FPGM 40 %": Other(9.56, 40_813_184 / 18_700_000),
    },
    "ResNet-56": {
        "FPGM": Other(6.74, 1.70),
        "SFP": Other(6.64, 2.11),
        "ResRep": Other(6.29, 2.12),
        "Group, 2.13": Other(6.23, 2.13),
        "GReg-2": Other(6.64, 2.55),
        "Group, 2.57": Other(6.36, 2.57),
        "PPSM": Other(6.78, 4.10),
    },
}

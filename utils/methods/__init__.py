"""How each method of the tables trains a network: a frozen dataclass of its hyperparameters each."""

from keras_sbp.utils.methods.finetuning import Finetuning, Retraining
from keras_sbp.utils.methods.method import Method, PruningMethod
from keras_sbp.utils.methods.original import NormalizedOriginal, Original, VGGOriginal
from keras_sbp.utils.methods.sbp import StructuredBP
from keras_sbp.utils.methods.sparse_vd import SparseVD
from keras_sbp.utils.methods.ssl import SSL, NormalizedSSL

__all__ = [
    "SSL",
    "Finetuning",
    "Method",
    "NormalizedOriginal",
    "NormalizedSSL",
    "Original",
    "PruningMethod",
    "Retraining",
    "SparseVD",
    "StructuredBP",
    "VGGOriginal",
]

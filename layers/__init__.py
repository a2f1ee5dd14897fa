if __name__ != "keras_sbp.layers":  # a second copy of the modules, and of the classes that Keras knows by name
    raise ImportError(f"{__name__} is a part of keras_sbp: write keras_sbp.{__name__}")

from keras_sbp import lazy

_MODULES = ("batch_normalization", "inner_noise", "sbp", "sparse_vd", "ssl", "truncated_log_normal")
__getattr__ = lazy.attach(__name__, submodules=_MODULES)

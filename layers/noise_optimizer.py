"""Which optimizer trains which variables of a network with noise."""

import keras

from keras_sbp.layers import sbp


@keras.saving.register_keras_serializable(package="sbp")
class NoiseOptimizerMap(keras.optimizers.OptimizerMap):
    """The optimizer "noise" for mu and log sigma of SBP layers, the default one for all other variables."""

    def __call__(self, variable: keras.Variable) -> keras.optimizers.Optimizer:
        # Not by name: other layers may have a mu, too. SBP alone constrains variables by a function of its module.
        is_noise = getattr(variable.constraint, "__module__", None) == sbp.__name__
        return self["noise"] if is_noise else self.default_optimizer

"""StructuredBPc for Lenet-fc on MNIST: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error, last epoch: 1.60% (mean of ten seeds, 95% interval 1.55 to 1.65) with 21.3x fewer MACs (20.7 to 21.9).

    python scripts/lenet-fc-sbpc.py --seed=N          # N = 0 ... 9; a minute and a half on one core
    python scripts/lenet-fc-sbpc.py --seed=N --shift=2 --price=4 --final_price=2    # 0.97%, 16.6x

Trials: docs/trials.md#lenet-fc-sbpc
"""

from absl import flags

from keras_sbp.nets import lenet_fc
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=100, batch_size=128, learning_rate=3e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=2e-2, kl_scale="price=1", kl_start="price=2")
experiment.define_finetune_flags()
regularisation.define_shift()


def main():
    run = experiment.Experiment("Lenet-fc", "StructuredBPc", lenet_fc.lenet_fc, lenet_fc.units, data.scaled)
    model = run.build(unit=structured_bp.unit)
    if FLAGS.checkpoint:
        experiment.set_weights(model, FLAGS.checkpoint)
    model = structured_bp.train(run, model, prepare=regularisation.shifted())
    run.finish(model, run.finetune(model, prepare=regularisation.shifted()))


if __name__ == "__main__":
    command_line.run(main)

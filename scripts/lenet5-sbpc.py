"""StructuredBPc for LeNet5 on MNIST: the KL divergence of a unit is weighted by the MACs that the unit costs.

Error, last epoch: 0.84% (mean of ten seeds, 95% interval 0.78 to 0.91) with 20.9x fewer MACs (18.1 to 23.6).

    python scripts/lenet5-sbpc.py --seed=N            # N = 0 ... 9; 2 to 3 minutes on one core

With random shifts and fine-tuning: 0.78%, 18.6x (ten seeds). Its flags and the trials: docs/trials.md#lenet5-sbpc
"""

from absl import flags

from keras_sbp.nets import lenet5
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=40, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=2e-2, kl_scale="price=5", kl_start="price=10")
experiment.define_finetune_flags()
regularisation.define_shift()


def main():
    run = experiment.Experiment("LeNet5", "StructuredBPc", lenet5.lenet5, lenet5.units, data.scaled)
    start = FLAGS.checkpoint or experiment.pretrained("lenet5", run.folder)
    model = run.build(unit=structured_bp.unit)
    experiment.set_weights(model, start)
    model = structured_bp.train(run, model, prepare=regularisation.shifted())
    run.finish(model, run.finetune(model, prepare=regularisation.shifted()))


if __name__ == "__main__":
    command_line.run(main)

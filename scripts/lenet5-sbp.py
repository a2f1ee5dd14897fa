"""StructuredBP for LeNet5 on MNIST: noise on every filter and neuron, from the Original's weights.

Error, last epoch: 0.78% (mean of ten seeds, 95% interval 0.72 to 0.83; paper 0.86) with 12.1x fewer MACs (paper 10.49).

    python scripts/lenet5-sbp.py --seed=N             # N = 0 ... 9; 2 to 13 minutes on one core
    python scripts/lenet5-sbp.py --schedule=paper     # the paper's settings, 200 epochs: 0.70%, 5.04x

Trials: docs/trials.md#lenet5-sbp
"""

from absl import flags

from keras_sbp.nets import lenet5
from keras_sbp.utils import experiment
from keras_sbp.utils.experiment import regularisation, schedule
from keras_sbp.utils.io import command_line, data
from keras_sbp.utils.methods import sbp as structured_bp

FLAGS = flags.FLAGS
experiment.define_flags(dataset="mnist", epochs=40, batch_size=128, learning_rate=1e-3, weight_decay=0.0)
structured_bp.define_flags(noise_learning_rate=2e-2, kl_scale="1", kl_start="145,64,1,1.6")
experiment.define_finetune_flags()
schedule.define_flags(default="short")
regularisation.define_shift()


def main():
    schedule.take("paper", epochs=200, noise_learning_rate=1e-3, kl_start=[], shrink_every=0)
    run = experiment.Experiment("LeNet5", "StructuredBP", lenet5.lenet5, lenet5.units, data.scaled)
    start = FLAGS.checkpoint or experiment.pretrained("lenet5", run.folder)
    model = run.build(unit=structured_bp.unit)
    experiment.set_weights(model, start)
    model = structured_bp.train(run, model, prepare=regularisation.shifted())
    run.finish(model, run.finetune(model, prepare=regularisation.shifted()))


if __name__ == "__main__":
    command_line.run(main)

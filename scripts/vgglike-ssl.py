"""VGG-like on CIFAR-10, SSL: a group lasso on filters and input channels, rows and columns, from pretrained weights.

Not run to its end yet: the strengths are a start, not the outcome of trials. What trials of the first stage gave, in
the short schedule, on training images:

- SGD at 0.025 with strengths of 0.02 times the root mean square weight that a layer starts with: 5 and 16 % wrong in
  the first two epochs, 27 % in the middle of the third, and 58 - 64 - 128 - 128 - 256 - ... units alive: without batch
  normalisation 15 layers that all grow shorter multiply, and the groups of a layer, of much the same length, would go
  together.
- The same with layers scaled against one another to weights of one size: 84 % wrong after 25 steps at 0.02.
- Adam at 3e-4 and the proximal step at its rate, k = 0.375: strength 0.1: 15, 29 and 54 % wrong, 128 to 157 of the 192
  filters of blocks 4 and 5 left, all of the others; 0.03: 18 % wrong in the fourth epoch, no filter gone.
"""

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import keras
from absl import flags

from nets import vgglike
from utils import experiment, structured_sparsity, training
from utils.experiment import regularisation, retraining, schedule
from utils.plumbing import command_line, data

FLAGS = flags.FLAGS
experiment.define_flags(dataset="cifar10", epochs=300, batch_size=100, learning_rate=0.05, weight_decay=5e-4)
schedule.define_flags()
schedule.define_width()
training.define_shrinking_flag(1)
retraining.define_flags(epochs=0, learning_rate=0.1, weight_decay=5e-4)
regularisation.define_flags()
flags.DEFINE_float("lasso", 0.012, "What a row loses every epoch: a share of the mean length of a layer's.", 0, 0.99)


def main():
    schedule.take("short", epochs=6, batch_size=125, lasso=0.45, label_smoothing=0.1, cutout=8, finetune_epochs=30)
    build = functools.partial(vgglike.vgglike, width=FLAGS.width)
    run = experiment.Experiment(schedule.network_name("VGG-like"), "SSL", build, vgglike.units, data.standardised)
    model = run.build(norm=keras.layers.Identity)
    experiment.set_weights(model, FLAGS.checkpoint or experiment.pretrained("vgglike", run.folder))
    how = {"course": schedule.course(), **regularisation.options()}
    model = structured_sparsity.train_normalised(run, model, FLAGS.lasso, **how)
    run.finish(model, retraining.retrain(run, model, **how))


if __name__ == "__main__":
    command_line.run(main)

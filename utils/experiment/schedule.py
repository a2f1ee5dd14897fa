"""--schedule: the paper's settings, or those that a CPU can finish; and --width."""

from absl import flags

FLAGS = flags.FLAGS

# VGG-like's: the shares of the training at which learning rates have risen from 0 and begin to fall to 0.
COURSES = {"paper": (0.0, 250 / 300), "short": (0.2, 0.2)}
# VGG-like's StructuredBP, plain, a and c in the short schedule: what they share.
SHORT = {
    "batch_size": 125,
    "learning_rate": 3e-4,
    "noise_learning_rate": 5e-2,
    "shrink_every": 1,
    "label_smoothing": 0.1,
    "cutout": 8,
}


def define_flags(default="paper"):
    """--schedule, the flags' own defaults being those of `default`."""
    flags.DEFINE_enum(
        "schedule",
        default,
        COURSES,
        "paper: the settings of the paper and, where it gives none, of its authors' code. short: those that a CPU can "
        "finish. Each has defaults of its own.",
    )


def define_width():
    """--width."""
    flags.DEFINE_float("width", 1.0, "k: scales the units of every layer.", lower_bound=0.02)


def take(schedule, **defaults):
    """Let the defaults that a schedule has of its own hold, if it is asked for."""
    if FLAGS.schedule == schedule:
        for name, value in defaults.items():
            FLAGS.set_default(name, value)


def course():
    """The course of VGG-like's learning rates, as `training.Updates` takes it."""
    return COURSES[FLAGS.schedule]


def network_name(name):
    """What the tables call the network of --width."""
    return name if FLAGS.width == 1 else f"{name}, k = {FLAGS.width:g}"

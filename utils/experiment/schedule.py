"""--schedule, where the paper's takes days of a CPU, and --width: the defaults and the course of learning rates."""

from absl import flags

FLAGS = flags.FLAGS

# The shares of the training at which learning rates have risen from 0 and begin to fall to 0.
COURSES = {"paper": (0.0, 250 / 300), "short": (0.2, 0.2)}


def define_flags():
    """--schedule, the flags' own defaults being the paper's, and --width."""
    flags.DEFINE_enum(
        "schedule",
        "paper",
        COURSES,
        "paper: rates are constant for 250 of 300 epochs, then fall to 0. short: one that a CPU can finish, with other "
        "defaults; rates rise over a fifth of the epochs, then fall to 0.",
    )
    define_width()


def define_width():
    """--width."""
    flags.DEFINE_float("width", 1.0, "k: scales the units of every layer.", lower_bound=0.02)


def take(**short):
    """Let the defaults that the short schedule has of its own hold, if it is asked for; returns the rates' course."""
    if FLAGS.schedule == "short":
        for name, value in short.items():
            FLAGS.set_default(name, value)
    return COURSES[FLAGS.schedule]


def network_name(name):
    """What the tables call the network of --width."""
    return name if FLAGS.width == 1 else f"{name}, k = {FLAGS.width:g}"

"""Training: Adam on the negative evidence lower bound, whole epochs inside the graph, on every tower."""

import contextlib
import itertools
import math
import signal
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from layers import sbp
from utils import checkpoint, cost, networks, pruning, towers
from utils.command_line import UserError

# A call of the graph runs at most so many steps, and about so many seconds: between two calls the progress is shown, a
# signal is heard and a checkpoint is due.
CHUNK = 1000
SECONDS_A_CHUNK = 2
SECONDS_BETWEEN_CHECKPOINTS = 300
# What a step returns, and a summary shows of an epoch's mean: cross entropy of an image, share of wrong answers, KL
# divergence as the loss has it, that is scaled and without the units that were taken out, and decay, in nats.
FIGURES = ("loss", "error", "kl", "decay")


class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """On a line up to `rate` at step `warm`, `rate` until step `start`, then on a line to 0 at step `end`."""

    def __init__(self, rate, start, end, warm=0):
        self.rate, self.start, self.end, self.warm = rate, start, end, warm

    def __call__(self, step):
        step = tf.cast(step, tf.float32)
        share = tf.minimum((step + 1) / (self.warm + 1), (self.end - step) / (self.end - self.start))
        return self.rate * tf.clip_by_value(share, 0.0, 1.0)


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with the update of a variable as one operation: Keras's dozen pass over memory a dozen times."""

    def update_step(self, gradient, variable, learning_rate):
        place, step = self._get_variable_index(variable), tf.cast(self.iterations.value + 1, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[place].value.handle,
            v=self._velocities[place].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(rate, group):
    """The paper's optimiser, of a learning-rate schedule and the number of the variables' group."""
    return FusedAdam(rate, beta_1=0.95, name=f"adam_{group}")


def half_squares(model):
    """The sum of w^2 / 2 over the kernels of a model, what weight decay multiplies: a scalar tensor."""
    return tf.add_n([tf.nn.l2_loss(layer.kernel.value) for layer in model.layers if hasattr(layer, "kernel")])


class Step:
    """One network in training: the graph that runs its steps, and the state that they change.

    Args:
        model: a Keras model of images in, logits out.
        train_set: data.Images of tensors, a copy on every tower (`towers.copies`).
        count: how many images they are.
        prepare: from uint8 images (batch, ...) and a seed (2,) to the network's input, inside the graph.
        rate: from a trainable variable to its learning rate; 0 keeps it as it is.
        batch_size: images a tower a step.
        epochs: of the whole training, which the courses of rates and KL divergence are shares of.
        seed: of order, noise and augmentation.
        strategy: of tf.distribute; its towers share a step.
        schedule: two shares of the training: until the first, learning rates rise from 0; from the second on, they
            fall to 0.
        optimizer: makes a Keras optimiser, as `adam` does.
        weight_decay: L2 decay of the kernels: half of it times their squares, an image.
        label_smoothing: the share of a label that is spread over all classes.
        kl: from the model and the share of the training that is done, in [0, 1), to the KL divergence that the bound
            takes off, in nats: a scalar tensor. None: the method has none.
        proximal: called with the model and the learning rate of the weights after each of the optimiser's updates, to
            change weights for what no gradient can do. None: nothing to do.
    Attributes:
        steps: how many an epoch has.
        run: from an epoch, its first step and the step after the last (int32 each), takes these steps, up to the first
            whose loss is not finite; returns the sums of FIGURES over them, (4,) float32, and the step it came to.
    Raises:
        UserError: a step needs more images than there are, the steps are too many to count, or every rate is 0.
    """

    def __init__(
        self,
        model,
        train_set,
        count,
        *,
        prepare,
        rate,
        batch_size,
        epochs,
        seed,
        strategy,
        schedule=(0.0, 0.5),
        optimizer=adam,
        weight_decay=0.0,
        label_smoothing=0.0,
        kl=None,
        proximal=None,
    ):
        self.model = model
        towers_ = strategy.num_replicas_in_sync
        self.steps = count // (batch_size * towers_)
        if not self.steps:
            raise UserError(
                f"--batch_size={batch_size} on {towers_} towers is more than the {count} training images: make it less"
            )
        total = epochs * self.steps
        if total > 2**31:
            raise UserError(f"--epochs={epochs} are {total} steps, and 2^31 can be counted: make it less")
        rates = {variable.path: rate(variable) for variable in model.trainable_variables}
        if not any(rates.values()):
            raise UserError("every learning rate is 0, so nothing is trained: give one that is more")
        self.optimizers = []
        with strategy.scope():
            for value in sorted(set(rates.values()) - {0.0}):
                variables = [v for v in model.trainable_variables if rates[v.path] == value]
                warm, start = (int(share * total) for share in schedule)
                optimizer_ = optimizer(LinearDecay(value, start, total, warm), len(self.optimizers))
                optimizer_.build(variables)
                self.optimizers.append((optimizer_, variables))
        trained = [variable for _, variables in self.optimizers for variable in variables]
        generators = [layer.seed_generator for layer in model.layers if hasattr(layer, "seed_generator")]
        noises = [layer for layer in model.layers if isinstance(layer, sbp.SBP)]
        readers = _readers(model, batch_size)
        statistics = _statistics(model)
        classes = model.output.shape[-1]

        def tower_step(images, labels, order, epoch, step):
            tower = tf.distribute.get_replica_context().replica_id_in_sync_group
            place = step * towers_ + tower
            chosen = order[place * batch_size : (place + 1) * batch_size]
            # Noise and augmentation are a function of (seed, epoch, step, tower): what a restart needs.
            moment = tf.cast((epoch * self.steps + step) * towers_ + tower, tf.int64)
            seeds = tf.random.stateless_uniform(
                (len(generators) + 1, 2), (tf.constant(seed, tf.int64), moment), None, None, tf.int32
            )
            state = [(g.state, tf.cast(s, g.state.dtype)) for g, s in zip(generators, tf.unstack(seeds[1:]))]
            target = tf.gather(labels, chosen)
            with tf.GradientTape() as tape, keras.StatelessScope(state_mapping=state) as scope, sbp.one_draw(noises):
                # Of the kernels before theta goes into some of them.
                decay = count * weight_decay * half_squares(model) if weight_decay else tf.constant(0.0)
                for noise, reader, smaller in readers:
                    if smaller:
                        scope.add_update((reader.kernel, noise.drawn[:, None] * reader.kernel.value))
                        noise.drawn = tf.constant(1.0)
                    else:
                        scope.add_update((reader.kernel, _carrying(noise.drawn, reader.kernel.value)))
                        noise.drawn = tf.stop_gradient(noise.drawn)
                logits = model(prepare(tf.gather(images, chosen), seeds[0]), training=True)
                logits = tf.cast(logits, tf.float32)
                labels_ = (1 - label_smoothing) * tf.one_hot(target, classes) + label_smoothing / classes
                data_term = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels_, logits))
                done = tf.cast(epoch * self.steps + step, tf.float32) / total
                kl_ = kl(model, done) if kl else tf.constant(0.0)
                loss = (count * data_term + kl_ + decay) / towers_
            gradients = tape.gradient(loss, [variable.value for variable in trained])
            # Of this step: the optimiser's own is the next one's, 0 after the last, once it has been applied.
            learning_rate = tf.identity(self.optimizers[0][0].learning_rate)
            for optimizer_, variables in self.optimizers:
                optimizer_.apply(gradients[: len(variables)], variables)
                gradients = gradients[len(variables) :]
            if proximal:
                proximal(model, learning_rate)
            wrong = tf.reduce_mean(tf.cast(tf.argmax(logits, -1, tf.int32) != target, tf.float32))
            # What batch normalisation has seen would be lost with the scope.
            moved = [scope.get_current_value(variable) for variable in statistics]
            return tf.concat([tf.stack([data_term, wrong, kl_, decay]), *moved], 0)

        sizes = [len(FIGURES), *(variable.shape[0] for variable in statistics)]

        @tf.function(input_signature=[tf.TensorSpec((), tf.int32)] * 3)
        def run(epoch, first, last):
            order = tf.random.experimental.stateless_shuffle(tf.range(count), (tf.constant(seed), epoch))
            sums = tf.zeros(len(FIGURES))
            for step in tf.range(first, last):
                values = strategy.run(tower_step, (*train_set, order, epoch, step))
                values, *moved = tf.split(strategy.reduce("MEAN", values, axis=None), sizes)
                for variable, value in zip(statistics, moved):
                    variable.value.assign(value)
                sums += values
                if not tf.math.is_finite(tf.reduce_sum(values)):
                    break
            return sums, step

        self.run = run

    def state(self):
        """{name: array} of all that the steps change, and the network's own description."""
        variables = {f"model/{v.path}": v for v in _weights(self.model)}
        for optimizer, _ in self.optimizers:
            variables |= {f"optimizer/{v.path}": v for v in optimizer.variables}
        return {name: np.asarray(v) for name, v in variables.items()}

    def restore(self, arrays):
        """Set what `state` gave. Raises ValueError if the arrays are of another network, before any is set."""
        for name, held in self.state().items():
            if name not in arrays or (arrays[name].shape, arrays[name].dtype) != (held.shape, held.dtype):
                raise ValueError(f"it has no {name} of {held.shape}")
        for v in _weights(self.model):
            v.assign(arrays[f"model/{v.path}"])
        for optimizer, _ in self.optimizers:
            for v in optimizer.variables:
                v.assign(arrays[f"optimizer/{v.path}"])


def train(
    model,
    train_set,
    *,
    folder,
    epochs,
    strategy,
    alive=None,
    measure=None,
    shrink_every=0,
    summaries_dir=None,
    run="",
    extra=None,
    **settings,
):
    """Train a model to the last epoch, from the newest checkpoint in the folder if there is one.

    Args:
        model: a Keras model of images in, logits out.
        train_set: data.Images.
        folder: where checkpoints go.
        alive: from a model to which units live, {layer's name: (units,) bool}: for the eye. None: those whose noise
            layer has a multiplier other than 0.
        measure: from a model to {name: float}, called at the end of every epoch, for its summary. None: nothing more.
        shrink_every: every so many epochs, units under their threshold for as many epochs are taken out for good;
            0: never.
        summaries_dir: where TensorBoard's summaries go, or None.
        run: what the progress bar calls this run.
        extra: {name: array} to put in every checkpoint.
        settings: of `Step`.
    Returns:
        The trained model, and the seconds that training took over all its starts.
    Raises:
        UserError: the loss is no longer finite, or the disk is full; the last good checkpoint stays.
        SystemExit: 130 or 143, after a checkpoint, when interrupted or terminated.
    """
    chief = towers.is_chief(strategy)
    start = time.time()
    arrays = checkpoint.latest(folder)
    if arrays:
        with _reading(folder), strategy.scope():
            model = _network(arrays, model)
    images = [towers.copies(strategy, array) for array in train_set], len(train_set.labels)
    step = Step(model, *images, epochs=epochs, strategy=strategy, **settings)
    done, total, under, seconds = 0, np.zeros(len(FIGURES)), {layer.name: 0 for layer in _noise(model)}, 0.0
    if arrays:
        with _reading(folder):
            step.restore(arrays)
            done, total, seconds, under = _progress(arrays, step, epochs)
        print(f"{folder}: going on from step {done} of {epochs * step.steps}", file=sys.stderr)
    with _summaries(summaries_dir):
        writer = (
            tf.summary.create_file_writer(summaries_dir) if summaries_dir and chief else tf.summary.create_noop_writer()
        )
    towers.agree(strategy, done, f"{folder} is not the same on all machines: put --checkpoints_dir where all see it")
    saved, chunk = time.time(), 1

    def save():
        if chief:
            state = step.state()
            if not all(np.isfinite(array).all() for array in state.values()):
                raise not_finite("a weight", done)
            counters = {f"under/{name}": count for name, count in under.items()}
            progress = {"done": done, "steps": step.steps, "total": total, "seconds": seconds + time.time() - start}
            config = np.array(step.model.to_json())
            checkpoint.save(folder, done, {"config": config, **progress, **counters, **state, **(extra or {})})

    def not_finite(what, at):
        return UserError(
            f"{what} is no longer finite at step {at} of {run}; {folder} keeps the last good checkpoint: give a lower "
            "--learning_rate and another --checkpoints_dir"
        )

    bar = tqdm(total=epochs * step.steps, initial=done, desc=run, unit="step", disable=not chief, mininterval=1)
    with _Signals() as signals, bar:
        while done < epochs * step.steps:
            epoch, first = divmod(done, step.steps)
            last = min(first + chunk, step.steps)
            began = time.time()
            with towers.all_there(strategy, folder):
                sums, at = step.run(epoch, first, last)
                # Machines have to call the graph alike.
                elapsed = towers.mean(strategy, time.time() - began)
            chunk = round(np.clip((last - first) * SECONDS_A_CHUNK / elapsed, 1, CHUNK))
            if not np.isfinite(sums).all():
                raise not_finite("the loss", epoch * step.steps + int(at))
            done, total = done + last - first, total + sums.numpy()
            figures = dict(zip(FIGURES, total / last))
            audible = _audible(step.model)
            units = alive(step.model) if alive else audible
            text = f"epoch {epoch + 1}/{epochs}, error {100 * figures['error']:.2f} %"
            if units:
                text += f", units {'-'.join(str(np.sum(unit)) for unit in units.values())}"
            bar.set_postfix_str(text, refresh=False)
            bar.update(last - first)
            if last == step.steps:
                with _summaries(summaries_dir), writer.as_default(epoch + 1):
                    for name, value in figures.items():
                        tf.summary.scalar(name, value)
                    tf.summary.scalar("accuracy", 1 - figures["error"])
                    for name, unit in units.items():
                        tf.summary.scalar(f"units/{name}", np.sum(unit))
                    for name, value in (measure(step.model) if measure and chief else {}).items():
                        tf.summary.scalar(name, value)
                total = np.zeros(len(FIGURES))
                under = {name: (under[name] + 1) * ~unit for name, unit in audible.items()}
                if shrink_every and (epoch + 1) % shrink_every == 0 and done < epochs * step.steps:
                    step, under = _smaller(step, under, shrink_every, images, epochs, strategy, settings)
            if last == step.steps or signals.received or time.time() - saved > SECONDS_BETWEEN_CHECKPOINTS:
                save()
                saved = time.time()
            if signals.received:
                saved_in = f", saved in {folder}" if chief else ""
                print(f"stopped at step {done}{saved_in}; the same command goes on from there", file=sys.stderr)
                sys.exit(128 + signals.received)
    return step.model, seconds + time.time() - start


def network(arrays):
    """The network of a training checkpoint, as `checkpoint.latest` reads it: noise, dead units and all."""
    model = keras.models.model_from_json(str(arrays["config"]))
    for v in _weights(model):
        v.assign(arrays[f"model/{v.path}"])
    return model


def _smaller(step, under, epochs_under, images, epochs, strategy, settings):
    """The step of the network without the units that were dead for so many epochs, in the same state.

    The same step where they are no tenth of the multiply-adds: a new graph takes the time of hundreds of steps to make.
    """
    dead = {name: count >= epochs_under for name, count in under.items()}
    if not any(units.any() for units in dead.values()):
        return step, under
    with strategy.scope():
        model, origin = pruning.take_out(step.model, dead)
    if cost.multiply_adds(model) > 0.9 * cost.multiply_adds(step.model):
        return step, under
    smaller = Step(model, *images, epochs=epochs, strategy=strategy, **settings)
    state = step.state()
    for _, old, index in origin:
        # A weight, and the moments that Adam keeps of it.
        slots = [f"{old.path.replace('/', '_')}_{slot}" for slot in ("momentum", "velocity")]
        for name in state:
            if name == f"model/{old.path}" or name.split("/")[-1] in slots:
                state[name] = state[name][index]
        under = {name: count[index] if old.path == f"{name}/mu" else count for name, count in under.items()}
    smaller.restore(state)
    return smaller, under


@contextlib.contextmanager
def _summaries(folder):
    """One line for a folder of summaries that cannot be written."""
    try:
        yield
    except tf.errors.OpError as error:
        raise UserError(f"cannot write summaries in {folder} ({error}); give another --summaries_dir") from None


@contextlib.contextmanager
def _reading(folder):
    """One line for what a checkpoint that is whole, but not of this run, makes Python and Keras raise."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"the checkpoint in {folder} is not of this run ({error}); give another --checkpoints_dir"
        ) from None


def _network(arrays, whole):
    """The network of a checkpoint: `whole`, or what `pruning.take_out` left of it."""
    model = networks.from_config(str(arrays["config"]), sum(array.nbytes for array in arrays.values()))
    kinds = {type(op).__name__ for op in model.operations}
    known = {type(op).__name__ for op in whole.operations}
    known |= {"Conv2D", "Dense", "Flatten", "Rescaling", "Reshape", "Take"}
    if not kinds <= known or model.input_shape != whole.input_shape or model.output_shape != whole.output_shape:
        raise ValueError("its network is another one")
    return model


def _progress(arrays, step, epochs):
    """How far a checkpoint's run was: steps done, sums of the epoch, seconds, and epochs under the threshold."""
    if arrays.get("steps", step.steps) != step.steps:
        raise ValueError(f"it had {arrays['steps']} steps an epoch, not {step.steps}, with another number of towers")
    model = step.model
    done, total, seconds = arrays["done"], arrays["total"], arrays["seconds"]
    under = {layer.name: arrays[f"under/{layer.name}"] for layer in _noise(model)}
    counts = [(done, [()]), *((under[layer.name], [(), layer.mu.shape]) for layer in _noise(model))]
    if not all(count.dtype.kind == "i" and count.shape in shapes and (count >= 0).all() for count, shapes in counts):
        raise ValueError("its counts cannot be right")
    if (
        done > epochs * step.steps
        or total.shape != (len(FIGURES),)
        or not np.isfinite(total).all()
        or not np.isfinite(seconds)
    ):
        raise ValueError("its progress cannot be right")
    return int(done), total, float(seconds), under


def _weights(model):
    """All variables but the seeds: each step brings its own."""
    seeds = {id(layer.seed_generator.state) for layer in model.layers if hasattr(layer, "seed_generator")}
    return [v for v in model.variables if id(v) not in seeds]


def _statistics(model):
    """The moving means and variances of the layers of batch normalisation that are not frozen."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


def _readers(model, batch_size):
    """[(noise layer, the layer that reads its units, whether its kernel is smaller)]: the same products in less time.

    Where the operations are a chain, and a Dense layer or a convolution reads the units: if its kernel is smaller than
    their values in a batch, theta multiplies it instead of them. If they are the images', which need no gradient, a
    larger kernel tells theta's (`_carrying`).
    """
    if not all(after.input is before.output for before, after in itertools.pairwise(model.operations)):
        return []
    readers, of_images = [], True
    for before, after in itertools.pairwise(model.operations):
        if isinstance(before, sbp.SBP) and type(after) in (keras.layers.Dense, keras.layers.Conv2D):
            smaller = math.prod(after.kernel.shape) < batch_size * math.prod(before.output.shape[1:])
            if (of_images or smaller) and after.kernel.shape[-2] == before.output.shape[-1]:
                readers.append((before, after, smaller))
        of_images = of_images and not getattr(before, "weights", [])
    return readers


@tf.custom_gradient
def _carrying(theta, kernel):
    """The kernel, with a gradient for the theta of its inputs as well, which may then be held.

    The loss knows no more of both than their product, so that each times its derivative is the same sum.
    """

    def gradient(by_kernel):
        others = [axis for axis in range(len(kernel.shape)) if axis != len(kernel.shape) - 2]
        return tf.reduce_sum(kernel * by_kernel, others) / theta, by_kernel

    return tf.identity(kernel), gradient


def _noise(model):
    return [layer for layer in model.layers if hasattr(layer, "multiplier")]


def _audible(model):
    """{noise layer's name: (units,) bool, whether the unit's signal is above its noise}."""
    return {layer.name: np.asarray(layer.multiplier()) != 0 for layer in _noise(model)}


class _Signals:
    """Notes SIGINT and SIGTERM instead of being ended by them."""

    def __enter__(self):
        self.received = 0
        self.before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number, frame):
        self.received = number

    def __exit__(self, *_):
        for number, handler in self.before.items():
            signal.signal(number, handler)

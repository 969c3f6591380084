"""The training loop: class-balanced losses, early stopping, the best epoch's weights.

Experts see a curated mix, about 40% positive, and how rare positives are in the traffic is unknown:
so losses are class-balanced. No prior-shift correction: within a class the curated ads are no
random sample, and correcting by log-odds costs half of the agreement.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from models import bert
from models.trained import Epoch
from models.training.data import TrainingSettings
from models.training.threshold import choose_threshold
from pipelines.console.progress import step

LEARNING_RATES = {"llm": 5e-4, "encoder": 5e-5}
# Of a linear head on unit vectors; why it is fixed is said where heads are fitted.
INVERSE_PENALTY = 1.0
_GRADIENT_NORM = 1.0
# Rows of a scoring batch, and batches sorted by length together.
_SCORE_ROWS = 32
_SORTED_TOGETHER = 4

Report = Callable[[Epoch], None]


def class_weights(labels: np.ndarray) -> np.ndarray:
    """Weigh ads so that both classes count alike and the mean weight is 1; float32 (n,)."""
    positive = float(labels.mean())
    weights = np.where(labels == 1, 0.5 / positive, 0.5 / (1.0 - positive))
    return weights.astype(np.float32)


def balanced_loss(margins: np.ndarray, labels: np.ndarray) -> float:
    """Return the mean class-balanced cross-entropy of margins (n,), in nats."""
    signed = np.where(labels == 1, -margins, margins).astype(np.float64)
    return float(np.mean(class_weights(labels) * np.logaddexp(0.0, signed)))


def refined_loss(margins: np.ndarray, labels: np.ndarray) -> float:
    """Return the balanced loss of margins (n,) after the best rescaling and shift, in nats.

    It tells how well the margins rank. The plain loss mostly tells how confident a model has
    become: on 300 headlines it rose from the first epoch on while agreement on unseen ads rose too.

    Source: Berta, Holzmüller, Jordan and Bach, "Rethinking early stopping: refine, then
    calibrate", 2025. The scale is shrunk a little, or it were infinite where nothing overlaps.
    """
    wide = np.asarray(margins, np.float64)
    spread = float(wide.std())
    column = ((wide - wide.mean()) / (spread if spread > 0 else 1.0))[:, None]
    return balanced_loss(logistic(column, labels).decision_function(column), labels)


def logistic(vectors: np.ndarray, labels: np.ndarray) -> Any:
    """Fit scikit-learn's class-balanced logistic regression on float64 (n, dim)."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    # Many small problems: more threads would only wait for each other, and change sums.
    with threadpool_limits(1):
        model = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=2000)
        return model.fit(vectors, labels)


class Learner(Protocol):
    """What the training loop needs of a model."""

    variables: list[Any]

    def margins(self, tokens: Any, n_tokens: Any) -> Any:
        """Differentiable float32 (rows,) from int32 (rows, length) and (rows,)."""
        ...


@dataclass(frozen=True, slots=True)
class Fitted:
    """What the training loop found.

    Attributes:
        epochs: in order.
        best: number of the epoch whose weights the variables now hold.
        margins: float32 (n_validation,), its validation scores.
    """

    epochs: tuple[Epoch, ...]
    best: int
    margins: np.ndarray


def fit(
    learner: Learner,
    ids: Sequence[Sequence[int]],
    labels: np.ndarray,
    held: np.ndarray,
    settings: TrainingSettings,
    report: Report,
) -> Fitted:
    """Train until the validation loss stops falling; leaves the best epoch's weights in place.

    The refined loss decides, not kappa: on a few dozen ads kappa jumps and ties.
    """
    import tensorflow as tf

    rate = settings.learning_rate or LEARNING_RATES[settings.learner]
    optimizer = _adam(rate)
    optimizer.build(learner.variables)
    weights = class_weights(labels)

    def descend(tokens: Any, n_tokens: Any, target: Any, weight: Any) -> Any:
        with tf.GradientTape() as tape:
            margin = learner.margins(tokens, n_tokens)
            losses = tf.nn.sigmoid_cross_entropy_with_logits(target, margin) * weight
            loss = tf.reduce_mean(losses)
        found = tape.gradient(loss, [v.value for v in learner.variables])
        optimizer.apply([tf.convert_to_tensor(g) for g in found], learner.variables)
        return tf.reduce_sum(losses)

    # Shapes are left open: each function is traced once, for all batches.
    signature = [tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    column = tf.TensorSpec([None], tf.float32)
    learn = tf.function(descend).get_concrete_function(*signature, column, column)
    score = tf.function(learner.margins).get_concrete_function(*signature)

    def scores(places: np.ndarray, advance: Callable[[float], None]) -> np.ndarray:
        found = np.empty(len(places), np.float32)
        order = np.argsort([len(ids[i]) for i in places], kind="stable")
        for start in range(0, len(order), _SCORE_ROWS):
            chosen = order[start : start + _SCORE_ROWS]
            found[chosen] = score(*_tensors([ids[i] for i in places[chosen]])).numpy()
            advance(len(chosen))
        return found

    fitting, validation = np.flatnonzero(~held), np.flatnonzero(held)
    epochs: list[Epoch] = []
    best, best_values, best_margins = 0, [], np.empty(0, np.float32)
    # One step for all epochs: what a person waits for is their end, which may come earlier.
    with step("epoch 1", settings.max_epochs * len(ids)) as advance:
        for number in range(1, settings.max_epochs + 1):
            started = time.monotonic()
            total = 0.0
            advance.words = f"epoch {number} of at most {settings.max_epochs}, ads"
            for chosen in _batches(fitting, ids, settings.batch_size, settings.seed, number):
                target = tf.constant(labels[chosen], tf.float32)
                batch = _tensors([ids[i] for i in chosen])
                total += float(learn(*batch, target, tf.constant(weights[chosen])))
                advance(len(chosen))
            found = scores(validation, advance)
            if not (np.isfinite(total) and np.isfinite(found).all()):
                raise FloatingPointError(
                    f"epoch {number}: the loss is not a number; lower learning_rate ({rate:g}) or use "
                    "float32"
                )
            loss = refined_loss(found, labels[validation])
            epoch = Epoch(
                number,
                total / len(fitting),
                loss,
                choose_threshold(found, labels[validation]).best_kappa,
                round(time.monotonic() - started, 3),
            )
            epochs.append(epoch)
            report(epoch)
            if not best or loss < epochs[best - 1].validation_loss:
                best, best_margins = number, found
                best_values = [np.asarray(v.numpy()) for v in learner.variables]
            elif number - best >= settings.patience:
                break
    for variable, value in zip(learner.variables, best_values, strict=True):
        variable.assign(value)
    return Fitted(tuple(epochs), best, best_margins)


def _adam(learning_rate: float) -> Any:
    import keras

    class Adam(keras.optimizers.Adam):
        """Keras's Adam without its call into ``tf.distribute``.

        That call keeps every traced graph, and with it all variables, for as long as the process
        lives: 0.2 GB a training of the embedded encoder. The arithmetic is the same to the bit.
        """

        def _backend_update_step(
            self, grads: Sequence[Any], trainable_variables: Sequence[Any], learning_rate: Any
        ) -> None:
            for gradient, variable in zip(grads, trainable_variables, strict=True):
                self.update_step(gradient, variable, learning_rate)

    return Adam(learning_rate, global_clipnorm=_GRADIENT_NORM)


def _batches(
    places: np.ndarray, ids: Sequence[Sequence[int]], size: int, seed: int, epoch: int
) -> Iterator[np.ndarray]:
    """Shuffle ads into batches; those of a few batches are sorted by length to save padding."""
    rng = np.random.default_rng([seed & 0xFFFFFFFF, epoch])
    shuffled = rng.permutation(places)
    batches = []
    for start in range(0, len(shuffled), size * _SORTED_TOGETHER):
        together = shuffled[start : start + size * _SORTED_TOGETHER]
        together = together[np.argsort([len(ids[i]) for i in together], kind="stable")]
        batches += [together[i : i + size] for i in range(0, len(together), size)]
    for index in rng.permutation(len(batches)):
        yield batches[index]


def _tensors(ids: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Lay ids out as int32 tensors (rows, length) and (rows,), as long as the longest."""
    import tensorflow as tf

    tokens, n_tokens = bert.lay_out(ids, len(ids), max(len(own) for own in ids))
    return tf.constant(tokens), tf.constant(n_tokens)

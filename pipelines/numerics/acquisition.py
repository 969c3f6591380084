"""How much a label would teach: what query strategies make of probabilities, ad by ad.

Two classes throughout. A score is a function of its own row alone, bit for bit, whatever the block, so that
a corpus may be scored in any parts.
"""

from __future__ import annotations

import numpy as np
from scipy.special import expit, rel_entr, xlogy

_ROWS_PER_CHUNK = 4096
# A probability of 0 or 1 has no finite divergence from any other.
_LEAST = 1e-7


def linear_margins(vectors: np.ndarray, kernels: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Return what linear heads say of each row, log-odds, float64 (n, m).

    Args:
        vectors: float32 (n, dim).
        kernels: float (m, dim).
        biases: float (m,).

    Memory: the result, and 4096 * dim * 8 bytes.
    """
    wide = np.ascontiguousarray(kernels, dtype=np.float64)
    out = np.empty((len(vectors), len(wide)), dtype=np.float64)
    for start in range(0, len(vectors), _ROWS_PER_CHUNK):
        block = vectors[start : start + _ROWS_PER_CHUNK].astype(np.float64)
        for head, (kernel, bias) in enumerate(zip(wide, biases, strict=True)):
            # Not a matrix product: that rounds a row differently in another block.
            product = np.einsum("ij,j->i", block, kernel)
            out[start : start + len(block), head] = product + bias
    return out


def entropy(share: np.ndarray) -> np.ndarray:
    """Return the entropy of two classes of which one has this share, nats, float64 of the same shape."""
    return -(xlogy(share, share) + xlogy(1.0 - share, 1.0 - share))


def vote_entropy(margins: np.ndarray) -> np.ndarray:
    """Return how divided the votes of a committee are, nats, float64 (n,).

    Args:
        margins: float (n, m), log-odds of each member; it votes for positive from 0 on.

    Source: Dagan and Engelson, Committee-based sampling for training probabilistic classifiers, ICML 1995.
    """
    return entropy((margins >= 0.0).sum(axis=1) / margins.shape[1])


def mutual_information(margins: np.ndarray) -> np.ndarray:
    """Return what a label would tell of which member is right, nats, float64 (n,), at least 0.

    The entropy of the members' mean less their mean entropy, which is the mean Kullback-Leibler divergence
    of the members from their mean.

    Args:
        margins: float (n, m), log-odds of each member.

    Source: Houlsby and others, Bayesian active learning for classification and preference learning, 2011;
    as divergence to the mean: McCallum and Nigam, Employing EM and pool-based active learning, ICML 1998.
    """
    share = expit(margins)
    return np.maximum(entropy(share.mean(axis=1)) - entropy(share).mean(axis=1), 0.0)


def mean_divergence(near: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return the mean Kullback-Leibler divergence of neighbours' probabilities from one's own, nats.

    Args:
        near: float (n, k), each row's neighbours' probability of positive.
        own: float (n,).

    Returns:
        float64 (n,), at least 0.
    """
    p = np.clip(near, _LEAST, 1.0 - _LEAST)
    q = np.clip(own, _LEAST, 1.0 - _LEAST)[:, None]
    return (rel_entr(p, q) + rel_entr(1.0 - p, 1.0 - q)).mean(axis=1)


def gradient_length(margins: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return the expected length of a logistic head's gradient at a new label, float64 (n,).

    The gradient of the log loss is (p - y)(x, 1): for a label drawn by p its expected length is
    2 p (1 - p) |(x, 1)|.

    Args:
        margins: float (n,), log-odds.
        vectors: float32 (n, dim).

    Source: Settles, Craven and Ray, Multiple-instance active learning, NIPS 2007.
    """
    share = expit(margins)
    lengths = np.empty(len(vectors), dtype=np.float64)
    for start in range(0, len(vectors), _ROWS_PER_CHUNK):
        block = vectors[start : start + _ROWS_PER_CHUNK].astype(np.float64)
        lengths[start : start + len(block)] = np.einsum("ij,ij->i", block, block)
    return 2.0 * share * (1.0 - share) * np.sqrt(lengths + 1.0)

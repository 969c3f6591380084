"""Uniform orders that depend on content and seed alone.

A sample of "the rows with the smallest hash" is the same whatever the order of the rows, the number
of shards or the machine, and the samples of two shards merge by taking the smallest again (bottom-k
sampling).
"""

import hashlib
from collections.abc import Sequence

import numpy as np

KEY_CHARS = 32
_GAMMA = 0x9E3779B97F4A7C15
# Rows let through beyond the wanted sample, so that the exact cut finds enough.
_SLACK_SIGMAS = 6.0


def ranks(keys: Sequence[str], seed: int) -> np.ndarray:
    """Give every content hash its place in an order drawn by `seed`.

    The finaliser is a bijection of the first 64 bits of a key, so two keys tie only when they share
    those bits; callers that need a total order break ties by the key itself.

    Args:
        keys: n lower-case hexadecimal content hashes of 32 characters.
        seed: any integer; another seed gives another, unrelated order.

    Returns:
        uint64 array (n,), uniform over [0, 2**64).

    Raises:
        ValueError: if a key is not 32 lower-case hexadecimal characters.

    Memory: about 100 bytes a key. Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
    """
    return _splitmix64(_words(keys) ^ np.uint64(_mix(seed)))


def turned(keys: Sequence[str], seed: int) -> np.ndarray:
    """Give every content hash its place in the order of the hashes, begun at one drawn by `seed`.

    A sample by it is as random as one by :func:`ranks`, for the keys are hashes; and what is stored in
    the order of its keys need be read only where it lies. The samples of two seeds may overlap.

    Args, returns and raises as :func:`ranks`.
    """
    return _words(keys) - np.uint64(_mix(seed))


def _words(keys: Sequence[str]) -> np.ndarray:
    """Return the first 64 bits of each key."""
    joined = "".join(keys)
    try:
        raw = bytes.fromhex(joined)
    except ValueError:
        raw = b""
    if raw.hex() != joined or not set(map(len, keys)) <= {KEY_CHARS}:
        bad = next(key for key in keys if not _is_key(key))
        raise ValueError(
            f"keys must be {KEY_CHARS} lower-case hexadecimal characters, got {bad!r}: "
            "pass the ads' content hashes, not their own ids"
        )
    return np.frombuffer(raw, dtype=">u8").reshape(-1, 2)[:, 0].astype(np.uint64)


def unit_hash(text: str, seed: int) -> float:
    """Hash a text to a uniform number in [0, 1) that depends on text and seed alone.

    Args:
        text: any string, lone surrogates included.
        seed: any integer.

    Returns:
        A multiple of 2**-53. Source: BLAKE2b (RFC 7693), 64-bit digest.
    """
    digest = hashlib.blake2b(f"{seed}\0".encode(), digest_size=8)
    digest.update(text.encode("utf-8", "surrogatepass"))
    return (int.from_bytes(digest.digest(), "big") >> 11) * 2.0**-53


def sample_limit(wanted: int, population: int) -> float:
    """Return the rank (as a share of all ranks) below which the sample surely lies.

    Ranks are uniform, so the number of rows below a share is binomial; six standard deviations
    above the wanted number, too few rows come once in 10^9 samples (and are still a sample).
    """
    if population <= wanted:
        return 1.0
    enough = wanted + _SLACK_SIGMAS * wanted**0.5 + 10
    return min(1.0, enough / population)


def below(ranks: np.ndarray, limit: float) -> np.ndarray:
    """Return which uint64 ranks lie below a share of all ranks, bool of the same shape."""
    if limit >= 1.0:
        return np.ones(ranks.shape, dtype=bool)
    return ranks < np.uint64(limit * 2.0**64)


def lowest_ranks(keys: Sequence[str] | np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Return the indices of the ``wanted`` rows of lowest rank, in key order."""
    return _lowest(keys, ranks(list(keys), seed), wanted)


def first_turned(keys: Sequence[str] | np.ndarray, wanted: int, seed: int) -> np.ndarray:
    """Return the indices of the first ``wanted`` rows by :func:`turned`, in key order."""
    return _lowest(keys, turned(list(keys), seed), wanted)


def _lowest(keys: Sequence[str] | np.ndarray, places: np.ndarray, wanted: int) -> np.ndarray:
    order = np.argsort(places, kind="stable")[:wanted]
    return order[np.argsort(np.asarray(keys)[order], kind="stable")]


def key_order(keys: Sequence[str]) -> np.ndarray:
    """Number the keys in their order: equal keys get equal numbers, int64 (n,)."""
    if not len(keys):
        return np.empty(0, dtype=np.int64)
    return np.unique(np.asarray(keys, dtype=np.str_), return_inverse=True)[1].astype(np.int64)


def _is_key(key: str) -> bool:
    return len(key) == KEY_CHARS and not set(key) - set("0123456789abcdef")


def _mix(seed: int) -> int:
    # Hashing the seed keeps neighbouring seeds from giving orders that differ by a few bits only.
    return int.from_bytes(hashlib.blake2b(str(seed).encode(), digest_size=8).digest(), "big")


def _splitmix64(state: np.ndarray) -> np.ndarray:
    z = state + np.uint64(_GAMMA)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))

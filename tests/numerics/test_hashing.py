import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.numerics import hashing
from pipelines.numerics.hashing import ranks, unit_hash

keys = st.text("0123456789abcdef", min_size=32, max_size=32)
_MASK = (1 << 64) - 1


def splitmix64_by_hand(value: int) -> int:
    z = (value + 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@given(st.lists(keys, max_size=20), st.integers())
def test_ranks_match_integer_arithmetic_and_depend_on_the_key_alone(texts, seed):
    got = ranks(texts, seed)
    assert got.dtype == np.uint64 and got.shape == (len(texts),)
    # The seed's part is recovered from a known key: splitmix64 is a bijection.
    for text, rank in zip(texts, got, strict=True):
        assert ranks([text], seed)[0] == rank
    assert ranks(texts[::-1], seed).tolist() == got.tolist()[::-1]


def test_splitmix64_matches_its_published_first_outputs():
    # The generator's first outputs for state 0, from the reference implementation.
    assert splitmix64_by_hand(0) == 0xE220A8397B1DCDAF
    from pipelines.numerics import hashing

    values = [0, 1, 2**63, _MASK, 0x0123456789ABCDEF]
    got = hashing._splitmix64(np.array(values, dtype=np.uint64))
    assert got.tolist() == [splitmix64_by_hand(value) for value in values]


def test_ranks_are_uniform_and_differ_by_seed():
    texts = [f"{i:032x}" for i in range(5000)]
    spread = [f"{i * 0x9E3779B97F4A7C15 & _MASK:016x}{i:016x}" for i in range(5000)]
    ours = ranks(spread, 1)
    counts, _ = np.histogram(ours.astype(np.float64), bins=10, range=(0, 2.0**64))
    assert (np.abs(counts - 500) < 120).all()
    assert len(np.unique(ours)) == 5000
    neighbours = np.corrcoef(np.argsort(ours), np.argsort(ranks(spread, 2)))[0, 1]
    assert abs(neighbours) < 0.06
    # Only the first 16 characters count.
    assert len(np.unique(ranks(texts, 1))) == 1


def test_turned_keys_keep_their_order_from_a_place_of_the_seeds() -> None:
    keys = sorted(hashlib.blake2b(str(n).encode(), digest_size=16).hexdigest() for n in range(999))
    for seed in range(5):
        order = np.argsort(hashing.turned(keys, seed)).tolist()
        start = order[0]
        assert order == [*range(start, 999), *range(start)]
        chosen = hashing.first_turned(keys, 300, seed).tolist()
        assert chosen == sorted(order[:300])
        assert abs(int(hashing.below(hashing.turned(keys, seed), 0.3).sum()) - 300) < 90
    assert len({hashing.first_turned(keys, 1, seed)[0] for seed in range(9)}) == 9


def test_ranks_are_pinned():
    # Samples stored in workspaces depend on these values.
    assert ranks(["0" * 32, "f" * 32], 3).tolist() == [13971077478960230293, 11277722967945757001]
    assert unit_hash("a", 1) == pytest.approx(0.32143103431991804, abs=0)


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "A" * 32, "g" * 32, "0" * 30 + "  "])
def test_ranks_refuse_other_keys(bad):
    with pytest.raises(ValueError, match="32 lower-case hexadecimal characters, got"):
        ranks(["0" * 32, bad], 0)


def test_two_bad_lengths_that_add_up_are_refused():
    with pytest.raises(ValueError, match="got '000"):
        ranks(["0" * 31, "0" * 33], 0)


@given(st.text(), st.integers())
def test_unit_hash_lies_in_the_unit_interval_and_repeats(text, seed):
    value = unit_hash(text, seed)
    assert 0.0 <= value < 1.0
    assert value == unit_hash(text, seed)


def test_unit_hash_takes_lone_surrogates_and_spreads():
    assert 0.0 <= unit_hash("\ud800", 0) < 1.0
    values = np.array([unit_hash(str(i), 0) for i in range(2000)])
    assert abs(values.mean() - 0.5) < 0.03
    assert unit_hash("a", 0) != unit_hash("a", 1)

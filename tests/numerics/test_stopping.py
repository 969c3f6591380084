import json
import re
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pipelines.numerics.agreement import Bootstrap, expert_agreement, model_agreement
from pipelines.numerics.stopping import (
    Difference,
    StoppingRule,
    decide,
    gap_to_experts,
    paired_difference,
)

N = 200
QUICK = Bootstrap(n_boot=200)


def loop(errors, n=N, n_raters=3, expert_error=0.05, seed=0):
    """Models that err on nested sets of ads: a lower error rate is never worse on any ad."""
    rng = np.random.default_rng(seed)
    gold = rng.random(n) < 0.4
    ratings = np.column_stack([gold ^ (rng.random(n) < expert_error) for _ in range(n_raters)])
    hard = rng.random(n)
    return np.array([gold ^ (hard < error) for error in errors]), ratings.astype(np.int8)


def ask(errors, rule=None, n_labels=100, rounds=None, **options):
    predictions, ratings = loop(errors, **options)
    rounds = range(len(errors)) if rounds is None else rounds
    return decide(
        list(rounds),
        predictions,
        ratings,
        rule or StoppingRule(),
        n_labels=n_labels,
        bootstrap=QUICK,
    )


ratings_and_models = st.integers(1, 40).flatmap(
    lambda n: st.tuples(
        hnp.arrays(np.int8, (n, 3), elements=st.integers(-1, 1)),
        hnp.arrays(np.int8, (2, n), elements=st.integers(0, 1)),
    )
)


@given(ratings_and_models)
def test_differences_are_those_of_the_two_agreements(drawn):
    ratings, (a, b) = drawn
    options = Bootstrap(4, 60)
    paired = paired_difference(a, b, ratings, options)
    first, second = (model_agreement(x, ratings, options) for x in (a, b))
    if first.n_pairs == second.n_pairs == 3:
        assert paired.value == pytest.approx(first.value - second.value)
        assert (paired.first, paired.second) == (first.value, second.value)
        assert paired.n_ads == first.n_ads
    elif first.value is None or second.value is None:
        assert paired.value is None and "kappa is undefined: " in paired.reason
    # Who labelled an ad alone says nothing about the experts: such ads leave both means.
    twice = (ratings != -1).sum(axis=1) >= 2
    gap = gap_to_experts(a, ratings, options)
    model = model_agreement(a[twice], ratings[twice], options)
    experts = expert_agreement(ratings[twice], options)
    if model.value is None or experts.value is None:
        assert gap.value is None and gap.low is None and gap.n_ads == 0
        assert gap.reason.endswith(experts.reason if experts.value is None else model.reason)
    else:
        assert gap.value == pytest.approx(model.value - experts.value)
        assert gap.low is None or gap.low <= gap.high


@given(ratings_and_models)
def test_the_difference_is_antisymmetric_and_nothing_to_itself(drawn):
    ratings, (a, b) = drawn
    options = Bootstrap(4, 60)
    ours = paired_difference(a, b, ratings, options)
    same = paired_difference(a, a, ratings, options)
    if ours.value is None:
        assert paired_difference(b, a, ratings, options).value is None
    else:
        assert paired_difference(b, a, ratings, options).value == -ours.value
    assert same.value in (None, 0.0) and same.low in (None, 0.0) and same.high in (None, 0.0)


def test_pairing_makes_the_interval_narrow():
    predictions, ratings = loop([0.20, 0.15])
    paired = paired_difference(predictions[1], predictions[0], ratings)
    apart = [model_agreement(row, ratings) for row in predictions]
    # The models differ on one ad in twenty: what they share cancels, resample by resample.
    assert paired.low > 0
    assert paired.high - paired.low < 0.7 * max(one.high - one.low for one in apart)
    assert apart[0].high > apart[1].low
    assert paired == paired_difference(predictions[1], predictions[0], ratings)
    assert (
        paired.low
        != paired_difference(predictions[1], predictions[0], ratings, Bootstrap(seed=1)).low
    )


def test_gap_has_the_sign_of_the_better_side():
    predictions, ratings = loop([0.30, 0.0], n=400)
    worse, better = (gap_to_experts(row, ratings) for row in predictions)
    assert worse.high < 0 < better.low
    # The experts err, the second model does not: it agrees with each better than they do together.
    assert better.first == pytest.approx(np.sqrt(better.second), abs=0.02)


def test_a_rater_counts_with_both_models_or_not_at_all():
    ratings = np.full((60, 2), -1, dtype=np.int8)
    ratings[:40, 0] = np.arange(40) % 2
    ratings[40:, 1] = 0
    mixed, zeros = np.arange(60) % 2, np.zeros(60, dtype=np.int8)
    # Rater 2 never says yes, so the second model, which does not either, has no kappa with him.
    found = paired_difference(mixed, zeros, ratings, QUICK)
    assert (found.first, found.second, found.n_ads) == (1.0, 0.0, 40)
    only = paired_difference(mixed, zeros, ratings[:, 1:], QUICK)
    assert only.value is None and only.reason.startswith("the second model's kappa is undefined: ")
    assert "all 20 ads negative" in only.reason
    # Each model is constant, each way with the rater the other cannot be compared with.
    split = np.column_stack(
        [np.where(np.arange(60) < 30, 0, -1), np.where(np.arange(60) < 30, -1, 1)]
    )
    ones = np.ones(60, dtype=np.int8)
    none = paired_difference(zeros, ones, split, QUICK)
    assert none.value is None and none.reason == "no rater has a defined kappa with both models"


def test_parity_is_told_with_its_numbers():
    got = ask([0.35, 0.15, 0.05])
    assert (got.stop, got.rule, got.best_round) == (True, "parity", 2)
    number = r"-?\d\.\d\d"
    signed = r"[+-]\d\.\d\d"
    assert re.fullmatch(
        rf"stopped at parity: the model of round 2 agrees with the experts at kappa {number} "
        rf"\[{number}, {number}\] and they with each other at {number}; the difference {signed} \[{signed}, {signed}\] reaches "
        r"zero on 200 evaluation ads",
        got.reason,
    )
    assert got.gap.high >= 0 and f"{got.gap.first:.2f}" in got.reason
    assert got.gap.first - got.gap.second == got.gap.value
    assert got.gap.second == pytest.approx(got.experts.value)
    assert got.gap.first == got.models[2].value and str(got.models[2]) in got.reason
    # Ads with one verdict leave the gap, and the interval of all ads with them.
    predictions, ratings = loop([0.35, 0.15, 0.05])
    ratings[:20, 1:] = -1
    fewer = decide([0, 1, 2], predictions, ratings, StoppingRule(), n_labels=9, bootstrap=QUICK)
    assert fewer.models[2].n_ads == 200 and fewer.gap.n_ads == 180
    assert re.search(rf"at kappa {fewer.gap.first:.2f} and they .* on 180 evaluation", fewer.reason)


def test_few_ads_call_neither_parity_nor_a_plateau():
    few = ask([0.05, 0.05, 0.05], n=60)
    assert few.gap.high >= 0 and few.gain.value == 0.0
    assert (few.stop, few.rule) == (False, "go on")
    assert (
        "60 evaluation ads with a verdict are too few to call parity or a plateau, which need 100"
        in (few.reason)
    )
    assert ask([0.05, 0.05, 0.05], StoppingRule(min_ads=60), n=60).rule == "parity"
    assert ask([0.3, 0.3, 0.3], StoppingRule(min_ads=60), n=60).rule == "plateau"


def test_parity_is_asked_of_the_model_to_use():
    got = ask([0.35, 0.05, 0.30])
    assert (got.rule, got.best_round) == ("parity", 1)
    assert got.gap.first == got.models[1].value > got.models[2].value
    assert ask([0.35, 0.30, 0.30]).gap.high < 0


def test_staying_above_asks_more_than_reaching():
    reaches = StoppingRule(parity_margin=0.1)
    above = StoppingRule(parity_margin=0.1, parity_test="stays above")
    # A model a little worse than an expert: on 200 ads a gap of 0.1 is neither shown nor excluded.
    assert ask([0.3, 0.09], reaches).rule == "parity"
    assert ask([0.3, 0.09], above).rule == "go on"
    sure = ask([0.3, 0.0], above)
    assert sure.rule == "parity" and "stays above -0.1 on 200 evaluation ads" in sure.reason
    assert "reaches -0.1 on 200" in ask([0.3, 0.09], reaches).reason


def test_a_parity_margin_forgives_a_gap():
    assert ask([0.4, 0.2]).rule == "go on"
    gap = ask([0.4, 0.2]).gap
    assert gap.high < 0
    assert ask([0.4, 0.2], StoppingRule(parity_margin=-gap.high + 1e-9)).rule == "parity"
    assert ask([0.4, 0.2], StoppingRule(parity_margin=-gap.high - 1e-3)).rule == "go on"


def test_a_plateau_compares_the_last_rounds_with_those_before():
    still = ask([0.30, 0.20, 0.20, 0.20])
    assert (still.stop, still.rule, still.best_round) == (True, "plateau", 1)
    assert still.reason.startswith(
        "stopped at a plateau: the best of the last 2 rounds, round 2, agrees with the experts at "
        "kappa 0."
    )
    assert "which is +0.00 [+0.00, +0.00] against round 1 on 200 evaluation ads" in still.reason
    assert (
        "where more than 0.01 would count; the best is the model of round 1 at kappa"
        in still.reason
    )
    # Round 2 is as good as round 1, but round 0, the last that is old enough, is worse.
    assert ask([0.30, 0.20, 0.20]).rule == "go on"
    # One bad round right after a large improvement is no plateau; two are.
    dip = ask([0.40, 0.30, 0.15, 0.30])
    assert dip.rule == "go on" and dip.gain.value > 0.1
    after = ask([0.40, 0.30, 0.15, 0.30, 0.30])
    assert (after.rule, after.best_round) == ("plateau", 2)
    # No gain at all is none above a margin of 0.
    assert ask([0.3, 0.3, 0.3], StoppingRule(margin=0.0)).rule == "plateau"
    # Creeping up by less than any interval goes on; the interval does not decide.
    creeping = ask([0.24, 0.23, 0.22, 0.21])
    assert creeping.rule == "go on" and creeping.gain.low < 0.01 < creeping.gain.value
    # More patience looks further back, a larger margin asks for more.
    assert ask([0.24, 0.23, 0.22, 0.21], StoppingRule(margin=0.2)).rule == "plateau"
    assert ask([0.3, 0.2, 0.2, 0.2], StoppingRule(patience=3)).rule == "go on"
    # Worse than before is no improvement either; the older model is the one to use.
    down = ask([0.40, 0.20, 0.25, 0.30])
    assert (down.rule, down.best_round) == ("plateau", 1) and down.gain.value < 0


def test_before_patience_runs_out_nothing_is_a_plateau():
    early = ask([0.3, 0.3])
    assert early.rule == "go on" and early.gain.value is None
    assert early.gain.reason == "no round is 2 rounds older than round 1"
    # Rounds are counted by their place: the first of a new policy version may have number 3.
    assert ask([0.3, 0.3], rounds=[0, 3]).rule == "go on"
    assert ask([0.3, 0.3, 0.3], rounds=[0, 3, 5]).rule == "plateau"
    assert ask([0.3, 0.3], StoppingRule(max_rounds=2), rounds=[0, 3]).rule == "go on"
    assert ask([0.3, 0.3], StoppingRule(max_rounds=1), rounds=[0, 3]).rule == "rounds"
    at_once = ask([0.3, 0.3], StoppingRule(patience=1))
    assert at_once.rule == "plateau"
    assert at_once.reason.startswith("stopped at a plateau: round 1 agrees with the experts at")


def test_budgets_count_whatever_the_ads_say():
    last = ask([0.4, 0.3, 0.2], StoppingRule(max_rounds=2))
    assert (last.stop, last.rule, last.best_round) == (True, "rounds", 2)
    assert last.reason.startswith(
        "stopped after round 2, 2 rounds of at most 2; the best is the model of round 2 at kappa 0."
    )
    assert ask([0.4, 0.3, 0.2], StoppingRule(max_rounds=3)).rule == "go on"
    spent = ask([0.4, 0.3, 0.2], StoppingRule(max_labels=100), n_labels=100)
    assert (spent.stop, spent.rule) == (True, "labels")
    assert spent.reason.startswith(
        "stopped at 100 expert labels of at most 100; the best is the model of round 2"
    )
    assert ask([0.4, 0.3, 0.2], StoppingRule(max_labels=101), n_labels=100).rule == "go on"
    assert ask([0.4, 0.2], StoppingRule(max_rounds=1), n=20).rule == "rounds"
    # Parity is named before the budget.
    assert ask([0.4, 0.05], StoppingRule(max_rounds=1)).rule == "parity"


def test_undefined_kappas_go_on_with_a_reason():
    predictions, ratings = loop([0.2, 0.2, 0.2])
    rule = StoppingRule()
    nobody = decide(
        [0, 1, 2],
        predictions,
        np.full_like(ratings, -1),
        rule,
        n_labels=0,
        bootstrap=Bootstrap(n_boot=100),
    )
    assert (nobody.stop, nobody.rule, nobody.best_round) == (False, "go on", 2)
    assert nobody.models[0].value is None and nobody.experts.value is None
    assert "0 evaluation ads with a verdict are too few" in nobody.reason
    assert nobody.gain.reason == "no round up to 0 has a defined kappa"
    negatives = decide(
        [0, 1, 2],
        np.zeros_like(predictions),
        np.zeros_like(ratings),
        rule,
        n_labels=0,
        bootstrap=Bootstrap(n_boot=100),
    )
    assert negatives.rule == "go on"
    assert negatives.reason.startswith(
        "go on after round 2: its kappa is undefined (the model and rater 1 call all 200 ads negative"
    )
    # One expert: no parity, but a plateau can be seen.
    alone = decide(
        [0, 1, 2], predictions, ratings[:, :1], rule, n_labels=0, bootstrap=Bootstrap(n_boot=100)
    )
    assert alone.rule == "plateau" and alone.gap.value is None
    assert alone.gap.reason == (
        "the experts' kappa is undefined: agreement needs at least 2 raters, got 1"
    )
    going = decide(
        [0, 1], predictions[:2], ratings[:, :1], rule, n_labels=0, bootstrap=Bootstrap(n_boot=100)
    )
    assert "against the experts undefined (the experts' kappa is undefined" in going.reason


def test_a_model_without_kappa_is_never_the_best():
    predictions, ratings = loop([0.2, 0.2])
    ratings[:, 1:] = -1
    ratings[:, 0] = 0
    predictions[1] = 0
    got = decide(
        [0, 1], predictions, ratings, StoppingRule(), n_labels=0, bootstrap=Bootstrap(n_boot=100)
    )
    # Against a rater who never says yes, the first model's kappa is 0; the second's is undefined.
    assert got.best_round == 0 and got.models[0].value == 0.0 and got.models[1].value is None
    assert got.reason.startswith("go on after round 1: its kappa is undefined")


def test_inverted_predictions_never_reach_parity():
    predictions, ratings = loop([0.05])
    rule = StoppingRule(parity_margin=0.5)
    assert decide([0], predictions, ratings, rule, n_labels=0, bootstrap=QUICK).rule == "parity"
    assert decide([0], ~predictions, ratings, rule, n_labels=0, bootstrap=QUICK).rule == "go on"


def test_decisions_go_to_json_and_repeat():
    got = ask([0.3, 0.2, 0.2, 0.2])
    back = json.loads(json.dumps(asdict(got)))
    assert back["rule"] == "plateau" and len(back["models"]) == 4
    assert back["models"][1]["value"] == got.models[1].value
    assert back["gap"]["n_ads"] == 200 and back["gain"]["first"] == got.gain.first
    assert back["experts"]["n_pairs"] == 3
    assert json.loads(json.dumps(asdict(got.gap))) == back["gap"]
    assert ask([0.3, 0.2, 0.2, 0.2]) == got


def test_differences_read_well():
    assert str(Difference(-0.001, -0.06, 0.05, "", 0.79, 0.791, 9)) == "+0.00 [-0.06, +0.05]"
    assert str(Difference(None, None, None, "no ads", None, None, 0)) == "undefined (no ads)"
    assert str(Difference(0.1, None, None, "few", 0.5, 0.4, 9)) == "+0.10 (no interval: few)"


def test_the_rule_stops_where_the_simulated_curve_ends():
    """Kappa .45 .62 .70 .76 .79 .80 on 60 ads a round more: the stop comes at the end, not before."""
    curve = [0.27, 0.19, 0.15, 0.12, 0.105, 0.10, 0.10, 0.10]
    stops = []
    for seed in range(12):
        predictions, ratings = loop(curve, n=480, expert_error=0.05, seed=seed)
        for latest in range(1, 8):
            n = 60 * (latest + 1)
            got = decide(
                list(range(latest + 1)),
                predictions[: latest + 1, :n],
                ratings[:n],
                # Parity would end most of these loops first; here the plateau is looked at.
                StoppingRule(max_rounds=7, parity_test="stays above", parity_margin=0.001),
                n_labels=0,
                bootstrap=Bootstrap(n_boot=40),
            )
            if got.stop:
                stops.append(latest)
                break
    assert min(stops) >= 3 and 5 <= np.median(stops) <= 7


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"margin": -0.1}, r"margin must lie in \[0, 1\]"),
        ({"margin": float("nan")}, r"margin must lie in \[0, 1\] on kappa's scale, got nan"),
        ({"parity_margin": 2.0}, r"parity_margin must lie in \[0, 1\]"),
        ({"patience": 0}, "patience must be at least 1, got 0"),
        ({"min_ads": 0}, "min_ads must be at least 1"),
        ({"max_rounds": 0}, "max_rounds must be at least 1"),
        ({"max_labels": 0}, "max_labels must be at least 1"),
        ({"parity_test": "touches"}, "'reaches' or 'stays above', got 'touches'"),
        ({"parity_test": "stays above"}, "needs a parity_margin above 0, got 0.0"),
    ],
)
def test_bad_rules_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        StoppingRule(**options)


@pytest.mark.parametrize(
    ("rounds", "shape", "n_labels", "match"),
    [
        ([], (0, 9), 0, "row for each of at least 1 round"),
        ([0, 1], (1, 9), 0, r"got \(1, 9\) for 2 rounds"),
        ([0], (9,), 0, r"got \(9,\) for 1 round$"),
        ([1, 0], (2, 9), 0, r"increasing numbers from 0 on, got \[1, 0\]"),
        ([0, 0], (2, 9), 0, r"got \[0, 0\]"),
        ([-1, 0], (2, 9), 0, r"got \[-1, 0\]"),
        ([0], (1, 8), 0, "got 8 labels for 9 ads"),
        ([0], (1, 9), -1, "n_labels must be at least 0, got -1"),
    ],
)
def test_bad_arguments_are_refused(rounds, shape, n_labels, match):
    with pytest.raises(ValueError, match=match):
        decide(
            rounds,
            np.zeros(shape, dtype=np.int8),
            np.zeros((9, 2), dtype=np.int8),
            StoppingRule(),
            n_labels=n_labels,
        )


def test_no_overlap_at_all_is_not_enough():
    ratings = np.zeros((9, 2), dtype=np.int8)
    for call in (
        lambda: paired_difference([0] * 9, [1] * 9, ratings, Bootstrap(min_overlap=0)),
        lambda: gap_to_experts([0] * 9, ratings, Bootstrap(min_overlap=0)),
    ):
        with pytest.raises(ValueError, match="min_overlap must be at least 1 ad, got 0"):
            call()


def few_positives(n_positive, n=N):
    """Two experts who agree, few positives; LLM-0 finds most by luck, the trained models half of them."""
    gold = np.arange(n) < n_positive
    most, half = np.arange(n) < n_positive - 2, np.arange(n) < n_positive // 2
    return np.array([most, half, half]).astype(np.int8), np.column_stack([gold, gold]).astype(
        np.int8
    )


def test_llm0_is_no_best_model_for_a_plateau_before_a_minimum_of_positives():
    predictions, ratings = few_positives(9)
    rule = StoppingRule(parity_test="stays above", parity_margin=0.1)
    found = decide(
        [0, 1, 2], predictions, ratings, rule, n_labels=0, bootstrap=Bootstrap(n_boot=200)
    )
    assert (found.stop, found.rule) == (False, "go on")
    assert found.gain.value is None
    assert found.gain.reason == (
        "only LLM-0 is older, and a plateau against it needs 10 evaluation ads of the rarer label; there "
        "are 9"
    )
    # A trained model of an earlier round is one, whatever the positives.
    longer = np.vstack([predictions, predictions[-1:]])
    found = decide([0, 1, 2, 3], longer, ratings, rule, n_labels=0, bootstrap=Bootstrap(n_boot=200))
    assert found.rule == "plateau" and "against round 1" in found.reason
    enough, ratings = few_positives(10)
    found = decide([0, 1, 2], enough, ratings, rule, n_labels=0, bootstrap=Bootstrap(n_boot=200))
    assert found.rule == "plateau" and "against round 0" in found.reason

"""Training: what it learns, what it refuses, and what its result may depend on."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from models.trainer import LabelledAds, TrainingDataError, TrainingSettings
from sklearn.metrics import cohen_kappa_score

from models import bert, lora, presets, trained, trainer
from models.prompting import PromptSpec
from pipelines.console.progress import Step, steps
from pipelines.numerics.calibration import MARGIN_STEP
from tests import helpers

WORDS = (
    *("win", "free", "miracle", "secret", "shocking", "prize"),
    *("museum", "library", "report", "budget", "terms", "minister"),
    *("the", "a", "today", "at", "near", "new", "old", "for", "street", "town", "with", "and"),
)
PROMPT = PromptSpec(
    policy="No clickbait.", question="Clickbait:", template="Headline: {ad}\n{question}"
)


def key_of(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()


def make_ads(n: int, seed: int = 1) -> LabelledAds:
    """Distinct ads, 40% of them loud."""
    rng = random.Random(seed)
    texts: dict[str, int] = {}
    for place in itertools.count():
        if len(texts) == n:
            break
        label = int(place % 5 < 2)
        telling = WORDS[:6] if label else WORDS[6:12]
        words = [*rng.sample(telling, 2), *rng.sample(WORDS[12:], rng.randrange(2, 7))]
        rng.shuffle(words)
        texts.setdefault(" ".join(words), label)
    return LabelledAds(
        tuple(key_of(t) for t in texts), tuple(texts), np.array(list(texts.values()), np.int8)
    )


def shuffled(ads: LabelledAds) -> LabelledAds:
    order = list(range(len(ads.keys)))
    random.Random(5).shuffle(order)
    return LabelledAds(
        tuple(ads.keys[i] for i in order),
        tuple(ads.texts[i] for i in order),
        ads.labels[order],
    )


@pytest.fixture(scope="session")
def encoder_preset(tmp_path_factory: pytest.TempPathFactory) -> str:
    return helpers.random_encoder(tmp_path_factory.mktemp("preset") / "tiny-bert", WORDS, 16)


@pytest.fixture(scope="session")
def llm_preset(tiny: presets.CausalLMBundle, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("preset") / "tiny-llama"
    presets.save_causal_lm(tiny, folder)
    return str(folder)


def settings(learner: str, preset: str, **changes: Any) -> TrainingSettings:
    values: dict[str, Any] = {
        "learner": learner,
        "preset": preset,
        "dtype": "float32",
        "max_epochs": 3,
        "prompt": PROMPT if learner == "llm" else None,
        "learning_rate": 5e-3,
        "max_ad_tokens": 20,
    }
    return TrainingSettings(**{**values, **changes})


def kappa(model: Path, manifest: trained.TrainedModel, ads: LabelledAds) -> float:
    called = trained.margins(model, ads.texts) >= manifest.threshold_margin
    return float(cohen_kappa_score(ads.labels, called.astype(int)))


# --- Learning ---------------------------------------------------------------------------------


# A head has 16 random dimensions for 24 words.
@pytest.mark.parametrize(("learner", "least"), [("head", 0.4), ("encoder", 0.7)])
def test_learns_what_the_labels_say(
    learner: str, least: float, encoder_preset: str, tmp_path: Path
) -> None:
    ads, unseen = make_ads(120), make_ads(80, seed=2)
    how = settings(learner, encoder_preset, max_epochs=4)
    manifest = trainer.train(ads, how, tmp_path / "m")
    assert kappa(tmp_path / "m", manifest, unseen) > least
    assert manifest.label_set_hash == trainer.label_set_hash(shuffled(ads))

    swapped = dataclasses.replace(ads, labels=(1 - ads.labels).astype(np.int8))
    other = trainer.train(swapped, how, tmp_path / "swapped")
    assert kappa(tmp_path / "swapped", other, unseen) < -0.4
    assert other.label_set_hash != manifest.label_set_hash
    assert other.model_id != manifest.model_id


def test_the_encoder_is_tuned_and_the_head_alone_is_not(
    encoder_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    base = presets.load_encoder(encoder_preset)
    trainer.train(ads, settings("encoder", encoder_preset, max_epochs=1), tmp_path / "e")
    tuned = trained.load_parts(tmp_path / "e").bundle
    assert isinstance(tuned, presets.EncoderBundle)
    moved = {
        w.path: float(np.abs(w.numpy() - v.numpy()).max())
        for w, v in zip(tuned.backbone.weights, base.backbone.weights, strict=True)
    }
    still = {path for path, change in moved.items() if not change}
    # Neither is part of the mean-pooled vector's way.
    assert still == {"pooled_dense/kernel", "pooled_dense/bias"}
    # No ad holds [MASK]: its row stays; "win" does not.
    table = [b.backbone.token_embedding.embeddings.numpy() for b in (tuned, base)]
    np.testing.assert_array_equal(table[0][4], table[1][4])
    assert (table[0][5] != table[1][5]).any()

    trainer.train(ads, settings("head", encoder_preset), tmp_path / "h")
    frozen = trained.load_parts(tmp_path / "h").bundle
    for w, v in zip(frozen.backbone.weights, base.backbone.weights, strict=True):  # type: ignore[union-attr]
        np.testing.assert_array_equal(w.numpy(), v.numpy())


@pytest.mark.model
def test_lora_lowers_the_loss_and_merges_to_the_same_scores(
    llm_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    how = settings("llm", llm_preset, max_epochs=4, patience=4, learning_rate=2e-2)
    lines: list[str] = []
    manifest = trainer.train(ads, how, tmp_path / "m", progress=lines.append)
    losses = [epoch.loss for epoch in manifest.epochs]
    assert losses[-1] < 0.8 * losses[0]
    assert len(lines) == len(losses) and "epoch 1 of at most 4: loss" in lines[0]
    # Adapters sit on queries and values, are the only thing saved, and changed the scores.
    names = set(trained.read_weights(tmp_path / "m", manifest))
    assert len(names) == 2 * 2 * 2
    assert all("query" in name or "value" in name for name in names)

    bundle = presets.load_causal_lm(llm_preset, "float32")
    run = lora.PromptPass(bundle, PROMPT, how.max_ad_tokens)
    before = score(run, ads.texts)
    tensors = trained.read_weights(tmp_path / "m", manifest)
    adapter = lora.Adapter(bundle.model.backbone, how.lora_rank, 0)
    np.testing.assert_array_equal(scoped(run, adapter, ads.texts), before)
    for variable, (_, value) in zip(adapter.variables, ordered(adapter, tensors), strict=True):
        variable.assign(value)
    after = scoped(run, adapter, ads.texts)
    assert np.abs(after - before).max() > 0.1
    np.testing.assert_allclose(
        trained.margins(tmp_path / "m", ads.texts), after, atol=MARGIN_STEP / 2 + 2e-3
    )


def ordered(adapter: lora.Adapter, tensors: dict[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
    return [(name, tensors[name]) for name in adapter.tensors()]


def score(run: lora.PromptPass, texts: tuple[str, ...]) -> np.ndarray:
    ids = run.encode(texts)
    tokens, n_tokens = bert.lay_out(ids, len(ids), max(map(len, ids)))
    return np.asarray(run.margins(tokens, n_tokens).numpy())


def scoped(run: lora.PromptPass, adapter: lora.Adapter, texts: tuple[str, ...]) -> np.ndarray:
    with adapter.scope():
        return score(run, texts)


# --- What the result may depend on ------------------------------------------------------------


@pytest.mark.parametrize("learner", ["head", "encoder"])
def test_order_changes_nothing_and_the_seed_does(
    learner: str, encoder_preset: str, tmp_path: Path
) -> None:
    ads = make_ads(60)
    how = settings(learner, encoder_preset, max_epochs=2)
    first = trainer.train(ads, how, tmp_path / "1")
    second = trainer.train(shuffled(ads), how, tmp_path / "2")
    assert first.weights_hash == second.weights_hash
    assert first.model_id == second.model_id
    assert first.threshold_margin == second.threshold_margin
    if learner == "encoder":
        third = trainer.train(ads, dataclasses.replace(how, seed=1), tmp_path / "3")
        assert third.weights_hash != first.weights_hash


@pytest.mark.model
def test_lora_repeats(llm_preset: str, tmp_path: Path) -> None:
    ads = make_ads(30)
    how = settings("llm", llm_preset, max_epochs=1)
    first = trainer.train(ads, how, tmp_path / "1")
    assert trainer.train(shuffled(ads), how, tmp_path / "2").weights_hash == first.weights_hash


def test_a_training_leaves_no_graph_behind(encoder_preset: str, tmp_path: Path) -> None:
    # A simulation trains dozens of times in one process; each graph would hold all its variables.
    def graphs() -> int:
        gc.collect()
        return sum(type(held).__name__ == "FuncGraph" for held in gc.get_objects())

    how = settings("encoder", encoder_preset, max_epochs=1)
    trainer.train(make_ads(60), how, tmp_path / "first")
    before = graphs()
    trainer.train(make_ads(60), how, tmp_path / "second")
    assert graphs() == before


def test_the_best_epoch_is_the_one_saved(encoder_preset: str, tmp_path: Path) -> None:
    # Steps this long spoil the model after its best epoch.
    ads = make_ads(60)
    how = settings("encoder", encoder_preset, max_epochs=8, patience=2, learning_rate=0.05)
    manifest = trainer.train(ads, how, tmp_path / "m")
    losses = [epoch.validation_loss for epoch in manifest.epochs]
    assert manifest.best_epoch == int(np.argmin(losses)) + 1
    assert len(losses) == min(8, manifest.best_epoch + 2)
    checked = trainer.check_ads(ads, how)
    held = trainer.draw_validation(checked, how.validation_share, how.seed)
    texts = [t for t, out in zip(checked.texts, held, strict=True) if out]
    loss = trainer.refined_loss(trained.margins(tmp_path / "m", texts), checked.labels[held])
    assert loss == pytest.approx(min(losses), abs=2 * MARGIN_STEP)


def test_validation_is_stratified_and_drawn_by_key() -> None:
    ads = trainer.check_ads(make_ads(100), settings("head", "x"))
    held = trainer.draw_validation(ads, 0.2, 0)
    assert held.sum() == 20 and ads.labels[held].sum() == 8
    chosen = {k for k, out in zip(ads.keys, held, strict=True) if out}
    assert chosen != {
        k for k, out in zip(ads.keys, trainer.draw_validation(ads, 0.2, 1), strict=True) if out
    }
    fold = trainer.draw_folds(ads, 5, 0)
    for number in range(5):
        assert (fold == number).sum() == 20
        assert ads.labels[fold == number].sum() == 8


def test_manifest_says_what_was_done(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(50)
    manifest = trainer.train(ads, settings("encoder", encoder_preset), tmp_path / "m")
    assert (manifest.fitting, manifest.validation) == (trained.Part(40, 16), trained.Part(10, 4))
    assert manifest.settings["learning_rate"] == 5e-3
    assert set(manifest.versions) >= {"keras", "tensorflow", "scikit-learn"}
    assert manifest.threshold_margin % MARGIN_STEP == 0
    assert 0 < manifest.threshold_probability < 1
    head = trainer.train(ads, settings("head", encoder_preset), tmp_path / "h")
    assert head.fitting == head.validation == trained.Part(50, 20)
    assert (head.epochs, head.best_epoch) == ((), 0)


# --- Progress ---------------------------------------------------------------------------------


def test_progress_and_tensorboard(
    encoder_preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: list[str] = []
    logs = tmp_path / "logs"
    live: list[list[Step]] = []

    def say(line: str) -> None:
        lines.append(line)
        live.append(steps())

    how = settings("encoder", encoder_preset, max_epochs=2)
    trainer.train(make_ads(30), how, tmp_path / "m", progress=say, logs=logs)
    assert [line[:19] for line in lines] == ["epoch 1 of at most ", "epoch 2 of at most "]
    assert [[one.words for one in seen] for seen in live] == [
        ["training tiny-bert", f"epoch {number} of at most 2, ads"] for number in (1, 2)
    ]
    assert [seen[1].done for seen in live] == [30, 60]
    assert steps() == []
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logs)).Reload()
    assert set(events.Tags()["tensors"]) == {"loss", "validation_loss", "validation_kappa"}
    assert [event.step for event in events.Tensors("loss")] == [1, 2]


def test_epochs_count_their_ads(
    encoder_preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float, float | None]] = []
    plain = trainer._tensors

    def watched(ids: Any) -> Any:
        seen.extend((one.words, one.done, one.total) for one in steps()[1:])
        return plain(ids)

    monkeypatch.setattr(trainer, "_tensors", watched)
    how = settings("encoder", encoder_preset, max_epochs=2)
    trainer.train(make_ads(30), how, tmp_path / "m")
    # Two batches of the 24 ads that are fitted, then the 6 that are held out.
    for number in (1, 2):
        done = [
            d - 30 * (number - 1)
            for words, d, total in seen
            if (words, total) == (f"epoch {number} of at most 2, ads", 60)
        ]
        assert len(done) == 3 and done[0] == 0 and done[1] in (8, 16) and done[2] == 24


def test_many_epochs_are_not_many_lines() -> None:
    lines: list[str] = []
    with trainer._Reporter(settings("encoder", "x", max_epochs=300), lines.append, None) as report:
        for number in range(1, 301):
            report(trained.Epoch(number, 0.5, 0.6, 0.7, 1.0))
    told = [int(line.split()[1]) for line in lines]
    assert told == [*range(1, 11), *range(20, 301, 10)]


# --- Refusals ---------------------------------------------------------------------------------


def change(**changes: Any) -> LabelledAds:
    return dataclasses.replace(make_ads(20), **changes)


@pytest.mark.parametrize(
    ("ads", "words"),
    [
        (LabelledAds((), (), np.zeros(0, np.int8)), "no labelled ads"),
        (change(labels=np.zeros(20, np.int8)), "0 of 20 labelled ads are positive"),
        (change(labels=np.ones(20, np.int8)), "0 of 20 labelled ads are negative"),
        (change(labels=np.arange(20) < 4), "4 of 20 labelled ads are positive.*at least 5"),
        (change(labels=np.arange(20) % 3), r"the label of ad \w{32} is 2"),
        (change(labels=np.full(20, -1)), "is -1: use 1 for positive"),
        (change(keys=("a" * 32,) * 20), "ad a{32} is there twice"),
        (change(texts=("x",)), "20 keys, 1 texts"),
    ],
)
def test_refuses_ads(ads: LabelledAds, words: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingDataError, match=words):
        trainer.train(ads, settings("head", "never-loaded"), tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_refuses_an_ad_without_words(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(20)
    ads = dataclasses.replace(ads, texts=(" \x00 ", *ads.texts[1:]))
    with pytest.raises(TrainingDataError, match=f"nothing of ad {ads.keys[0]} is left"):
        trainer.train(ads, settings("head", encoder_preset), tmp_path / "m")


def test_refuses_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileExistsError, match="is not empty: give a new folder"):
        trainer.train(make_ads(20), settings("head", "never-loaded"), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"learner": "tree"}, "learner: got 'tree'; use one of llm, encoder, head"),
        ({"dtype": "int8"}, "dtype: got 'int8'"),
        ({"learner": "llm"}, "prompt: the llm learner needs"),
        ({"validation_share": 1.0}, "validation_share must lie strictly between"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"folds": 1}, "folds must be at least 2, got 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_refuses_settings(changes: dict[str, Any], words: str) -> None:
    values = {"learner": "head", "preset": "x", **changes}
    with pytest.raises(ValueError, match=words):
        TrainingSettings(**values)


# --- The threshold ----------------------------------------------------------------------------

MARGINS = st.integers(-40, 40).map(lambda i: i * 4 * MARGIN_STEP)


def test_both_classes_count_alike() -> None:
    labels = np.array([1, 0, 0, 0, 0, 1, 0, 0], np.int8)
    weights = trainer.class_weights(labels)
    assert weights.dtype == np.float32 and weights.mean() == pytest.approx(1.0)
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert weights[0] / weights[1] == pytest.approx(3.0)
    # Calling every ad negative with certainty is right on most of them, and costs as much as the
    # opposite.
    sure = np.full(len(labels), -4.0)
    assert trainer.balanced_loss(sure, labels) == pytest.approx(
        trainer.balanced_loss(-sure, labels)
    )
    assert (
        trainer.balanced_loss(sure, labels)
        > np.log(2)
        > trainer.balanced_loss(np.where(labels == 1, 4.0, -4.0), labels)
    )


def test_rare_positives_weigh_in_the_training(encoder_preset: str, tmp_path: Path) -> None:
    ads = make_ads(200)
    rare = np.flatnonzero(ads.labels == 1)[:8]
    kept = np.sort(np.concatenate([np.flatnonzero(ads.labels == 0), rare]))
    few = LabelledAds(
        tuple(ads.keys[i] for i in kept), tuple(ads.texts[i] for i in kept), ads.labels[kept]
    )
    shares = {}
    for name, weigh in (
        ("weighed", trainer.class_weights),
        ("flat", lambda y: np.ones(len(y), np.float32)),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(trainer, "class_weights", weigh)
            chosen = settings("encoder", encoder_preset, max_epochs=1)
            trainer.train(few, chosen, tmp_path / name)
        margins = trained.margins(trained.load(tmp_path / name), few.texts)
        shares[name] = float(margins.mean())
    # Weighed, the mean margin is about even; flat, it leans to the negatives.
    assert shares["weighed"] > shares["flat"] + 0.5


def slow_kappa(labels: np.ndarray, called: np.ndarray) -> float:
    """Kappa as scikit-learn computes it; 0 where every ad is called positive."""
    return float(cohen_kappa_score(labels, called)) if called.min() == 0 else 0.0


@settings_of_hypothesis(max_examples=30)
@given(st.lists(st.tuples(MARGINS, st.integers(0, 1)), min_size=4, max_size=40))
def test_threshold_reports_the_kappas_it_has(drawn: list[tuple[float, int]]) -> None:
    drawn += [(1.0, 0), (2.0, 1)]
    margins = np.array([m for m, _ in drawn])
    labels = np.array([y for _, y in drawn], np.int8)
    cut = trainer.choose_threshold(margins, labels)
    kappas = [slow_kappa(labels, (margins >= m).astype(int)) for m in np.unique(margins)]
    assert cut.best_kappa == pytest.approx(max(kappas), abs=1e-9)
    called = (margins >= cut.margin).astype(int)
    assert called.sum() >= 1
    assert cut.kappa == pytest.approx(slow_kappa(labels, called), abs=1e-9)
    assert cut.margin % MARGIN_STEP == 0
    assert cut == trainer.choose_threshold(margins, labels)


def test_threshold_is_steadier_than_the_single_best_one() -> None:
    # Over many small samples of one population the averaged threshold scatters less, and agrees
    # better with ads that it was not chosen on.
    rng = np.random.default_rng(3)
    n = 60
    unseen = np.array([0, 1]).repeat(5000)
    margins = rng.normal(size=len(unseen)) + 1.5 * unseen
    order = np.sort(margins)
    chosen, single = [], []
    for _ in range(40):
        labels = np.array([0, 1], np.int8).repeat(n // 2)
        scores = rng.normal(size=n) + 1.5 * labels
        chosen.append(trainer.choose_threshold(scores, labels).margin)
        found = [slow_kappa(labels, (scores >= s).astype(int)) for s in np.sort(scores)]
        single.append(float(np.sort(scores)[int(np.argmax(found))]))
    assert np.std(chosen) < 0.9 * np.std(single)
    best = max(slow_kappa(unseen, (margins >= t).astype(int)) for t in order[::500])
    kappas = [slow_kappa(unseen, (margins >= t).astype(int)) for t in chosen]
    assert best - 0.05 < np.mean(kappas) <= best + 0.01


def test_threshold_between_classes_that_do_not_overlap_lies_between_them() -> None:
    cut = trainer.choose_threshold(
        np.array([-3.0, -2.0, 1.0, 4.0, 5.0]), np.array([0, 0, 1, 1, 1], np.int8)
    )
    assert -2.0 < cut.margin <= 1.0
    assert (cut.kappa, cut.best_kappa) == (1.0, 1.0)


def test_inverted_scores_find_no_agreement() -> None:
    labels = np.array([0] * 10 + [1] * 10, np.int8)
    assert trainer.choose_threshold(np.linspace(-1, 1, 20), labels).best_kappa == 1.0
    assert trainer.choose_threshold(np.linspace(1, -1, 20), labels).best_kappa <= 0.0


# --- The fast pass ----------------------------------------------------------------------------


def test_fast_pass_and_its_gradients_are_kerashubs(encoder_preset: str) -> None:
    import tensorflow as tf

    backbone = presets.load_encoder(encoder_preset).backbone
    tokens, n_tokens = bert.lay_out([[2, 5, 9, 3], [2, 11, 3], [2, 6, 7, 8, 20, 21, 3]], 4, 8)
    variables = [v.value for v in bert.trainable(backbone)]
    table = backbone.token_embedding.embeddings.value
    weighing = tf.constant(np.random.default_rng(0).normal(size=(4, 16)), tf.float32)
    found = []
    for kind in ("plain", "fast", "packed"):
        with tf.GradientTape() as tape:
            if kind == "plain":
                vectors = bert.plain_pool(backbone, tf.constant(tokens), tf.constant(n_tokens))
            else:
                weights = bert.read(backbone, tf.float32)
                vectors = bert.pool(weights, table, tokens, n_tokens, packed=kind == "packed")
            loss = tf.reduce_sum(vectors * weighing)
        slopes = tape.gradient(loss, [*variables, table])
        found.append([vectors.numpy(), *(tf.convert_to_tensor(g).numpy() for g in slopes)])
    for other in found[1:]:
        for got, want in zip(other, found[0], strict=True):
            np.testing.assert_allclose(got, want, atol=2e-4, rtol=2e-4)

"""The whole loop with recorded labels playing the experts, beside what it competes with.

For each seed the corpus is divided: a natural-prevalence sample and a class-balanced one are held
out, the rest is the pool that the conditions may ask about. ``boundary`` runs the real rounds in a
workspace: mine, verdicts, import, train. The others choose, label and train with the same learner
and as many labels: ``random`` ads, the ads of which the model is least certain (``uncertainty``,
round by round), and a ``crowd`` that labels many ads with errors.

The held-out samples train nothing. The evaluation half is each condition's own, ads that it reviewed and
did not train on; the crowd's is boundary's, which its labels leave out.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from models.backends.base import BackendError
from models.backends.pool import LabelerPool
from models.backends.trained import Trained
from models.training import trainer
from pipelines.config import Task, load_task
from pipelines.console.progress import Step, step
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler, load_trained
from pipelines.jobs.ingest import ingest_verdicts
from pipelines.jobs.labels import fine_tuning_labels
from pipelines.jobs.mine import MineOptions, mine
from pipelines.jobs.train import TooFewLabels, TrainOptions, train, training_settings
from pipelines.numerics import agreement, calibration, hashing, raters
from pipelines.numerics.agreement import MISSING
from pipelines.options import CONDITIONS, CROWD_NOISES
from pipelines.report.simulation import simulation_report
from pipelines.simulation.labelled_corpus import Corpus, Division, Fields, divide, read_labelled
from pipelines.sources.base import ReadOptions
from pipelines.stages.label_ads import LabelRule, choose_threshold
from pipelines.store import model_store, storage
from pipelines.store.facts import Decided, ModelFacts
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.verdicts.commit_imports import verdict_manifests
from pipelines.verdicts.rows import RawVerdict
from pipelines.verdicts.shown import shown_ads

TASK_FILE, POOL_FILE, RESULTS_FILE = "task.yaml", "pool.jsonl", "results.json"
_ROUNDS = 5
# Directions of the embedding that the crowd's cue is drawn from: topics and style, not noise.
_CUE_DIMS = 32
_EMBED_ROWS = 1024
_SETS = ("natural", "balanced", "evaluation")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SimulateOptions:
    """Everything ``scout simulate`` was told; see ``scout simulate --help``."""

    task: str
    corpus: tuple[str, ...]
    workspace: str
    experts: str = "gold"
    expert_kappa: float = 0.8
    label_field: str = "label"
    ratings_field: str = "ratings"
    label_file: str = ""
    prevalence: float | None = None
    rounds: int = _ROUNDS
    labels: tuple[int, ...] = ()
    conditions: tuple[str, ...] = CONDITIONS
    seeds: int = 1
    first_seed: int = 1
    learner: str | None = None
    also: tuple[str, ...] = ()
    also_from: int = 1
    holdout: float = 0.2
    crowd_labels: int | None = None
    crowd_kappa: tuple[float, ...] = (0.59, 0.41)
    crowd_noise: tuple[str, ...] = CROWD_NOISES


def options_of(args: argparse.Namespace) -> SimulateOptions:
    """Return the options of a parsed command line.

    Raises:
        UsageError: options that contradict each other.
    """
    names = {field.name for field in dataclasses.fields(SimulateOptions)}
    given = {name: getattr(args, name) for name in names if hasattr(args, name)}
    options = SimulateOptions(
        **{
            **given,
            "corpus": tuple(args.corpus),
            "also": tuple(dict.fromkeys(args.also)),
        }
    )
    rounds = args.rounds or len(options.labels) or _ROUNDS
    if options.labels and len(options.labels) != rounds:
        raise UsageError(
            f"--labels names {len(options.labels)} rounds, --rounds {rounds}; leave --rounds out"
        )
    options = dataclasses.replace(options, rounds=rounds)
    if not storage.is_local(options.workspace):
        raise UsageError(f"--workspace {options.workspace}: a simulation needs a local folder")
    return options


def simulate(options: SimulateOptions, say: Say) -> dict[str, Any]:
    """Run a simulation; a rerun with the same options goes on where it stopped.

    Returns:
        rows (one a seed, condition, learner and round), a summary over seeds, what the stopping
        rule said, and the options; JSON values, also written to ``simulation.json``.

    Raises:
        UsageError: wrong options, task file or corpus.
        RunFailed: the loop could not go on.
    """
    started = time.monotonic()
    task = _task(options)
    fields = Fields(
        label=options.label_field,
        ratings=options.ratings_field if options.experts == "recorded" else "",
        file=options.label_file,
    )
    with step("reading the corpus"):
        corpus = read_labelled(options.corpus, fields, task.labels, task.reading(ReadOptions()))
    root = Path(options.workspace)
    root.mkdir(parents=True, exist_ok=True)
    say(
        f"{len(corpus):,} distinct labelled ads, {int(corpus.gold.sum()):,} "
        f"{task.labels.positive} ({corpus.gold.mean():.1%})"
        + (f"; {corpus.wordless:,} without a word are left out" if corpus.wordless else "")
    )
    rows: list[dict[str, Any]] = []
    stops: list[dict[str, Any]] = []
    rounds = rounds_of(options)
    total = options.seeds * sum(rounds.values())
    pool = LabelerPool()
    with _remembering(task, root, pool, say) as keep, step("simulating", total) as advance:
        player = _Player(
            options, task, corpus, root, say, _Forecast(advance, rounds, options.seeds), pool
        )
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            found = player.play(seed)
            keep()
            rows += found["rows"]
            stops += found["stops"]
    outcome = {
        "task": task.name,
        "negative": task.labels.negative,
        "options": dataclasses.asdict(options),
        "ads": len(corpus),
        "summary": summarize(rows),
        "stops": stops,
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
    }
    path = root / "simulation.json"
    storage.write(str(path), (json.dumps(outcome, indent=1) + "\n").encode())
    say(f"written to {path}")
    if all(row["threshold"] is None for row in rows):
        raise RunFailed(
            f"{path}: no condition ever had labels enough to train on; give more --labels or "
            "--rounds"
        )
    with step("drawing the report"):
        simulation_report(outcome, str(root / "report"), say)
    return outcome


def rounds_of(options: SimulateOptions) -> dict[str, int]:
    """Return how many rounds a seed plays of each condition; a crowd is one round."""
    rounds = {name: options.rounds for name in options.conditions if name != "crowd"}
    if "crowd" in options.conditions:
        crowds = itertools.product(options.crowd_kappa, options.crowd_noise)
        rounds |= {_crowd_name(kappa, noise): 1 for kappa, noise in crowds}
    return rounds


def _crowd_name(kappa: float, noise: str) -> str:
    return f"crowd {kappa:g} {noise}"


class _Forecast:
    """Shows how far a simulation is, and foresees its end from what each condition took before.

    One pace for all would be far off: a round that mines takes a hundred times as long as one that
    trains a head.
    """

    def __init__(self, advance: Step, rounds: Mapping[str, int], seeds: int) -> None:
        self._advance = advance
        self._seed_rounds = sum(rounds.values())
        self._left = {name: float(seeds * number) for name, number in rounds.items()}
        self._rounds = dict(rounds)
        self._played: dict[str, float] = {}
        self._seconds: dict[str, float] = {}
        self._since: float | None = None

    def skip_seed(self) -> None:
        """Count a seed that an earlier run played."""
        for name, number in self._rounds.items():
            self._left[name] -= number
        self._advance(self._seed_rounds, given=True)

    def show(self, seed: int, condition: str) -> None:
        """Say what is being played."""
        self._advance.words = f"simulating seed {seed}, {condition}"

    def done(self, condition: str, share: float) -> None:
        """Count a share of a round."""
        now = time.monotonic()
        self._left[condition] -= share
        if self._since is not None:
            # The very first part has LLM-0 score the corpus, which is done once.
            self._played[condition] = self._played.get(condition, 0.0) + share
            self._seconds[condition] = self._seconds.get(condition, 0.0) + now - self._since
            self._advance.ends = now + self._left_sec()
        self._since = now
        self._advance(share)

    def _left_sec(self) -> float:
        each = {name: self._seconds[name] / played for name, played in self._played.items()}
        # Conditions that have not been met yet train as others do, and do not mine.
        others = [seconds for name, seconds in each.items() if name != "boundary"]
        usual = statistics.fmean(others or each.values())
        return sum(left * each.get(name, usual) for name, left in self._left.items())


def _task(options: SimulateOptions) -> Task:
    task = load_task(options.task)
    # All conditions learn from as few labels as can be learnt from: early rounds are to be seen.
    training: dict[str, Any] = {"min_per_class": 2}
    if options.learner:
        training["learner"] = options.learner
    changes: dict[str, Any] = {
        "stopping": task.stopping.model_copy(update={"max_rounds": options.rounds}),
        "training": task.training.model_copy(update=training),
    }
    if options.prevalence is not None:
        # Whoever thins the positives knows their share, as a team knows that of its traffic.
        changes["prior"] = options.prevalence
    return task.model_copy(update=changes)


@contextlib.contextmanager
def _remembering(
    task: Task, root: Path, pool: LabelerPool, say: Say
) -> Iterator[Callable[[], None]]:
    """Ask LLM-0 about each text once in all seeds and runs; yields what writes its answers down."""
    path = root / "llm0.npz"
    try:
        identity = task.backend().identify(say)
    except BackendError as error:
        raise UsageError(f"model: {error}") from error
    labeler = pool.labeler(identity, LoadLabeler(task, identity).load_new)
    try:
        labeler.restore(path)
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(f"{path}: is damaged ({error}); delete it") from error
    held = len(labeler)

    def keep() -> None:
        nonlocal held
        if len(labeler) > held:
            labeler.save(path)
            held = len(labeler)

    try:
        yield keep
    finally:
        keep()


# --- Playing ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Model:
    """A trained model as the simulation uses it."""

    margins: Callable[[Sequence[str]], np.ndarray]
    threshold: float

    def labels(self, texts: Sequence[str]) -> np.ndarray:
        return (self.margins(texts) >= self.threshold).astype(np.int8)


class _Player:
    """Plays all conditions of a seed."""

    def __init__(
        self,
        options: SimulateOptions,
        task: Task,
        corpus: Corpus,
        root: Path,
        say: Say,
        forecast: _Forecast,
        pool: LabelerPool,
    ) -> None:
        self._options, self._task, self._corpus = options, task, corpus
        self._root, self._say, self.forecast, self.pool = root, say, forecast, pool
        self._encoder_vectors: np.ndarray | None = None
        self._row = {key: i for i, key in enumerate(corpus.keys)}

    def play(self, seed: int) -> dict[str, Any]:
        """Play a seed, or return what an earlier run of it found."""
        folder = self._root / f"seed-{seed:02d}"
        task = self._task.model_copy(update={"seed": seed})
        settings = {
            name: value
            for name, value in dataclasses.asdict(self._options).items()
            if name
            not in (
                "seeds",
                "first_seed",
                "workspace",
                "task",
                "corpus",
                "label_file",
            )
        }
        wanted = config_hash(
            {
                "task": task.model_dump(mode="json"),
                "options": settings,
                "corpus": config_hash(self._corpus.content()),
            }
        )
        results = folder / RESULTS_FILE
        if results.is_file():
            held = json.loads(results.read_text())
            if held["settings"] != wanted:
                raise UsageError(
                    f"{folder}: holds a simulation with other options, task or corpus; give another "
                    "--workspace"
                )
            if held["finished"]:
                self._say(f"seed {seed}: simulated already")
                self.forecast.skip_seed()
                return held
        else:
            _write_json(results, {"settings": wanted, "finished": False})
        division = divide(self._corpus, self._options.prevalence, self._options.holdout, seed)
        verdicts = self._verdicts(seed, division)
        seeded = _Seed(self, seed, task, folder, division, verdicts)
        found = {"settings": wanted, "finished": True, **seeded.play()}
        _write_json(results, found)
        return found

    def vectors(self) -> np.ndarray:
        """Return the frozen encoder's vectors of the whole corpus, computed once."""
        if self._encoder_vectors is None:
            cache = self.pool.vectors
            bundle = cache.bundle(self._task.training.encoder)
            window = trainer.window(bundle, training_settings(self._task))
            encoder = cache.encoder(bundle, self._task.model.dtype, window)
            self._say(f"embedding {len(self._corpus):,} ads")
            with step("embedding ads", len(self._corpus)) as advance:

                def embed(texts: Sequence[str]) -> np.ndarray:
                    # In parts, for progress: a vector depends on its own text alone.
                    parts = []
                    for start in range(0, len(texts), _EMBED_ROWS):
                        parts.append(encoder.encode(texts[start : start + _EMBED_ROWS]))
                        advance(len(parts[-1]))
                    return np.concatenate(parts)

                self._encoder_vectors = cache.vectors(
                    encoder.embedding_id, self._corpus.texts, embed
                )
        return self._encoder_vectors

    def _verdicts(self, seed: int, division: Division) -> np.ndarray:
        """Return what each expert of this seed would say of each ad, int8 (n, experts)."""
        corpus, options = self._corpus, self._options
        experts = self._task.review.experts_per_ad
        if corpus.ratings is not None:
            return _draw_raters(corpus, experts, seed)
        if options.expert_kappa == 1.0:
            return np.repeat(corpus.gold[:, None].astype(np.int8), experts, axis=1)
        n = len(corpus)
        share = corpus.gold.mean()
        balanced = np.where(corpus.gold, 0.5 / share, 0.5 / (1 - share)) / n
        return raters.expert_ratings(
            corpus.gold,
            self._ambiguity(),
            corpus.keys,
            experts,
            options.expert_kappa,
            balanced,
            seed,
        )

    def _ambiguity(self) -> np.ndarray:
        """Return how near each ad lies to the boundary between the labels, in [0, 1].

        By a logistic head fitted on all gold labels and asked out of fold: what a well-taught
        reader of the same vectors is unsure about.
        """
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_predict

        model = LogisticRegression(class_weight="balanced", max_iter=1000)
        found = cross_val_predict(
            model, self.vectors(), self._corpus.gold, cv=5, method="predict_proba"
        )[:, 1]
        return 4.0 * found * (1.0 - found)

    def cue(self, seed: int) -> np.ndarray:
        """Return what misleads the crowd: a random direction among the embedding's main ones."""
        from sklearn.decomposition import PCA

        vectors = self.vectors()
        dims = min(_CUE_DIMS, *vectors.shape)
        whitened = PCA(dims, whiten=True, random_state=seed).fit_transform(vectors)
        return whitened @ np.random.default_rng(seed).standard_normal(dims)


def _draw_raters(corpus: Corpus, experts: int, seed: int) -> np.ndarray:
    """Choose each ad's experts among the recorded people, by hash; the others stay silent."""
    assert corpus.ratings is not None
    table = np.full_like(corpus.ratings, MISSING)
    for row, key in enumerate(corpus.keys):
        given = np.flatnonzero(corpus.ratings[row] != MISSING)
        drawn = [hashing.unit_hash(f"{key}:{seat}", seed) for seat in given]
        chosen = given[np.argsort(drawn, kind="stable")[:experts]]
        table[row, chosen] = corpus.ratings[row, chosen]
    return table


class _Seed:
    """One seed: its division, its experts, and the results so far."""

    def __init__(
        self,
        player: _Player,
        seed: int,
        task: Task,
        folder: Path,
        division: Division,
        verdicts: np.ndarray,
    ) -> None:
        self._player, self._seed, self._task = player, seed, task
        self._options, self._corpus = player._options, player._corpus
        self._folder, self._division, self._verdicts = folder, division, verdicts
        self._say = player._say
        self._others = [name for name in self._options.also if name != task.training.learner]
        self._evaluation = np.zeros(0, dtype=np.intp)
        self._budgets: list[int] = []
        self._rows: list[dict[str, Any]] = []

    def play(self) -> dict[str, Any]:
        """Play all conditions."""
        options = self._options
        stops = []
        if "boundary" in options.conditions:
            stops.append(self._boundary())
        else:
            self._budgets = list(options.labels) or [
                self._task.selection.budget * (i + 1) for i in range(options.rounds)
            ]
        pool = self._division.pool
        if "random" in options.conditions:
            ranks = hashing.ranks([self._corpus.keys[i] for i in pool], self._seed + 1)
            order = pool[np.argsort(ranks, kind="stable")]
            self._plain("random", lambda _: order)
        if "uncertainty" in options.conditions:
            self._plain("uncertainty", lambda model: self._unsure(model, pool))
        if "crowd" in options.conditions:
            self._crowd(np.setdiff1d(pool, self._evaluation))
        return {"rows": self._rows, "stops": stops}

    # --- ours

    def _boundary(self) -> dict[str, Any]:
        folder, task, options = self._folder / "boundary", self._task, self._options
        task_file, pool = self._folder / TASK_FILE, self._folder / POOL_FILE
        storage.write(
            str(task_file), yaml.safe_dump(task.model_dump(mode="json"), sort_keys=False).encode()
        )
        lines = [
            json.dumps(self._corpus.record(i), ensure_ascii=False) for i in self._division.pool
        ]
        data = ("\n".join(lines) + "\n").encode()
        # The corpus's age is part of what was scored: an unchanged file keeps it.
        if not pool.is_file() or pool.read_bytes() != data:
            storage.write(str(pool), data)
        workspace = Workspace(str(folder))
        models: list[tuple[int, _Model | None, trainer.LabelledAds]] = []
        decisions = []
        for number in range(1, options.rounds + 1):
            started = time.monotonic()
            self._player.forecast.show(self._seed, "boundary")
            if not workspace.model.latest(number):
                self._mine(number, workspace, task_file, pool)
                ingest_verdicts(workspace, self._answer(workspace, number), f"round {number}")
                # Too few labels of a class: the next round mines with the model there is.
                with contextlib.suppress(TooFewLabels):
                    train(TrainOptions(str(folder)), lambda _: None, self._player.pool)
            done = workspace.model.latest(number)
            model = None
            if done:
                decisions.append((number, done.facts.evaluation.decision))
                learnt, own = done.facts.learnt, model_store.model_files(done)
                labeler = load_trained(workspace, task, learnt.learner, own, self._player.pool)
                model = _Model(labeler.margins, learnt.threshold_margin)
            ads = fine_tuning_labels(workspace, task, shown_ads(workspace).texts()).ads
            ads = self._until(ads, workspace, number)
            self._budgets.append(len(ads.keys))
            models.append((number, model, ads))
            self._note("boundary", number, len(ads.keys), time.monotonic() - started)
        # The evaluation half is complete only now; every round's model meets the same ads.
        # Its keys are in the manifests; its verdicts are the evaluator's alone to open.
        keys = [
            key
            for manifest in verdict_manifests(workspace).values()
            for key in manifest.facts.keys.evaluation
        ]
        self._evaluation = np.sort([self._player._row[key] for key in keys]).astype(np.intp)
        for number, model, ads in models:
            self._record("boundary", task.training.learner, number, ads, model, self._evaluation)
        for number, _, ads in models:
            self._train_others("boundary", number, ads, self._evaluation)
        return self._stop(decisions, workspace.model.latest(options.rounds))

    def _mine(self, number: int, workspace: Workspace, task_file: Path, pool: Path) -> None:
        if workspace.verdicts.latest(number):
            return
        task, options = self._task, self._options
        budget = task.selection.budget
        if options.labels:
            have = self._budgets[-1] if self._budgets else 0
            # Half of the ads of a pair train, on average.
            training_share = 2 * (1 - task.review.evaluation_share)
            budget = max(1, round((options.labels[number - 1] - have) / training_share))
        mine(
            MineOptions(
                task=str(task_file),
                corpus=(str(pool),),
                workspace=workspace.root,
                date="",
                budget=budget,
                read=ReadOptions(),
                max_rejected_share=0.0,
                block_rows=4096,
                range_bytes=64 << 20,
                beam=(),
            ),
            say=lambda _: None,
            pool=self._player.pool,
        )

    def _answer(self, workspace: Workspace, number: int) -> list[RawVerdict]:
        """Let the experts answer a round's pairs."""
        pairs = workspace.pairs.latest(number)
        assert pairs is not None
        names = self._task.labels
        found: list[RawVerdict] = []
        for item in workspace.read_items(pairs):
            for ad in item.ads:
                row = self._verdicts[self._player._row[ad.key]]
                for expert in np.flatnonzero(row != MISSING):
                    found.append(
                        RawVerdict(
                            ad_id=ad.id,
                            item_id="",
                            side="",
                            text="",
                            label=names.positive if row[expert] else names.negative,
                            expert=f"expert {expert + 1}",
                            time="",
                            comment="",
                            source="",
                            position=f"row {len(found) + 1}",
                        )
                    )
        return found

    def _until(
        self, ads: trainer.LabelledAds, workspace: Workspace, number: int
    ) -> trainer.LabelledAds:
        """Return the labels of the rounds up to a number: a resumed run has later ones, too."""
        shown = workspace.shown_keys(number + 1)
        rows = [i for i, key in enumerate(ads.keys) if key in shown]
        return trainer.LabelledAds(
            tuple(ads.keys[i] for i in rows),
            tuple(ads.texts[i] for i in rows),
            ads.labels[rows],
        )

    def _stop(
        self, decisions: Sequence[tuple[int, Decided]], last: Manifest[ModelFacts] | None
    ) -> dict[str, Any]:
        """Compare where the rule stopped with where no later round was better by its interval.

        By the last round's evaluation, in which every round's model meets all evaluation ads.
        """
        rounds = self._options.rounds
        stopped, decision = next(
            ((number, found) for number, found in decisions if found.stop),
            (rounds, Decided(False, "rounds", f"did not stop in {rounds} rounds", 0)),
        )
        models = last.facts.evaluation.models if last else ()
        kappas = {
            model.round: (model.kappa.value, model.kappa.high)
            for model in models
            if model.round and model.kappa.value is not None and model.kappa.high is not None
        }
        best = next(
            (
                number
                for number, (_, high) in sorted(kappas.items())
                if all(value <= high for later, (value, _) in kappas.items() if later > number)
            ),
            rounds,
        )
        return {
            "seed": self._seed,
            "stopped_after": stopped,
            "rule": decision.rule,
            "reason": decision.reason,
            "no_later_better_after": best,
            "kappas": {str(number): value for number, (value, _) in sorted(kappas.items())},
        }

    # --- what it competes with

    def _unsure(self, model: _Model | None, asked: np.ndarray) -> np.ndarray:
        texts = [self._corpus.texts[i] for i in asked]
        margins = self._llm0(texts) if model is None else model.margins(texts)
        histogram = calibration.margin_histogram(calibration.quantize(margins))
        # The label rule of mining, and what it falls back on.
        rule = LabelRule(self._task.prior, fitted_margin=model.threshold if model else None)
        threshold = choose_threshold(histogram, rule).margin
        ranks = hashing.ranks([self._corpus.keys[i] for i in asked], self._seed + 2)
        return asked[np.lexsort((ranks, np.abs(margins - threshold)))]

    def _llm0(self, texts: Sequence[str]) -> np.ndarray:
        identity = self._task.backend().identify()
        labeler = LoadLabeler(self._task, identity, pool=self._player.pool)()
        return np.concatenate(
            [labeler.label(texts[i : i + 1024]).margin for i in range(0, len(texts), 1024)]
        )

    def _plain(self, condition: str, choose: Callable[[_Model | None], np.ndarray]) -> None:
        """Play a condition that chooses single ads, as many labels a round as boundary had.

        Like boundary it pays for an evaluation half of its own, drawn by hash. (Keeping boundary's
        out of its reach instead would take a quarter of the positives near the boundary from it.)
        """
        share = self._task.review.evaluation_share
        model: _Model | None = None
        taken: list[int] = []
        evaluation: list[int] = []
        models: list[tuple[int, _Model | None, trainer.LabelledAds]] = []
        answers = agreement.consensus(self._verdicts, self._task.review.consensus)
        for number, wanted in enumerate(self._budgets, start=1):
            started = time.monotonic()
            self._player.forecast.show(self._seed, condition)
            known = {*taken, *evaluation}
            for row in choose(model):
                if len(taken) >= wanted:
                    break
                if row in known:
                    continue
                if hashing.unit_hash(self._corpus.keys[row], self._seed + 4) < share:
                    # Ties too, as in boundary's: two experts would agree about all that is left.
                    evaluation.append(int(row))
                elif answers[row] != MISSING:
                    # A tie teaches nothing; boundary's are not counted either.
                    taken.append(int(row))
            ads = self._ads(taken, answers[taken].astype(np.int8))
            found = self._learn(self._task.training.learner, ads)
            models.append((number, found, ads))
            model = found or model
            self._note(condition, number, len(taken), time.monotonic() - started)
        own = np.sort(np.array(evaluation, dtype=np.intp))
        for number, found, ads in models:
            self._record(condition, self._task.training.learner, number, ads, found, own)
            self._train_others(condition, number, ads, own)

    def _crowd(self, asked: np.ndarray) -> None:
        keys = [self._corpus.keys[i] for i in asked]
        gold = self._corpus.gold[asked]
        ranks = hashing.ranks(keys, self._seed + 3)
        wanted = min(self._options.crowd_labels or len(asked), len(asked))
        rows = np.sort(np.argsort(ranks, kind="stable")[:wanted])
        cue = self._player.cue(self._seed)[asked]
        for kappa in self._options.crowd_kappa:
            for noise in self._options.crowd_noise:
                started = time.monotonic()
                condition = _crowd_name(kappa, noise)
                self._player.forecast.show(self._seed, condition)
                try:
                    if noise == "text":
                        labels = raters.crowd_labels(
                            gold, cue, keys, kappa, self._seed, tolerance=0.05
                        )
                    else:
                        labels = raters.uniform_crowd_labels(
                            gold, keys, kappa, self._seed, tolerance=0.05
                        )
                except ValueError as error:
                    raise UsageError(f"--crowd_kappa {kappa:g}: {error}") from error
                ads = self._ads(asked[rows].tolist(), labels[rows])
                model = self._learn(self._task.training.learner, ads)
                learner = self._task.training.learner
                self._record(condition, learner, 1, ads, model, self._evaluation)
                self._train_others(condition, 1, ads, self._evaluation)
                self._note(condition, 1, wanted, time.monotonic() - started)

    def _ads(self, rows: Sequence[int], labels: np.ndarray) -> trainer.LabelledAds:
        corpus = self._corpus
        return trainer.LabelledAds(
            tuple(corpus.keys[i] for i in rows), tuple(corpus.texts[i] for i in rows), labels
        )

    # --- learning and measuring

    def _learn(self, learner: str, ads: trainer.LabelledAds) -> _Model | None:
        """Train a learner; None when the labels teach nothing yet (one class, too few).

        Raises:
            RunFailed: the labels are of ads that cannot be learnt from.
        """
        training = self._task.training.model_copy(update={"learner": learner})
        settings = training_settings(self._task.model_copy(update={"training": training}))
        cache = self._player.pool.vectors
        with tempfile.TemporaryDirectory(prefix="scout-simulate-") as scratch:
            folder = Path(scratch) / "model"
            try:
                manifest = trainer.train(ads, settings, folder, cache=cache)
            except trainer.TooFewLabelsError:
                return None
            except trainer.TrainingDataError as error:
                raise RunFailed(f"seed {self._seed}: {error}") from error
            embedding = "own" if learner == "encoder" else None
            labeler = Trained(folder, embedding=embedding, cache=cache).load()
        return _Model(labeler.margins, manifest.threshold_margin)

    def _train_others(
        self, condition: str, number: int, ads: trainer.LabelledAds, evaluation: np.ndarray
    ) -> None:
        if len(ads.keys) < self._options.also_from:
            self._done(condition, len(self._others))
            return
        for learner in self._others:
            model = self._learn(learner, ads)
            self._record(condition, learner, number, ads, model, evaluation)

    def _record(
        self,
        condition: str,
        learner: str,
        number: int,
        ads: trainer.LabelledAds,
        model: _Model | None,
        evaluation: np.ndarray,
    ) -> None:
        """Measure a model on the three sets, against the experts."""
        sets = {
            "natural": self._division.natural,
            "balanced": self._division.balanced,
            "evaluation": evaluation,
        }
        row: dict[str, Any] = {
            "seed": self._seed,
            "condition": condition,
            "learner": learner,
            "round": number,
            "labels": len(ads.keys),
            "positive_share": float(ads.labels.mean()) if len(ads.keys) else None,
            "threshold": model.threshold if model else None,
        }
        for name, rows in sets.items():
            texts = [self._corpus.texts[i] for i in rows]
            # Without a model every ad is called negative, which agrees with nobody beyond chance.
            labels = model.labels(texts) if model and texts else np.zeros(len(rows), np.int8)
            found = agreement.model_agreement(
                labels, self._verdicts[rows], n_boot=agreement.MIN_BOOT, seed=self._seed
            )
            row[name] = found.value
            row[f"{name}_experts"] = agreement.expert_agreement(
                self._verdicts[rows], n_boot=agreement.MIN_BOOT
            ).value
        self._rows.append(row)
        self._done(condition)

    def _note(self, condition: str, number: int, labels: int, seconds: float) -> None:
        self._say(
            f"seed {self._seed}: {condition}, round {number}: {labels:,} labels ({seconds:.0f} s)"
        )
        self._done(condition)

    def _done(self, condition: str, parts: int = 1) -> None:
        """Count parts of a round: its own learning, and each learner's measuring."""
        if parts:
            self._player.forecast.done(condition, parts / (2 + len(self._others)))


def _write_json(path: Path, value: Any) -> None:
    storage.write(str(path), (json.dumps(value, indent=1) + "\n").encode())


# --- The table --------------------------------------------------------------------------------


def summarize(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return mean and spread over seeds of every condition, learner and round."""
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["learner"], row["condition"], row["round"]), []).append(row)
    found = []
    for (learner, condition, number), members in groups.items():
        entry: dict[str, Any] = {
            "learner": learner,
            "condition": condition,
            "round": number,
            "seeds": len(members),
            "untrained": sum(row["threshold"] is None for row in members),
        }
        names = ["labels", "positive_share", *_SETS, *(f"{name}_experts" for name in _SETS)]
        for name in names:
            values = [row[name] for row in members if row[name] is not None]
            entry[name] = statistics.fmean(values) if values else None
            entry[f"{name}_sd"] = statistics.stdev(values) if len(values) > 1 else None
            entry[f"{name}_undefined"] = len(members) - len(values)
        found.append(entry)
    return found


def describe(outcome: Mapping[str, Any]) -> str:
    """Return the outcome as a table."""
    head = ("learner", "condition", "labels", "positive", "natural", "balanced", "evaluation half")
    table: list[tuple[str, ...]] = [head]
    untrained = []
    for entry in outcome["summary"]:
        share = entry["positive_share"]
        table.append(
            (
                entry["learner"],
                entry["condition"],
                f"{entry['labels']:,.0f}",
                "-" if share is None else f"{share:.0%}",
                *(_mean(entry, name) for name in _SETS),
            )
        )
        if entry["untrained"]:
            untrained.append(
                f"{entry['condition']}, round {entry['round']} ({entry['learner']}): "
                f"{entry['untrained']} of {entry['seeds']}"
            )
    experts = next((e for e in outcome["summary"] if e["condition"] == "boundary"), None)
    experts = experts or outcome["summary"][0]
    table.append(
        ("", "experts among themselves", "", "", *(_mean(experts, f"{n}_experts") for n in _SETS))
    )
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    lines = []
    for row in table:
        left = [row[i].ljust(widths[i]) for i in (0, 1)]
        lines.append("  ".join([*left, *(row[i].rjust(widths[i]) for i in range(2, 7))]).rstrip())
    seeds = len({row["seed"] for row in outcome["rows"]})
    lines.insert(
        0,
        f"Task {outcome['task']}: Cohen's kappa with the experts, mean over {seeds} "
        f"seed{'s' if seeds > 1 else ''}{' and standard deviation' if seeds > 1 else ''}\n",
    )
    if untrained:
        lines.append(
            "too few labels of a class to train on, counted as a model that calls every ad "
            f"{outcome['negative']}, in seeds of: {'; '.join(untrained)}"
        )
    for stop in outcome["stops"]:
        lines.append(
            f"seed {stop['seed']}: the rule {stop['reason']}\n"
            f"        (no later round is better beyond its interval than round "
            f"{stop['no_later_better_after']})"
        )
    return "\n".join(lines)


def _mean(entry: Mapping[str, Any], name: str) -> str:
    value, spread = entry[name], entry[f"{name}_sd"]
    if value is None:
        return "undefined"
    return f"{value:z.2f}" if spread is None else f"{value:z.2f} ±{spread:.2f}"

"""The whole loop with recorded labels playing the experts, beside what it competes with.

For each seed the corpus is divided: a natural-prevalence sample and a class-balanced one are held
out, the rest is the pool that the conditions may ask about. Every selection strategy runs the real
rounds in a workspace of its own, seed-NN/STRATEGY: mine, verdicts, import, train. A ``crowd`` labels
many ads with errors, and the same learner is trained on them.

The held-out samples train nothing. The evaluation half is each strategy's own, ads that it reviewed
and did not train on; the crowd's is boundary's, which its labels leave out.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.backends.base import BackendError
from models.backends.pool import LabelerPool, RememberingLabeler
from models.training import trainer
from pipelines.config import Committee, Task, called, given_task
from pipelines.console.progress import step
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler
from pipelines.jobs import pilot
from pipelines.numerics import hashing
from pipelines.report.simulation import simulation_report
from pipelines.simulation import experts
from pipelines.simulation.conditions import strategy_of
from pipelines.simulation.forecast import Forecast
from pipelines.simulation.labelled_corpus import Corpus, Division, Fields, divide, read_labelled
from pipelines.simulation.loop import Loop
from pipelines.simulation.measure import Measurer, Round, Seed, learn
from pipelines.simulation.options import OURS, Crowd, SimulateOptions
from pipelines.simulation.results import at_equal_minutes, summarize
from pipelines.sources.base import ReadOptions
from pipelines.store import lock, storage
from pipelines.store.workspace import config_hash
from pipelines.strategies import registry

START_FILE, LLM0_FILE, POOL_FILE, RESULTS_FILE = (
    "start.json",
    "llm0.npz",
    "pool.jsonl",
    "results.json",
)
# What does not change a seed's results.
_ELSEWHERE = {"seeds", "first_seed", "workspace", "task", "corpus", "label_file"}

Say = Callable[[str], None]


def simulate(options: SimulateOptions, say: Say) -> dict[str, Any]:
    """Run a simulation; a rerun with the same options goes on where it stopped.

    Returns:
        rows (one a seed, condition, learner and round), a summary over seeds, and one at equal minutes, what the stopping
        rule said (one a seed and strategy), and the options; JSON values, also written to
        ``simulation.json``.

    Raises:
        UsageError: wrong options, task file or corpus.
        RunFailed: the loop could not go on.
    """
    started = time.monotonic()
    for name in options.strategies:
        registry.create(strategy_of(name, 1))
    task = _task(options)
    fields = Fields(
        label=options.label_field,
        ratings=options.ratings_field if options.experts == "recorded" else "",
        file=options.label_file,
    )
    with step("reading the corpus"):
        corpus = read_labelled(options.corpus, fields, task.labels, task.reading(ReadOptions()))
    with lock.held(options.workspace, "simulate", say):
        return _simulate(options, task, corpus, started, say)


def _simulate(
    options: SimulateOptions, task: Task, corpus: Corpus, started: float, say: Say
) -> dict[str, Any]:
    root = Path(options.workspace)
    say(
        f"{len(corpus):,} distinct labelled ads, {int(corpus.gold.sum()):,} "
        f"{task.labels.positive} ({corpus.gold.mean():.1%})"
        + (f"; {corpus.wordless:,} without a word are left out" if corpus.wordless else "")
    )
    rows: list[dict[str, Any]] = []
    stops: list[dict[str, Any]] = []
    rounds = options.rounds_of
    total = options.seeds * sum(rounds.values())
    pool = LabelerPool()
    task = _start(task, corpus, root / START_FILE, say)
    llm0 = _llm0(task, root / LLM0_FILE, pool, say)
    with step("simulating", total) as advance:
        forecast = Forecast(advance, rounds, options.seeds)
        player = _Player(options, task, corpus, root, say, forecast, pool)
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            try:
                found = player.play(seed)
            finally:
                llm0.save(root / LLM0_FILE)
            rows += found["rows"]
            stops += found["stops"]
    outcome = {
        "task": task.name,
        "negative": task.labels.negative,
        "options": dataclasses.asdict(options) | {"task": called(options.task)},
        "ads": len(corpus),
        "summary": summarize(rows),
        "at_minutes": at_equal_minutes(rows),
        "stops": stops,
        "rows": rows,
        "seconds": round(time.monotonic() - started, 1),
    }
    path = root / "simulation.json"
    _write_json(path, outcome)
    say(f"written to {path}")
    if all(row["threshold"] is None for row in rows):
        raise RunFailed(
            f"{path}: no condition ever had labels enough to train on; give more --labels or "
            "--rounds"
        )
    with step("drawing the report"):
        simulation_report(outcome, str(root / "report"), say)
    return outcome


def _task(options: SimulateOptions) -> Task:
    task = given_task(options.task)
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


def _start(task: Task, corpus: Corpus, file: Path, say: Say) -> Task:
    """Return the task with the prompts that the corpus chooses without labels, once a simulation."""
    if not task.wants_committee():
        return task
    basis = config_hash({"start": task.start_basis(), "corpus": corpus.keys})
    if file.is_file():
        held = _read_json(file, "basis", "committee")
        if held["basis"] == basis:
            return pilot.seated(task, Committee.model_validate(held["committee"]))
    order = np.argsort(hashing.ranks(corpus.keys, task.seed), kind="stable")[: pilot.ADS]
    chosen = pilot.choose(task, [corpus.texts[row] for row in order], say)
    assert chosen.prompt.committee is not None
    _write_json(file, {"basis": basis, "committee": chosen.prompt.committee.model_dump()})
    return chosen


def _llm0(task: Task, file: Path, pool: LabelerPool, say: Say) -> RememberingLabeler:
    """Return LLM-0 with its answers of earlier runs; it is asked about each text once."""
    try:
        identity = task.backend().identify(say)
    except BackendError as error:
        raise UsageError(f"model: {error}") from error
    labeler = pool.labeler(identity, LoadLabeler(task, identity).load_new)
    try:
        labeler.restore(file)
    except (OSError, ValueError, KeyError) as error:
        raise RunFailed(f"{file}: is damaged ({error}); delete it") from error
    return labeler


@dataclass(frozen=True, eq=False)
class _Player:
    """Plays the conditions of each seed.

    Attributes:
        options, task, corpus: of the simulation.
        root: its folder.
        say: told, in one line each, what a person should know.
        forecast: counts what is done.
        pool: remembers what LLM-0 and encoders said.
    """

    options: SimulateOptions
    task: Task
    corpus: Corpus
    root: Path
    say: Say
    forecast: Forecast
    pool: LabelerPool

    def play(self, seed: int) -> dict[str, Any]:
        """Play a seed, or return what an earlier run of it found."""
        folder = self.root / f"seed-{seed:02d}"
        task = self.task.model_copy(update={"seed": seed})
        settings = dataclasses.asdict(self.options)
        wanted = config_hash(
            {
                "task": task.model_dump(mode="json"),
                "options": {name: settings[name] for name in settings.keys() - _ELSEWHERE},
                "corpus": config_hash(self.corpus.content()),
            }
        )
        results = folder / RESULTS_FILE
        if results.is_file():
            held = _read_json(results, "settings", "finished")
            if held["settings"] != wanted:
                raise UsageError(
                    f"{folder}: holds a simulation with other options, task or corpus; give another "
                    "--workspace"
                )
            if held["finished"]:
                self.say(f"seed {seed}: simulated already")
                self.forecast.skip_seed()
                return held
        else:
            _write_json(results, {"settings": wanted, "finished": False})
        found = {"settings": wanted, "finished": True, **self._play(seed, task, folder)}
        _write_json(results, found)
        return found

    def _play(self, number: int, task: Task, folder: Path) -> dict[str, Any]:
        options, corpus = self.options, self.corpus
        division = divide(corpus, options.prevalence, options.holdout, number)
        verdicts = experts.expert_verdicts(
            corpus, options, task.review.experts_per_ad, number, lambda: self._vectors
        )
        row_of = {key: row for row, key in enumerate(corpus.keys)}
        seed = Seed(number, task, corpus, row_of, division, verdicts, self.pool)
        others = [name for name in options.also if name != task.training.learner]
        measurer = Measurer(seed, others, options.also_from, self.say, self.forecast)
        ads = _write_pool(folder / POOL_FILE, corpus, division)
        wanted: Sequence[int] = options.labels
        # Of boundary: the crowd is measured on it, and its labels leave it out.
        evaluation = np.zeros(0, dtype=np.intp)
        stops = []
        for strategy in options.strategies:
            # Minutes buy each strategy what they buy; items would be made as many labels for all.
            in_minutes = task.selection.minutes is not None
            if not wanted and strategy != OURS and not in_minutes:
                wanted = [task.selection.budget * (i + 1) for i in range(options.rounds)]
            loop = Loop(seed, strategy, folder, ads)
            rounds: list[Round] = []
            for n in range(1, options.rounds + 1):
                have = len(rounds[-1].ads.keys) if rounds else 0
                play = functools.partial(loop.play, n, wanted[n - 1] - have if wanted else None)
                rounds.append(measurer.played(strategy, play))
            own = loop.evaluation()
            measurer.measure(strategy, rounds, own)
            stops.append(loop.stop(options.rounds))
            if strategy == OURS:
                evaluation = own
                if not in_minutes:
                    wanted = wanted or [len(played.ads.keys) for played in rounds]
        asked = np.setdiff1d(division.pool, evaluation)
        cue = functools.cache(lambda: experts.crowd_cue(self._vectors, number)[asked])
        for crowd in options.crowds:
            labels = functools.partial(_crowd, seed, crowd, asked, options.crowd_labels, cue)
            measurer.measure(crowd.name, [measurer.played(crowd.name, labels)], evaluation)
        return {"rows": measurer.rows, "stops": stops}

    @functools.cached_property
    def _vectors(self) -> np.ndarray:
        """The frozen encoder's vectors of the whole corpus, computed once."""
        self.say(f"embedding {len(self.corpus):,} ads")
        return experts.embed(self.corpus, self.task, self.pool.vectors)


def _crowd(
    seed: Seed, crowd: Crowd, asked: np.ndarray, number: int | None, cue: Callable[[], np.ndarray]
) -> Round:
    """Let a crowd label so many of the ads that it is asked about (None: all), and learn from them."""
    keys = seed.keys(asked)
    labels = experts.crowd_labels(crowd, seed.corpus.gold[asked], keys, seed.number, cue)
    ranks = hashing.ranks(keys, seed.number + 3)
    chosen = np.sort(np.argsort(ranks, kind="stable")[:number])
    rows = asked[chosen]
    ads = trainer.LabelledAds(tuple(seed.keys(rows)), tuple(seed.texts(rows)), labels[chosen])
    return Round(1, ads, learn(seed, seed.task.training.learner, ads))


def _write_pool(path: Path, corpus: Corpus, division: Division) -> Path:
    """Write what the conditions may ask about, as ``scout mine`` reads it."""
    lines = [json.dumps(corpus.record(i), ensure_ascii=False) for i in division.pool]
    data = ("\n".join(lines) + "\n").encode()
    # The corpus's age is part of what was scored: an unchanged file keeps it.
    if not path.is_file() or path.read_bytes() != data:
        storage.write(str(path), data)
    return path


def _read_json(path: Path, *names: str) -> dict[str, Any]:
    """Return what :func:`_write_json` wrote.

    Raises:
        RunFailed: it is damaged, or lacks one of the names.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        for name in names:
            found[name]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise RunFailed(
            f"{path}: is damaged ({type(error).__name__}: {error}); delete it, and what it holds is made anew"
        ) from error
    held: dict[str, Any] = found
    return held


def _write_json(path: Path, value: Any) -> None:
    storage.write(str(path), (json.dumps(value, indent=1) + "\n").encode())

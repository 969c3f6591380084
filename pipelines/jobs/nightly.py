"""Composition: a night's files scored, the last nights mined together, experts given what is new.

A night is known by its date. Its files are scored beside it, as those of every date of the window that no
night has read yet, or that changed since; a round's corpus joins the dates. Each run of a night leaves a
manifest when it begins and one when it ends, so that a kill shows, and what it had scored is known. Whatever
a night chooses opens a round of its own: what an earlier one showed is shown by none after it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import apache_beam as beam
import numpy as np

from pipelines.config import Task, given_task
from pipelines.console import metrics
from pipelines.console.typed import typed
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import mine, watching
from pipelines.jobs.nights import (
    Night,
    Nights,
    PlannedNight,
    PlannedNights,
    metrics_files,
    refresh,
)
from pipelines.jobs.outcome import outcome
from pipelines.jobs.running import pipeline_options, run_pipeline, submits_only
from pipelines.jobs.status import open_ads
from pipelines.jobs.watching import Bounds, is_completed
from pipelines.numerics import calibration, drift
from pipelines.sources import registry as sources
from pipelines.sources.base import Listed, NothingThere
from pipelines.stages.check_corpus import NO_RECORDS
from pipelines.stages.label_ads import SumMargins, choose_threshold
from pipelines.stages.read_parts import ReadParts
from pipelines.store import files, scores, storage, students
from pipelines.store.facts import (
    BEGUN,
    COMPLETED,
    EMPTY,
    FAILED,
    STOPPED,
    Alert,
    NightFacts,
    NightFigures,
    PairsFacts,
    ScoredFacts,
)
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.strategies.base import NOTHING_LEFT

Say = Callable[[str], None]
Reprocess = Literal["none", "failed", "completed"]
HandOut = Literal["when_labelled", "every_night"]


@dataclass(frozen=True, slots=True)
class NightlyOptions:
    """Everything ``scout nightly`` was told; see ``pipelines.api.nightly``.

    Attributes:
        mine: what a night does with its files; ``{date}`` stands in the corpus.
        dates: the nights, in their order.
        window: dates that are mined together, the night's own the last.
        reprocess: dates that are run again: none, those that came to nothing, or completed ones, too.
        hand_out: when experts get new pairs.
        dry_run: tell what would run.
        max_ads: ads that the model may read for a night.
        max_cost: what they may cost.
        price: of 1,000 ads that the model reads.
        bounds: beyond which there is an alert.
    """

    mine: mine.MineOptions
    dates: tuple[str, ...]
    window: int = 1
    reprocess: Reprocess = "failed"
    hand_out: HandOut = "when_labelled"
    dry_run: bool = False
    max_ads: int | None = None
    max_cost: float | None = None
    price: float | None = None
    bounds: Bounds = field(default_factory=Bounds)

    def corpus(self, date: str) -> tuple[str, ...]:
        """Return the globs of a date's files."""
        return tuple(pattern.replace("{date}", date) for pattern in self.mine.corpus)

    def window_of(self, date: str) -> list[str]:
        """Return the dates that a night mines together, oldest first."""
        last = datetime.date.fromisoformat(date)
        days = range(self.window - 1, -1, -1)
        return [(last - datetime.timedelta(days=ago)).isoformat() for ago in days]

    def limit(self) -> int | None:
        """Return how many ads the model may read for a night; None for any number."""
        found = [] if self.max_ads is None else [self.max_ads]
        if self.max_cost is not None and self.price:
            found.append(math.floor(round(self.max_cost / self.price * 1000, 6)))
        return min(found, default=None)

    def check(self) -> None:
        """Refuse what no night can go by.

        Raises:
            UsageError: says which flag.
        """
        for pattern in self.mine.corpus:
            if "{date}" not in pattern:
                raise UsageError(
                    f"--corpus {pattern}: {{date}} is missing; each night has files of its own, such as "
                    "'ads/dt={date}/*.parquet'"
                )
        if self.max_cost is not None and not self.price:
            raise UsageError(
                "--max_cost: give --price, too: what 1,000 ads cost that the model reads"
            )
        if submits_only(pipeline_options(self.mine.beam)):
            raise UsageError(
                "--no_wait_until_finish, --template_location: a night waits for its jobs, or nobody would "
                "know what came of it"
            )


def dates_between(first: str, last: str) -> tuple[str, ...]:
    """Return all dates from the first to the last."""
    start, stop = map(datetime.date.fromisoformat, (first, last))
    days = (stop - start).days + 1
    return tuple((start + datetime.timedelta(days=n)).isoformat() for n in range(days))


def nightly(options: NightlyOptions, say: Say) -> Nights | PlannedNights:
    """Run a night, or several one after the other.

    Raises:
        UsageError: the arguments or the task file are wrong.
        RunFailed: the one night that was asked for came to nothing. Of several, the others go on, and the
            result tells.
    """
    options.check()
    task, workspace = given_task(options.mine.task), Workspace(options.mine.workspace)
    if options.dry_run:
        return _planned(workspace, task, options)
    with workspace.writing("nightly", say):
        nights = workspace.night.by_date()
        _close_killed(workspace, nights)
        for date in options.dates:
            night = nights.get(date)
            if not _runs(night, options.reprocess):
                assert night is not None
                say(_left_alone(night.facts, task))
                continue
            try:
                nights[date] = _Night(workspace, task, options, date, nights, say).run()
            except (RunFailed, UsageError) as error:
                failed = workspace.night.latest(date)
                assert failed is not None, "it began"
                nights[date] = failed
                refresh(workspace, nights)
                if len(options.dates) == 1:
                    raise
                say(f"{date}: {_words(error)}")
        refresh(workspace, nights)
    found = tuple(Night.of(nights[date].facts) for date in options.dates if date in nights)
    handed_out = max((night.round for night in found), default=0)
    sheet = next_step = ""
    if handed_out and (review := workspace.review.latest(handed_out)):
        sheet = workspace.path(review.file("review.csv").path)
        next_step = typed("export --tool page", workspace=workspace.root)
    return Nights(task.name, found, sheet, next_step)


def _words(error: Exception) -> str:
    if isinstance(error, UsageError):
        return error.typed
    return error.message if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"


def _runs(night: Manifest[NightFacts] | None, reprocess: Reprocess) -> bool:
    """Tell whether a date is run, given what there is of it."""
    if night is None or reprocess == "completed":
        return True
    return reprocess == "failed" and not is_completed(night)


def _left_alone(night: NightFacts, task: Task) -> str:
    flag = "completed" if night.state == COMPLETED else "failed"
    other = (
        ""
        if night.task_version == task.version
        else f", by version {night.task_version} of the policy"
    )
    return f"{night.date}: {night.state}{other}; nothing to do (--reprocess {flag} runs it again)"


def _close_killed(workspace: Workspace, nights: dict[str, Manifest[NightFacts]]) -> None:
    """Say of runs that were killed what they had scored: this one alone is at work, and writes more."""
    for date, night in nights.items():
        if night.facts.state == BEGUN:
            facts = replace(
                night.facts,
                state=STOPPED,
                scored=_gained(night.facts.stored, scores.stored_ads(workspace.root)),
                told="was killed, or its machine died",
            )
            nights[date] = _commit(workspace, facts, night.config_hash)


def _gained(before: Mapping[str, int], now: Mapping[str, int]) -> dict[str, int]:
    return {key: n - before.get(key, 0) for key, n in now.items() if n > before.get(key, 0)}


def _commit(
    workspace: Workspace,
    facts: NightFacts,
    wanted: str,
    attempt: str = "",
    own: Sequence[BlockFile] = (),
) -> Manifest[NightFacts]:
    attempt = attempt or workspace.new_attempt(facts.date, "night")
    manifest = Manifest.of(attempt, wanted, own, facts.figures.ads if facts.figures else 0, facts)
    workspace.commit(manifest)
    return manifest


class _Night:
    """One night at work.

    Args:
        workspace: locked.
        task: of the task file.
        options: see :class:`NightlyOptions`.
        date: logical date.
        nights: newest attempts of all nights.
        say: told, in one line each, what a person should know; nothing twice.
    """

    def __init__(
        self,
        workspace: Workspace,
        task: Task,
        options: NightlyOptions,
        date: str,
        nights: Mapping[str, Manifest[NightFacts]],
        say: Say,
    ) -> None:
        self._workspace, self._task, self._options = workspace, task, options
        self._date, self._nights = date, nights
        self._say = functools.cache(say)
        # What makes the night less than it could be, for its manifest.
        self._told: list[str] = []
        # What runs of this date left, at their beginnings and their ends; and those since it was done last.
        self._earlier = workspace.night.all(date)
        done = [n for n, m in enumerate(self._earlier, start=1) if is_completed(m)]
        self._unfinished = self._earlier[max(done, default=0) :]
        self._facts = NightFacts(
            date,
            BEGUN,
            task.name,
            task.version,
            options.mine.corpus,
            stored=scores.stored_ads(workspace.root),
        )
        self._hash = config_hash(
            {"task": task.model_dump(mode="json"), "corpus": options.mine.corpus, "date": date}
        )

    def run(self) -> Manifest[NightFacts]:
        """Run it to its end, or note why there is none."""
        started = time.monotonic()
        _commit(self._workspace, self._facts, self._hash)
        try:
            return self._run(started)
        except Exception as error:
            self._end(FAILED, told=_words(error))
            raise

    def _end(self, state: str, attempt: str = "", **facts: Any) -> Manifest[NightFacts]:
        scored = _gained(self._facts.stored, scores.stored_ads(self._workspace.root))
        ended = replace(self._facts, state=state, scored=scored, **facts)
        attempt = attempt or self._workspace.new_attempt(self._date, "night")
        own = metrics_files(self._workspace.root, attempt, self._task.name, Night.of(ended))
        margins = self._workspace.path(f"{attempt}/{watching.MARGINS}")
        if ended.figures:
            data = storage.read(margins)
            own.append(BlockFile(f"{attempt}/{watching.MARGINS}", 1, len(data), files.sha256(data)))
        return _commit(self._workspace, ended, self._hash, attempt, own)

    def _run(self, started: float) -> Manifest[NightFacts]:
        there = [d for d in self._options.window_of(self._date) if self._files(d)]
        if self._date not in there:
            return self._end_empty("there are no files")
        try:
            own = self._take(self._date)
        except RunFailed as error:
            if error.message == NO_RECORDS:
                return self._end_empty("there are no records")
            raise
        taken = {self._date: own}
        for date in there:
            if date != self._date:
                # What is wrong with another date is told, and does not take this one's pairs away.
                try:
                    taken[date] = self._take(date)
                except RunFailed as error:
                    self._tell(f"{date} is left out: {error.message}")
        taken = dict(sorted(taken.items()))
        attempt = self._workspace.new_attempt(self._date, "night")
        histogram = self._measure(own, attempt)
        held, mined = self._hand_out(list(taken.values()))
        key = own.facts.origin.score_key
        before = watching.Before.of(self._nights, self._date, key)
        rule = mine.label_rule(self._task, self._model())
        yardstick = before.yardstick()
        if yardstick is None:
            yardstick = (
                mined.facts.threshold.margin if mined else choose_threshold(histogram, rule).margin
            )
        stability = (
            drift.stability(histogram, before.histogram(self._workspace.root)) if before else None
        )
        read = self._scored(self._earlier, key)
        by = self._task.cascade.by
        foretold = self._scored(self._earlier, students.foretold_key(key, by)) if by else 0
        figures = NightFigures(
            records=own.facts.records,
            rejected=own.facts.rejected,
            ads=own.rows,
            new=read + foretold,
            late=self._late(taken),
            window_ads=self._window_ads(taken, mined),
            positives=int(histogram[calibration.bins_of(np.array([yardstick]))[0] :].sum()),
            yardstick=yardstick,
            drift=round(stability.index, 6) if stability else None,
            pairs=mined.rows if mined else 0,
            held=held,
            seconds=round(time.monotonic() - started, 2),
            cost=round(read * self._options.price / 1000, 6) if self._options.price else None,
        )
        jumped = ""
        if before:
            jumped = watching.jumped(
                self._workspace, own.attempt, before, self._options.bounds.jump, self._task.seed
            )
        # Else a night of another date has read them before.
        others = (night.facts for date, night in self._nights.items() if date != self._date)
        expects_new = all(own.attempt != facts.taken.get(self._date) for facts in others)
        return self._end(
            COMPLETED,
            attempt,
            round=mined.round if mined else 0,
            score_key=key,
            taken={date: scored.attempt for date, scored in taken.items()},
            told="; ".join(self._told),
            figures=figures,
            alerts=watching.alerts_of(
                figures,
                before,
                stability,
                jumped,
                self._options.bounds,
                expects_new,
            ),
        )

    def _end_empty(self, why: str) -> Manifest[NightFacts]:
        alerts = (Alert(watching.NO_NEW_ADS, f"{why} of {self._date}"),)
        return self._end(EMPTY, told=f"{why} of {self._date}", alerts=alerts)

    def _tell(self, line: str) -> None:
        self._told.append(line)
        self._say(f"{self._date}: {line}")

    def _files(self, date: str) -> tuple[str, ...]:
        """Return the globs of a date that name something."""
        return tuple(p for p in self._options.corpus(date) if next(listed(p), None))

    def _take(self, date: str) -> Manifest[ScoredFacts]:
        """Return the scored ads of a date's files, which are scored now if they are new."""
        asked = replace(self._options.mine, corpus=self._files(date), date=date)
        plan = mine.prepare(asked, self._say, self._fresh_round(), date)
        if plan.scored is None:
            limit = self._options.limit()
            if limit is not None:
                limit -= self._scored(self._unfinished, plan.score_key)
            plan = replace(plan, most=limit)
            metrics.reset()
            run_pipeline(asked.beam, functools.partial(_score, plan), self._say)
        found = self._workspace.scored.find(date, plan.scored_hash)
        if found is None:
            raise RunFailed(f"the pipeline ended without a manifest for the ads of {date}")
        return found

    def _scored(self, runs: Sequence[Manifest[NightFacts]], key: str) -> int:
        """Return how many ads were scored under a key in some runs and in this one."""
        now = _gained(self._facts.stored, scores.stored_ads(self._workspace.root))
        return now.get(key, 0) + sum(run.facts.scored.get(key, 0) for run in runs)

    def _measure(self, own: Manifest[ScoredFacts], attempt: str) -> np.ndarray:
        """Count the date's ads by margin, and write that into the attempt."""
        path = self._workspace.path(f"{attempt}/{watching.MARGINS}")
        root = self._workspace.root

        def build(pipeline: beam.Pipeline) -> None:
            _ = (
                pipeline
                | "Scored" >> beam.Create(list(own.files), reshuffle=False)
                | "ReadParts" >> ReadParts(root)
                | "SumMargins" >> SumMargins(root)
                | "WriteMargins" >> beam.Map(lambda h: storage.write(path, watching.packed(h[0])))
            )

        run_pipeline(self._options.mine.beam, build, self._say)
        try:
            return watching.unpacked(storage.read(path))
        except FileNotFoundError:
            # As a job is that was cancelled: it fails nothing.
            raise RunFailed(f"{path}: the job that counts scores ended without it") from None

    def _fresh_round(self) -> int:
        """Return a round that nobody has seen anything of."""
        last = max(self._workspace.rounds(), default=0)
        return last + 1 if not last or self._workspace.review.latest(last) else last

    def _model(self) -> Any:
        return mine.newest_model(self._workspace, self._task, self._fresh_round())

    def _hand_out(
        self, taken: Sequence[Manifest[ScoredFacts]]
    ) -> tuple[str, Manifest[PairsFacts] | None]:
        """Choose what experts get; -> why nothing now, or the pairs, or neither."""
        corpus = tuple(p for scored in taken for p in scored.facts.origin.corpus)
        asked = replace(self._options.mine, corpus=corpus, date=self._date)
        if own := self._chosen_before(asked, taken):
            return "", own
        if held := waiting(self._workspace, self._task, self._options.hand_out):
            self._tell(
                f"{held}; no new pairs until then (--hand_out every_night gives some at once)"
            )
            return held, None
        plan = mine.prepare(asked, self._say, self._fresh_round(), dates=taken)
        if plan.scored is None and len(taken) == 1:
            plan = mine.adopt(plan)
        started = time.monotonic()
        metrics.reset()
        try:
            ran = run_pipeline(asked.beam, functools.partial(mine.build_pipeline, plan), self._say)
        except RunFailed as error:
            if error.message != NOTHING_LEFT:
                raise
            self._tell(error.message)
            return "", None
        assert isinstance(ran, dict), "it was waited for"
        mined = outcome(plan, ran, time.monotonic() - started)
        return "", self._workspace.pairs_of(mined.round)

    def _chosen_before(
        self, asked: mine.MineOptions, taken: Sequence[Manifest[ScoredFacts]]
    ) -> Manifest[PairsFacts] | None:
        """Return the pairs that a killed run of this night chose, if it would choose them again."""
        reviews = self._workspace.review.by_round()
        if not self._unfinished or not reviews:
            return None
        number = max(reviews)
        review = reviews[number]
        if review.facts.origin.date != self._date or review.created < self._unfinished[0].created:
            return None
        plan = mine.prepare(asked, self._say, number, dates=taken)
        return self._workspace.pairs_of(number) if plan.finished else None

    def _late(self, taken: Mapping[str, Manifest[ScoredFacts]]) -> int:
        """Return by how many ads earlier dates grew since a night had read them."""
        late = 0
        for date, scored in taken.items():
            reads = [
                night
                for night in self._nights.values()
                if date in night.facts.taken and night.facts.date != self._date
            ]
            if date != self._date and reads:
                last = max(reads, key=lambda night: (night.created, night.facts.date))
                # Gone where somebody removed it.
                with contextlib.suppress(FileNotFoundError):
                    late += scored.rows - self._workspace.manifest(last.facts.taken[date]).rows
        return late

    def _window_ads(
        self, taken: Mapping[str, Manifest[ScoredFacts]], mined: Manifest[PairsFacts] | None
    ) -> int:
        """Return the distinct ads of the window; where nothing was mined, what its dates add up to."""
        if mined:
            return mined.facts.threshold.n_positive + mined.facts.threshold.n_negative
        return sum(scored.rows for scored in taken.values())


def listed(pattern: str) -> Iterator[Listed]:
    """Yield what a ``--corpus`` value names; nothing is no error."""
    try:
        yield from sources.source_of(pattern).list_items(pattern)
    except NothingThere:
        return


def waiting(workspace: Workspace, task: Task, hand_out: HandOut) -> str:
    """Say which round of this policy version experts are still at, "" for none."""
    reviews = workspace.review.by_round()
    number = max(reviews, default=0)
    if (
        hand_out == "every_night"
        or not number
        or reviews[number].facts.origin.task.version != task.version
        or workspace.model.latest(number)
    ):
        return ""
    left = open_ads(workspace, number)
    return f"round {number} waits for labels of {left:,} ads" if left else ""


def _score(plan: mine.Plan, pipeline: beam.Pipeline) -> None:
    mine.score(plan, pipeline, mine.provenance(plan))


def _planned(workspace: Workspace, task: Task, options: NightlyOptions) -> PlannedNights:
    """Tell what would run; nothing is written."""
    nights = workspace.night.by_date()
    planned = []
    for date in options.dates:
        night = nights.get(date)
        found = {(i.source, i.place): i.bytes for p in options.corpus(date) for i in listed(p)}
        why = "never ran" if night is None else night.facts.state
        what = "run" if night is None else "run again"
        if not _runs(night, options.reprocess):
            what = "leave"
        elif not found:
            why += ", without a file"
        planned.append(PlannedNight(date, what, why, len(found), sum(found.values())))
    window = tuple(options.window_of(options.dates[-1]))
    return PlannedNights(
        task.name, tuple(planned), window, waiting(workspace, task, options.hand_out)
    )

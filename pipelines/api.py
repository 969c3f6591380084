"""What a notebook calls: every command of ``scout``, as a function.

    from pipelines import api

    mined = api.mine("task.yaml", "ads/*.jsonl", "workspace")
    api.export("workspace", "page")
    api.import_verdicts("workspace", ["anna.csv", "bo.csv"])
    api.train("workspace")
    api.status("workspace")

Arguments mean what the flags of the same names mean (``scout mine --help``). What comes back is shown
as the command would print it, and has it as fields; ``to_json()`` is what ``--json`` prints. Nothing is
printed unless ``progress`` is set: then what is done, and how far it is, goes to stderr. What a person
should know of a run is in the result's ``notes``, too.

Every function raises ``pipelines.errors.UsageError`` for what the caller can mend, and ``RunFailed``
where the run could not produce what it promised. Nothing heavy is loaded before it is needed.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from pipelines.console import progress as console
from pipelines.errors import UsageError
from pipelines.jobs.calling import call
from pipelines.jobs.results import (
    Audited,
    Exported,
    Ingested,
    Mined,
    Prompts,
    Standing,
    Submitted,
    Trained,
)
from pipelines.simulation.conditions import CROWD_NOISES, DEFAULT_CONDITIONS

if TYPE_CHECKING:
    from pipelines.config import AboveZero, Count, InnerShare, Money, Name, Share, Task
    from pipelines.jobs.explained import Explained, NotAnAd
    from pipelines.jobs.init import Started
    from pipelines.jobs.mine import MineOptions
    from pipelines.jobs.nights import Nights, PlannedNights
    from pipelines.jobs.publish import Published
    from pipelines.jobs.recheck import Rechecked
    from pipelines.jobs.validate import Validated
    from pipelines.report.output import Report
    from pipelines.simulation.advice import Advised
    from pipelines.simulation.results import Simulated

Place = str | os.PathLike[str]


def init(
    task_file: Place,
    *,
    policy: str = "",
    positive: str = "",
    negative: str = "",
    prior: InnerShare | None = None,
    name: Name | Literal[""] = "",
    question: str = "",
    corpus: Place | Sequence[Place] = (),
    text_field: str = "",
    id_field: str = "",
    weight_field: str = "",
    format: str = "",
    encoding: str = "",
    delimiter: str = "",
    force: bool = False,
    progress: bool = False,
) -> Started:
    """Write a task file for a policy, with comments, after a look at the corpus.

    Args:
        task_file: YAML file to write.
        policy: the policy as the experts know it, or a .txt or .md file that holds it.
        positive: what experts call an ad that violates it.
        negative: what they call any other.
        prior: expected share of violating ads among the different texts; a guess will do.
        name: of the task; by default the file's.
        question: put to the model; by default whether the ad is what the positive label says.
        corpus: files to look at, local or ``gs://``: their fields, languages, lengths, copies and templates.
        text_field: field with the ad's text; by default what looks like it.
        id_field: field with the ad's id; by default what looks like it.
        weight_field: field with the ad's weight; by default what looks like it.
        format: instead of going by the files' names and first bytes.
        encoding: of text, as in ``mine``.
        delimiter: between the cells of CSV, as in ``mine``.
        force: replace a file that is there.
        progress: tell on stderr what is done.
    """
    with call(init, locals()) as say:
        from pipelines.jobs import init as job
        from pipelines.sources.base import ReadOptions
        from pipelines.sources.layout import FORMATS

        _choose("format", [format] if format else [], FORMATS)
        needed = {"policy": policy, "positive": positive, "negative": negative, "prior": prior}
        if not all(needed.values()):
            raise job.missing(needed, list(needed))
        assert prior is not None
        options = job.InitOptions(
            task_file=os.fspath(task_file),
            name=name,
            policy=policy,
            question=question,
            positive=positive,
            negative=negative,
            prior=prior,
            corpus=_several(corpus),
            read=ReadOptions(
                id_field,
                text_field,
                weight_field,
                format,
                encoding=_encoding(encoding),
                delimiter=_delimiter(delimiter),
            ),
            force=force,
        )
        return say.end(job.init(options))


def validate(
    task: Task | Place, *, ad: str = "Your ad stands here", progress: bool = False
) -> Validated:
    """Check a task file, tell which of its settings have no effect, and show the prompt.

    Args:
        task: the task, or its file.
        ad: to show in the prompt.
        progress: tell on stderr what is done.
    """
    with call(validate, locals()) as say:
        from pipelines.jobs import validate as job

        return say.end(job.validate(_task(task), ad))


def mine(
    task: Task | Place,
    corpus: Place | Sequence[Place],
    workspace: Place,
    *,
    budget: Count | None = None,
    date: str | None = None,
    id_field: str = "",
    text_field: str = "",
    weight_field: str = "",
    format: str = "",
    encoding: str = "",
    delimiter: str = "",
    max_text_chars: Count = 20_000,
    max_rejected_share: Share = 0.01,
    block_rows: Count | None = None,
    range_bytes: Count = 64 << 20,
    scoring_hint: Sequence[str] = (),
    beam: Sequence[str] = (),
    progress: bool = False,
) -> Mined | Submitted:
    """Score a corpus and choose what experts should look at.

    Args:
        task: the task, or its file.
        corpus: file, folder or glob, local or ``gs://``, or several.
        workspace: folder, local or ``gs://``.
        budget: pairs, instead of the task file's.
        date: logical date of a scheduled run; stands for {date} in the corpus.
        id_field: field with the ad's id, a name or a dotted path; by default `id` where a file has it, otherwise an id made from
            the text; `none` for the latter always.
        text_field: field with the ad's text; by default `text`, or what the task's ad.fields say.
        weight_field: field with the ad's weight.
        format: instead of going by the files' names and first bytes.
        encoding: of text, such as cp1252; by default what a file's first bytes show, which is told.
        delimiter: between the cells of CSV, one character or `tab`; by default what suits the header.
        max_text_chars: longer ads are rejected.
        max_rejected_share: fail when more of the records are unusable.
        block_rows: ads a scored block, lost at most when a run is killed; by default 1024, on a cluster
            32768 (about 30 MB).
        range_bytes: large JSONL, text, CSV and Parquet files are read in parts of about this size.
        scoring_hint: what the workers that ask the model need, on runners that heed it: one of Beam's
            resource hints, such as min_ram=16GB or accelerator=type:nvidia-l4;count:1;install-nvidia-driver.
        beam: Beam's own flags, such as ``["--runner=DataflowRunner"]``; with --template_location, --dry_run or
            --no_wait_until_finish the job is handed over and not waited for.
        progress: tell on stderr what is done.
    """
    with call(mine, locals()) as say:
        from pipelines.jobs import mine as job

        options = _mine_options(
            {**locals(), "corpus": _dated(_several(corpus), date), "date": date or ""}
        )
        return say.end(job.mine(options, say))


def _mine_options(given: Mapping[str, Any]) -> MineOptions:
    """Return what `mine` and `nightly` are told alike."""
    from pipelines.jobs.mine import MineOptions
    from pipelines.sources.base import ReadOptions
    from pipelines.sources.layout import FORMATS

    _choose("format", [given["format"]] if given["format"] else [], FORMATS)
    return MineOptions(
        task=_task(given["task"]),
        corpus=given["corpus"],
        workspace=os.fspath(given["workspace"]),
        date=given["date"],
        budget=given["budget"],
        read=ReadOptions(
            given["id_field"],
            given["text_field"],
            given["weight_field"],
            given["format"],
            given["max_text_chars"],
            encoding=_encoding(given["encoding"]),
            delimiter=_delimiter(given["delimiter"]),
        ),
        max_rejected_share=given["max_rejected_share"],
        block_rows=given["block_rows"],
        range_bytes=given["range_bytes"],
        scoring_hints=tuple(given["scoring_hint"]),
        beam=tuple(given["beam"]),
    )


def nightly(
    task: Task | Place,
    corpus: Place | Sequence[Place],
    workspace: Place,
    *,
    date: str | None = None,
    backfill: str = "",
    window: Count = 1,
    reprocess: Literal["none", "failed", "completed"] = "failed",
    hand_out: Literal["when_labelled", "every_night"] = "when_labelled",
    dry_run: bool = False,
    max_ads: Count | None = None,
    max_cost: Money | None = None,
    price: Money | None = None,
    alert: Sequence[str] = (),
    budget: Count | None = None,
    id_field: str = "",
    text_field: str = "",
    weight_field: str = "",
    format: str = "",
    encoding: str = "",
    delimiter: str = "",
    max_text_chars: Count = 20_000,
    max_rejected_share: Share = 0.01,
    block_rows: Count | None = None,
    range_bytes: Count = 64 << 20,
    scoring_hint: Sequence[str] = (),
    beam: Sequence[str] = (),
    progress: bool = False,
) -> Nights | PlannedNights:
    """Score a night's files, mine the last nights together, and tell what changed.

    A night that is done is left alone. Nothing that experts were shown is shown again.

    Args:
        task: the task, or its file.
        corpus: files of a night, with {date} in the name, local or ``gs://``, or several.
        workspace: folder, local or ``gs://``.
        date: the night, such as 2026-11-21; never taken from the clock.
        backfill: several nights instead, FROM..TO, the oldest first.
        window: dates that are mined together, the night's own the last; late files of them are found.
        reprocess: which nights are run again: none; failed, those that came to nothing; or completed ones, too.
        hand_out: when experts get new pairs: when_labelled, once the last ones are; or every_night.
        dry_run: tell what would run, and write nothing.
        max_ads: stop before the model reads more new ads than that for a night.
        max_cost: stop before they cost more than that; needs price.
        price: what 1,000 ads cost that the model reads, in any money.
        alert: another bound, NAME=VALUE: positive_share, rejected_share, drift or jump.
        budget: pairs, instead of the task file's.
        id_field: field with the ad's id, as in ``mine``.
        text_field: field with the ad's text; by default `text`, or what the task's ad.fields say.
        weight_field: field with the ad's weight.
        format: instead of going by the files' names and first bytes.
        encoding: of text, as in ``mine``.
        delimiter: between the cells of CSV, as in ``mine``.
        max_text_chars: longer ads are rejected.
        max_rejected_share: fail when more of a date's records are unusable.
        block_rows: ads a scored block, as in ``mine``.
        range_bytes: large files are read in parts of about this size.
        scoring_hint: what the workers that ask the model need, as in ``mine``.
        beam: Beam's own flags, as in ``mine``; a night waits for its jobs.
        progress: tell on stderr what is done.
    """
    with call(nightly, locals()) as say:
        from pipelines.jobs import nightly as job
        from pipelines.jobs.watching import bounds_of

        options = job.NightlyOptions(
            mine=_mine_options({**locals(), "corpus": _several(corpus), "date": ""}),
            dates=_dates(date, backfill),
            window=window,
            reprocess=reprocess,
            hand_out=hand_out,
            dry_run=dry_run,
            max_ads=max_ads,
            max_cost=max_cost,
            price=price,
            bounds=bounds_of(alert),
        )
        return say.end(job.nightly(options, say))


def _dates(date: str | None, backfill: str) -> tuple[str, ...]:
    """Return the nights that are asked for."""
    from pipelines.jobs.nightly import dates_between

    if bool(date) == bool(backfill):
        raise UsageError("--date, --backfill: give one of them, a night or FROM..TO")
    first, dots, last = backfill.partition("..") if backfill else (date or "", "..", date or "")
    try:
        found = dates_between(first, last) if dots else ()
    except ValueError:
        found = ()
    if not found:
        flag = "backfill" if backfill else "date"
        form = (
            "dates like 2026-11-19..2026-11-21, the oldest first"
            if backfill
            else "a date like 2026-11-21"
        )
        raise UsageError(f"--{flag}: not {form}: {backfill or date!r}")
    return found


def export(
    workspace: Place,
    tool: str,
    *,
    out: Place = "",
    round: Count | None = None,
    audit: bool = False,
    show_predictions: bool = False,
    force: bool = False,
    push: str = "",
    progress: bool = False,
) -> Exported:
    """Write a round's items for a labeling tool, or put them into its server.

    Args:
        workspace: folder, local or ``gs://``.
        tool: whose format; page is one HTML file to review in, without any tool.
        out: folder for the files; by default one in the workspace.
        round: whose items; by default the last one's.
        audit: the ads that `scout audit` drew in that round, instead of its items.
        show_predictions: let experts see what the model says.
        force: replace a review.csv that somebody filled in.
        push: URL of the tool's server, to put the items there instead of into files.
        progress: tell on stderr what is done.
    """
    with call(export, locals()) as say:
        from pipelines.jobs import export as job
        from pipelines.tools.registry import exporting

        _choose("tool", [tool], exporting())
        options = job.ExportOptions(
            os.fspath(workspace), tool, os.fspath(out), round, show_predictions, force, push, audit
        )
        return say.end(job.export(options, say))


def import_verdicts(
    workspace: Place,
    files: Place | Sequence[Place] = (),
    *,
    tool: str = "",
    pull: str = "",
    expert: str = "",
    experts: Mapping[str, str] | Place = "",
    on_conflict: Literal["ask", "keep", "replace"] = "ask",
    progress: bool = False,
) -> Ingested:
    """Read experts' verdicts into a workspace; the same answers twice change nothing.

    Args:
        workspace: folder, local or ``gs://``.
        files: verdict files, local or ``gs://``.
        tool: where the files come from; by default each file's name tells.
        pull: URL of the tool's server, to fetch the answers from there instead of files.
        expert: who labelled, for files that name nobody.
        experts: JSON object that names experts whom a tool numbers: {"3": "anna"}, or its file.
        on_conflict: which word of an expert counts where another import says otherwise and no times tell:
            keep the one imported first, replace it, or ask: list them and import nothing.
        progress: tell on stderr what is done.
    """
    with call(import_verdicts, locals()) as say:
        from pipelines.jobs import ingest

        names = experts if isinstance(experts, Mapping) else {}
        if not isinstance(experts, Mapping) and experts:
            names = ingest.read_experts(os.fspath(experts))
        options = ingest.IngestOptions(
            os.fspath(workspace), _several(files), tool, pull, expert, names, on_conflict
        )
        return say.end(ingest.ingest(options, say))


def train(
    workspace: Place, *, task: Task | Place = "", export: Place = "", progress: bool = False
) -> Trained:
    """Train on one half of the labels, evaluate on the other, and decide whether to go on.

    Args:
        workspace: folder, local or ``gs://``.
        task: task file with other settings of learning (training, stopping, prior, seed,
            review.consensus, review.min_overlap) than the pairs were mined with.
        export: also write a TensorFlow SavedModel that takes raw strings; a new folder.
        progress: tell on stderr what is done.
    """
    with call(train, locals()) as say:
        from pipelines.jobs import train as job

        options = job.TrainOptions(os.fspath(workspace), _task(task), os.fspath(export))
        return say.end(job.train(options, say))


def status(
    workspace: Place, *, nights: bool = False, stages: bool = False, progress: bool = False
) -> Standing | Nights:
    """Tell where a workspace's rounds stand, and what to do next.

    Args:
        workspace: folder, local or ``gs://``.
        nights: tell of its nights instead, a line each.
        stages: read what each stage says of itself, too.
        progress: tell on stderr what is done.
    """
    with call(status, locals()) as say:
        from pipelines.jobs.status import standing
        from pipelines.store.workspace import Workspace

        if nights:
            from pipelines.jobs.nights import nights_of

            return say.end(nights_of(Workspace(os.fspath(workspace))))
        found = standing(Workspace(os.fspath(workspace)), stages)
        if not found.rounds:
            raise UsageError(f"--workspace {workspace}: no rounds here; start with `scout mine`")
        return say.end(found)


def report(
    workspace: Place,
    *,
    out: Place = "",
    round: Count | None = None,
    progress: bool = False,
) -> Report:
    """Draw a round into one HTML file with its pictures.

    Args:
        workspace: folder, local or ``gs://``.
        out: by default the folder `report` in the workspace.
        round: by default the newest with pairs.
        progress: tell on stderr what is done.
    """
    with call(report, locals()) as say:
        from pipelines.report import round as job

        options = job.ReportOptions(os.fspath(workspace), os.fspath(out), round)
        with console.step("drawing the report"):
            return say.end(job.report(options, say))


def explain(
    workspace: Place,
    ad_id: str = "",
    *,
    ad: str = "",
    round: Count | None = None,
    progress: bool = False,
) -> Explained | NotAnAd:
    """Tell why an ad was, or was not, put before experts; nothing is changed.

    Args:
        workspace: folder, local or ``gs://``.
        ad_id: an ad of the corpus, by its id or content key.
        ad: a text instead, to score as the round's ads were.
        round: by default the newest that has the ad.
        progress: tell on stderr what is done.
    """
    with call(explain, locals()) as say:
        from pipelines.jobs import explain as job

        options = job.ExplainOptions(os.fspath(workspace), ad_id, ad, round)
        return say.end(job.explain(options, say))


def audit(
    task: Task | Place,
    workspace: Place,
    *,
    budget: Count = 300,
    beam: Sequence[str] = (),
    progress: bool = False,
) -> Audited | Submitted:
    """Draw ads at random, and estimate from their labels what holds for the whole corpus.

    The labels of these ads train no model and choose no threshold. The same budget again draws nothing
    new, a larger one only what is lacking.

    Args:
        task: the task, or its file.
        workspace: folder, local or ``gs://``.
        budget: ads to label in all, those that earlier audits of the same scores drew among them.
        beam: Beam's own flags, such as ``["--runner=DataflowRunner"]``.
        progress: tell on stderr what is done.
    """
    with call(audit, locals()) as say:
        from pipelines.jobs import audit as job

        options = job.AuditOptions(_task(task), os.fspath(workspace), budget, tuple(beam))
        return say.end(job.audit(options, say))


def recheck(workspace: Place, *, limit: Count = 50, progress: bool = False) -> Rechecked:
    """Find labels that look wrong, and write a sheet of them for a second look; no label is changed.

    What speaks against a label: a model that did not see it, an ad that reads nearly the same, or an expert
    who has drifted from the others. Labels of the fine-tuning half alone.

    Args:
        workspace: folder, local or ``gs://``.
        limit: labels that are listed, the most doubtful first.
        progress: tell on stderr what is done.
    """
    with call(recheck, locals()) as say:
        from pipelines.jobs import recheck as job

        return say.end(job.recheck(job.RecheckOptions(os.fspath(workspace), limit), say))


def publish(
    workspace: Place,
    to: str,
    *,
    round: Count | None = None,
    tables: Sequence[str] = ("pairs", "scores"),
    beam: Sequence[str] = (),
    progress: bool = False,
) -> Published | Submitted:
    """Load a round's pairs and scores into tables of BigQuery.

    A table is named by task, round and all that shaped it: again, it is put in its own place.

    Args:
        workspace: folder, local or ``gs://``.
        to: the dataset, ``bq://PROJECT.DATASET``.
        round: by default the newest with pairs.
        tables: pairs (a row an ad that is shown), scores (a row a distinct ad), or both.
        beam: Beam's own flags, such as ``["--temp_location=gs://bucket/tmp"]``.
        progress: tell on stderr what is done.
    """
    with call(publish, locals()) as say:
        from pipelines.jobs import publish as job

        _choose("tables", tables, ("pairs", "scores"))
        options = job.PublishOptions(os.fspath(workspace), to, round, tuple(tables), tuple(beam))
        return say.end(job.publish(options, say))


def prompts(
    task: Task | Place,
    corpus: Place | Sequence[Place],
    *,
    labels: Place = "",
    label_field: str = "label",
    ads: Count = 400,
    write: Place = "",
    out: Place = "",
    id_field: str = "",
    text_field: str = "",
    format: str = "",
    encoding: str = "",
    delimiter: str = "",
    progress: bool = False,
) -> Prompts:
    """Compare prompts for a task on a few ads of a corpus, without labels or with some.

    Args:
        task: the task, or its file.
        corpus: file, folder or glob, local or ``gs://``, or several.
        labels: labelled JSON lines with text and label; all are asked about.
        label_field: field with the label.
        ads: distinct ads that are asked about, the labelled ones among them.
        write: task file to write the choice into, its `prompt` section alone.
        out: folder for a report of the comparison, local or ``gs://``.
        id_field: field with the ad's id, as in ``mine``.
        text_field: field with the ad's text; by default `text`, or what the task's ad.fields say.
        format: instead of going by the files' names and first bytes.
        encoding: of text, as in ``mine``.
        delimiter: between the cells of CSV, as in ``mine``.
        progress: tell on stderr what is done.
    """
    with call(prompts, locals()) as say:
        import dataclasses

        import numpy as np

        from pipelines.config import given_task
        from pipelines.jobs import pilot
        from pipelines.jobs import prompts as job
        from pipelines.report.output import check_folder
        from pipelines.report.prompts import prompts_report
        from pipelines.simulation.labelled_corpus import Fields, read_labelled
        from pipelines.sources import registry as sources
        from pipelines.sources.base import ReadOptions
        from pipelines.sources.layout import FORMATS
        from pipelines.sources.survey import survey

        _choose("format", [format] if format else [], FORMATS)
        folder = check_folder(os.fspath(out)) if out else ""
        given = given_task(_task(task))
        read = given.reading(
            ReadOptions(
                id_field,
                text_field,
                format=format,
                encoding=_encoding(encoding),
                delimiter=_delimiter(delimiter),
            )
        )
        known: dict[str, int] = {}
        if labels:
            fields = Fields(label=label_field)
            found = read_labelled([os.fspath(labels)], fields, given.labels, read, "--labels")
            known = dict(zip(found.texts, found.gold.astype(int).tolist(), strict=True))
        parts = survey(_several(corpus), read, 64 << 20).ranges
        for line in sources.told(parts, read):
            say(line)
        sample = pilot.sample_texts(parts, read, given.seed, ads)
        texts = list(dict.fromkeys([*known, *sample]))[: max(ads, len(known))]
        options = job.PromptsOptions(
            task=given,
            source=_task(task),
            texts=tuple(texts),
            labels=np.array([known.get(text, -1) for text in texts]) if labels else None,
            write=os.fspath(write),
        )
        compared = job.compare(options, say)
        if folder:
            report = prompts_report(compared, folder, say)
            compared = dataclasses.replace(compared, report=report.path)
        return say.end(compared)


def simulate(
    task: Task | Place,
    corpus: Place | Sequence[Place],
    workspace: Place,
    *,
    experts: Literal["gold", "recorded"] = "gold",
    expert_kappa: AboveZero = 0.8,
    label_field: str = "label",
    ratings_field: str = "ratings",
    label_file: Place = "",
    prevalence: InnerShare | None = None,
    rounds: Count | None = None,
    labels: Sequence[Count] = (),
    conditions: Sequence[str] = DEFAULT_CONDITIONS,
    seeds: Count = 1,
    first_seed: int = 1,
    learner: Literal["llm", "encoder", "head"] | None = None,
    also: Sequence[Literal["encoder", "head"]] = (),
    also_from: Count = 1,
    holdout: InnerShare = 0.2,
    crowd_labels: Count | None = None,
    crowd_kappa: Sequence[AboveZero] = (0.59, 0.41),
    crowd_noise: Sequence[str] = CROWD_NOISES,
    progress: bool = False,
) -> Simulated:
    """Play the whole loop on a labelled corpus, beside what it competes with.

    Args:
        task: the task, or its file.
        corpus: glob of labelled JSON lines, or several.
        workspace: local folder; a rerun goes on there.
        experts: gold, simulated from the label field, or recorded, people's own labels in the ratings
            field.
        expert_kappa: kappa between two simulated experts on a class-balanced sample; 1 never errs.
        label_field: field with the label.
        ratings_field: object of name to label.
        label_file: JSON lines with id and those fields, where the corpus does not hold them.
        prevalence: thin the positives out to this share, and take it as the prior; by default the
            corpus as it is, and the task's prior.
        rounds: by default as many as labels says, else 5.
        labels: fine-tuning labels to reach after each round; by default the task's budget each round.
        conditions: selection strategies, random+uncertainty for the one in the first round and the other
            from then on, or crowd for the labels of one; by default boundary, random, uncertainty and crowd.
        seeds: how often, each time with other chance.
        first_seed: of them.
        learner: instead of the task's; it trains and mines.
        also: another learner trained on the same labels.
        also_from: train the other learners from so many labels on.
        holdout: share of the corpus kept as the natural-prevalence test sample.
        crowd_labels: labels bought from the crowd; by default every ad that is not held out.
        crowd_kappa: between the crowd and the experts; by default 0.59 and 0.41, each for itself.
        crowd_noise: what the crowd's errors follow; by default text and uniform, each for itself.
        progress: tell on stderr what is done.
    """
    given = dict(locals())
    with call(simulate, given) as say:
        from pipelines.simulation import conditions as known
        from pipelines.simulation.options import options_of
        from pipelines.simulation.play import simulate as job
        from pipelines.simulation.results import Simulated

        _choose("conditions", conditions, known.conditions())
        _choose("crowd_noise", crowd_noise, CROWD_NOISES)
        if list(labels) != sorted(set(labels)):
            raise UsageError(f"--labels: must increase from round to round, got {labels}")
        del given["progress"]
        given |= {"task": _task(task), "corpus": _several(corpus)}
        given |= {name: os.fspath(given[name]) for name in ("workspace", "label_file")}
        given |= {name: tuple(held) for name, held in given.items() if isinstance(held, list)}
        return say.end(Simulated(**job(options_of(given), say)))


def advise(
    task: Task | Place,
    *,
    workspace: Place = "",
    labels: Place = "",
    label_field: str = "label",
    label_file: Place = "",
    budget: Count | None = None,
    seeds: Count = 10,
    strategies: Sequence[str] = (),
    progress: bool = False,
) -> Advised:
    """Play selection strategies on a small labelled set, and say which to take.

    Without labels, or with too few, a table of what each needs and suits. Nothing is changed.

    Args:
        task: the task, or its file.
        workspace: folder, local or ``gs://``, whose verdicts of the fine-tuning half are played on.
        labels: labelled JSON lines with text and label, to play on instead.
        label_field: field with the label.
        label_file: JSON lines with id and label, where the labelled ones do not hold it.
        budget: labels to buy in all; by default up to a third of what may be asked about, 400 at most.
        seeds: how often the set is split anew.
        strategies: play these beside the task's own; by default all that fit.
        progress: tell on stderr what is done.
    """
    with call(advise, locals()) as say:
        from pipelines.simulation import advice as job
        from pipelines.strategies import registry

        _choose("strategies", strategies, [*registry.names(), *registry.aliases()])
        options = job.AdviceOptions(
            task=_task(task),
            workspace=os.fspath(workspace),
            labels=os.fspath(labels),
            label_field=label_field,
            label_file=os.fspath(label_file),
            budget=budget,
            seeds=seeds,
            strategies=tuple(strategies),
        )
        return say.end(job.advise(options, say))


def _choose(argument: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UsageError(f"--{argument}: no {name!r}; choose of {', '.join(known)}")


def _encoding(name: str) -> str:
    from pipelines.sources.decoding import check_encoding

    try:
        return check_encoding(name) if name else ""
    except ValueError as error:
        raise UsageError(f"--encoding: {error}") from None


def _delimiter(sign: str) -> str:
    sign = {"tab": "\t", "\\t": "\t"}.get(sign, sign)
    if len(sign) > 1 or sign in ('"', "\r", "\n"):
        raise UsageError(
            f"--delimiter: one character that parts cells, or tab; not {sign!r} (in a shell, quote it: ';')"
        )
    return sign


def _task(task: Task | Place) -> Task | str:
    return os.fspath(task) if isinstance(task, str | os.PathLike) else task


def _several(places: Place | Sequence[Place]) -> tuple[str, ...]:
    if isinstance(places, str | os.PathLike):
        return (os.fspath(places),)
    return tuple(os.fspath(place) for place in places)


def _dated(corpus: Sequence[str], date: str | None) -> tuple[str, ...]:
    """Return the globs with the date in its place."""
    for pattern in corpus:
        if "{date}" in pattern and not date:
            raise UsageError(f"--corpus {pattern}: {{date}} needs --date")
    try:
        day = datetime.date.fromisoformat(date).isoformat() if date else ""
    except ValueError:
        raise UsageError(f"--date: not a date like 2026-11-21: {date!r}") from None
    return tuple(pattern.replace("{date}", day) for pattern in corpus)

"""After the verdicts: train on the fine-tuning half, evaluate on the other, decide whether to go on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models import locks, prompting, trained
from models.backends import registry
from models.backends.base import BackendError
from models.backends.pool import LabelerPool
from models.training import trainer
from pipelines.config import Task, called, given_task
from pipelines.console.progress import step
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs import pilot
from pipelines.jobs.evaluate import base_pairs, evaluate_models, trained_candidate
from pipelines.jobs.label_standing import label_standing
from pipelines.jobs.labels import Labels, fine_tuning_labels, write_ties
from pipelines.jobs.results import Trained
from pipelines.jobs.settings import MEANING, PAIRS, among, changed, with_committee_of
from pipelines.jobs.status import first_labels, where_labels_come_from
from pipelines.numerics.calibration import ENOUGH_LABELS
from pipelines.store import files, model_store, scores, storage
from pipelines.store.facts import (
    EpochFigures,
    LabelCounts,
    Learnt,
    ModelFacts,
    to_json,
)
from pipelines.store.workspace import Manifest, Workspace, config_hash
from pipelines.verdicts.shown import Shown, shown_ads

# Ads of the corpus whose scores tell which share a threshold calls positive: at a share of 5% it is
# known within .5% (standard error).
_SAMPLED_ADS = 2000


class TooFewLabels(RunFailed):
    """The labels so far teach nothing; more of them would."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything ``scout train`` was told; see ``pipelines.api.train``."""

    workspace: str
    task: Task | str = ""
    export: str = ""


def training_settings(task: Task) -> trainer.TrainingSettings:
    """Return the task's training section as the trainer takes it."""
    section = task.training
    llm = section.learner == "llm"
    return trainer.TrainingSettings(
        **section.model_dump(exclude={"encoder"}),
        preset=task.model.preset if llm else section.encoder,
        dtype=task.model.dtype,
        prompt=task.prompt_spec() if llm else None,
        max_ad_tokens=task.model.max_ad_tokens,
        seed=task.seed,
    )


def train(
    options: TrainOptions, say: Callable[[str], None], pool: LabelerPool | None = None
) -> Trained:
    """Train on all fine-tuning labels so far, evaluate all models, and decide.

    A rerun with the same labels does nothing; with new evaluation verdicts alone it evaluates
    again without training.

    Args:
        options: see :class:`TrainOptions`.
        say: told, in one line each, what a person should know.
        pool: remembers what LLM-0 and encoders said; for simulations.

    Raises:
        UsageError: no pairs or no verdicts yet, a wrong task file, a folder for the export that
            cannot be written.
        TooFewLabels: labels that teach nothing yet.
        RunFailed: something in the workspace is damaged.
    """
    workspace = Workspace(options.workspace)
    workspace.pairs_of()
    with workspace.writing("train", say):
        return _train_round(workspace, options, say, pool)


def _train_round(
    workspace: Workspace,
    options: TrainOptions,
    say: Callable[[str], None],
    pool: LabelerPool | None,
) -> Trained:
    stored = workspace.pairs_of().facts.origin.task
    task = with_committee_of(given_task(options.task), stored) if options.task else stored
    _check_task(options, task, stored, say)
    round_number = _round_of(workspace, task)
    if options.export:
        _check_export(options.export)
    with step("reading the labels"):
        shown = shown_ads(workspace)
        texts = shown.texts()
        labels = fine_tuning_labels(workspace, task, texts)
    settings = training_settings(task)
    training_hash = config_hash(
        {
            "labels": trainer.label_set_hash(labels.ads),
            "settings": dataclasses.asdict(settings),
            "prior": task.prior,
        }
    )
    base = base_pairs(workspace, task)
    wanted = config_hash(
        {
            "training": training_hash,
            "verdicts": labels.imported,
            "stopping": task.stopping.model_dump(mode="json"),
            "min_overlap": task.review.min_overlap,
            "tied": labels.tied,
            "llm0": [base.facts.origin.score_key, base.facts.threshold.margin],
        }
    )
    # The newest alone: mining and `status` go by it, also after other settings were tried.
    done = workspace.model.latest(round_number)
    if done and done.config_hash == wanted and model_store.is_whole(workspace, done):
        say(f"round {round_number} is trained already with these labels; nothing to do")
    else:
        done = _train(
            workspace, task, round_number, shown, labels, settings, training_hash, wanted, say, pool
        )
    if options.export:
        _export(workspace, task, done, options.export, say)
    # Said before; of a workspace of an earlier version, it may still be missing.
    ties = write_ties(workspace, task, shown, labels.tied, lambda _: None)
    return _outcome(workspace, done, ties)


def _train(
    workspace: Workspace,
    task: Task,
    round_number: int,
    shown: Shown,
    labels: Labels,
    settings: trainer.TrainingSettings,
    training_hash: str,
    wanted: str,
    say: Callable[[str], None],
    pool: LabelerPool | None,
) -> Manifest[ModelFacts]:
    attempt = workspace.new_attempt(round_number, "model")
    before = next(
        (
            manifest
            for manifest in reversed(workspace.model.all(round_number))
            if manifest.facts.training_hash == training_hash
            and model_store.is_whole(workspace, manifest)
        ),
        None,
    )
    number, positive = len(labels.ads.keys), int(labels.ads.labels.sum())
    # Before the training: where ties leave too few labels, they are what can be done about it.
    write_ties(workspace, task, shown, labels.tied, say)
    if before:
        say(f"round {round_number}: trained on these labels before; evaluating again")
        own, learnt = model_store.model_files(before), before.facts.learnt
    else:
        if not number:
            raise TooFewLabels(
                f"no labelled ads: {where_labels_come_from(workspace)}, or settle the ties "
                f"({label_standing(workspace, task, shown)})"
            )
        say(
            f"round {round_number}: training {_learner_name(task)} on {number:,} labelled ads "
            f"({positive:,} {task.labels.positive})"
        )
        if settings.prompt and task.prompt.committee:
            prompt = pilot.chosen_by_labels(task, labels.ads.texts, labels.ads.labels, say)
            settings = dataclasses.replace(settings, prompt=prompt)
        try:
            own, learnt = _fit(workspace, task, attempt, labels.ads, settings, say, pool)
        except trainer.TooFewLabelsError as error:
            raise TooFewLabels(
                f"{error}; {where_labels_come_from(workspace)} "
                f"({label_standing(workspace, task, shown)})"
            ) from error
        if learnt.bound:
            say(f"threshold: {learnt.bound}")
    current = trained_candidate(workspace, task, round_number, learnt, own, pool)
    report = evaluate_models(workspace, task, shown, current, number, say, pool)
    data = json.dumps(to_json(report), indent=1, sort_keys=True).encode()
    manifest = Manifest.of(
        attempt,
        wanted,
        [*own, files.write(workspace.root, f"{attempt}/evaluation.json", data)],
        number,
        ModelFacts(
            task=task,
            training_hash=training_hash,
            verdicts=labels.imported,
            learnt=learnt,
            labels=LabelCounts(number, positive, len(labels.table.experts), len(labels.tied)),
            evaluation=report,
        ),
    )
    workspace.commit(manifest)
    return manifest


def _fit(
    workspace: Workspace,
    task: Task,
    attempt: str,
    ads: trainer.LabelledAds,
    settings: trainer.TrainingSettings,
    say: Callable[[str], None],
    pool: LabelerPool | None,
) -> tuple[list[BlockFile], Learnt]:
    expected = _expected(workspace, task, ads, say)
    weak = _weak(workspace, task, say) if settings.learner == "head" else None
    with locks.scratch("scout-train-") as scratch:
        folder, logs = scratch / "model", scratch / "logs"
        try:
            model = trainer.train(
                ads,
                settings,
                folder,
                progress=say,
                logs=logs,
                cache=pool.vectors if pool else None,
                expected=expected,
                weak=weak,
            )
        except trainer.TooFewLabelsError:
            raise
        except trainer.TrainingDataError as error:
            raise RunFailed(f"training: {error}") from error
        except BackendError as error:
            raise UsageError(f"training: {error}") from error
        except FloatingPointError as error:
            raise RunFailed(f"training: {error}; lower training.learning_rate") from error
        with step("storing the model"):
            own = model_store.store(workspace, attempt, folder)
        # For TensorBoard; no reader of ours needs them, so the manifest leaves them out.
        for path in sorted(logs.rglob("*")):
            if path.is_file():
                place = f"{attempt}/logs/{path.relative_to(logs).as_posix()}"
                storage.write(workspace.path(place), path.read_bytes())
    return own, Learnt(
        learner=model.learner,
        model_id=model.model_id,
        base_model_id=model.base_model_id,
        threshold_margin=model.threshold_margin,
        threshold_probability=model.threshold_probability,
        label_set_hash=model.label_set_hash,
        task_prompt_hash=prompting.render(task.prompt_spec()).hash,
        fitting_ads=model.fitting.ads,
        validation_ads=model.validation.ads,
        epochs=tuple(
            EpochFigures(
                epoch=epoch.number,
                loss=epoch.loss,
                validation_loss=epoch.validation_loss,
                validation_kappa=epoch.validation_kappa,
                seconds=round(epoch.seconds, 2),
            )
            for epoch in model.epochs
        ),
        fitted=model.fitted,
        bound=model.bound,
    )


def _expected(
    workspace: Workspace, task: Task, ads: trainer.LabelledAds, say: Callable[[str], None]
) -> trainer.Expected | None:
    """Return what bounds the threshold: the prior, and a sample of the newest scored corpus.

    None where there are labels enough, or where the corpus cannot be read any more.
    """
    positive = int(ads.labels.sum())
    if min(positive, len(ads.keys) - positive) >= ENOUGH_LABELS:
        return None
    scored = workspace.scored.by_round()
    try:
        with step("sampling the corpus"):
            texts: tuple[str, ...] = ()
            if scored:
                newest = scored[max(scored)]
                texts, _ = scores.sample(workspace, newest, _SAMPLED_ADS, task.seed)
    except files.Damaged as error:
        say(f"the threshold is not bounded by the prior, for the corpus cannot be sampled: {error}")
        return None
    return trainer.Expected(texts, task.prior) if texts else None


def _weak(
    workspace: Workspace, task: Task, say: Callable[[str], None]
) -> trainer.WeakLabels | None:
    """Return what LLM-0 said of a sample of the corpus that it scored last; None where that is gone."""
    by_round = workspace.scored.by_round()
    own = [by_round[n] for n in sorted(by_round) if not by_round[n].facts.origin.model_round]
    if not own:
        return None
    try:
        with step("sampling what LLM-0 said"):
            texts, margins = scores.sample(workspace, own[-1], _SAMPLED_ADS, task.seed)
    except files.Damaged as error:
        say(f"the head learns from labels alone, for what LLM-0 said cannot be read: {error}")
        return None
    return trainer.WeakLabels(texts, margins)


def _check_task(
    options: TrainOptions, task: Task, stored: Task, say: Callable[[str], None]
) -> None:
    where = f"--task {options.task}" if isinstance(options.task, str) else called(options.task)
    if task.name != stored.name:
        raise UsageError(
            f"{where}: is the task {task.name!r}, but the workspace holds {stored.name!r}"
        )
    differing = changed(task, stored)
    meant = among(differing, MEANING)
    if task.version == stored.version and meant:
        raise UsageError(
            f"{where}: {', '.join(meant)}: differs from what the pairs were mined with, and decides what "
            "labels and scores mean; take the change back, or mine a round with the new task first"
        )
    if task.version != stored.version:
        raise UsageError(
            f"{where}: has version {task.version}, the pairs were mined with version "
            f"{stored.version}; mine a round with the new version first"
        )
    backend = registry.find(task.model.backend, task.model.preset)
    if task.training.learner == "llm" and not backend.learns:
        raise UsageError(
            f"training.learner: the {backend.__name__.lower()} model cannot learn; set model.preset to a real one, or "
            "training.learner to head or encoder"
        )
    if of_pairs := among(differing, PAIRS):
        say(
            f"{', '.join(of_pairs)}: differs from what the pairs were mined with; changes which pairs "
            "are mined, not what is learnt: it counts from the next `scout mine` on"
        )


def _round_of(workspace: Workspace, task: Task) -> int:
    """Return the last round of this policy version with verdicts."""
    found = workspace.verdicts_of(task.version)
    if not found:
        raise UsageError(
            f"--workspace {workspace.root}: no verdicts on pairs of policy version {task.version} "
            f"yet; {first_labels(workspace)}"
        )
    return max(found)


def _check_export(target: str) -> None:
    """Refuse a folder that cannot be exported to, before a training takes its hour.

    Raises:
        UsageError: it is on object storage, holds something, or cannot be made.
    """
    if not storage.is_local(target):
        raise UsageError(
            f"--export {target}: must be a folder on the local disk; copy it from there"
        )
    out = Path(target)
    try:
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(
                f"--export {target}: is there and not empty; nothing is overwritten: name a new folder"
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        with locks.scratch(".export-", out.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"--export {target}: cannot be written ({error.strerror or error}); name another folder"
        ) from error


def _export(
    workspace: Workspace,
    task: Task,
    manifest: Manifest[ModelFacts],
    target: str,
    say: Callable[[str], None],
) -> None:
    from models import export
    from models.graph.tables import GraphTokenizerError

    names = (task.labels.positive, task.labels.negative)
    try:
        with step("exporting the model"):
            folder = model_store.fetch(workspace, model_store.model_files(manifest))
            export.export(folder, Path(target), labels=names, progress=say)
    except (export.ExportError, GraphTokenizerError, trained.TrainedModelError, OSError) as error:
        raise RunFailed(
            f"--export {target}: {error} (the trained model is kept: train again exports it)"
        ) from error


def _learner_name(task: Task) -> str:
    names = {
        "llm": f"{task.model.preset} by LoRA",
        "encoder": f"{task.training.encoder} and a head",
        "head": f"a head on {task.training.encoder}",
    }
    return names[task.training.learner]


def _outcome(
    workspace: Workspace, manifest: Manifest[ModelFacts], ties: tuple[str, ...]
) -> Trained:
    learnt = manifest.facts.learnt
    return Trained(
        task=manifest.facts.task.name,
        round=manifest.round,
        model=workspace.path(model_store.model_files(manifest)[0].path.rpartition("/")[0]),
        learner=learnt.learner,
        model_id=learnt.model_id,
        threshold_probability=learnt.threshold_probability,
        threshold_margin=learnt.threshold_margin,
        epochs=learnt.epochs,
        labels=manifest.facts.labels,
        evaluation=manifest.facts.evaluation,
        ties=ties,
        fitted=learnt.fitted,
        bound=learnt.bound,
    )

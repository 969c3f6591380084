"""After the verdicts: train on the fine-tuning half, evaluate on the other, decide whether to go on."""

from __future__ import annotations

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from models import policy, trained, trainer
from models.identity import FAKE
from models.labeler import Labeler
from models.policy import is_wordless
from models.presets import PresetError
from pipelines.config import Task, load_task
from pipelines.console.progress import step
from pipelines.contracts import BlockFile
from pipelines.errors import RunFailed, UsageError
from pipelines.handlers import LoadLabeler, identify_task, load_trained
from pipelines.jobs.evaluation import Candidate, Evaluated, evaluate
from pipelines.numerics import agreement
from pipelines.numerics.agreement import MISSING
from pipelines.store import blocks, model_store, storage
from pipelines.store.workspace import Manifest, Workspace, config_hash, utc_now
from pipelines.tools.sheet import ad_sheet
from pipelines.verdicts.halves import HALVES, ratings, read_half
from pipelines.verdicts.shown import Shown, shown_ads

_BASE_ROUND = 0


class TooFewLabels(RunFailed):
    """The labels so far teach nothing; more of them would."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """Everything ``scout train`` was told.

    Attributes:
        workspace: folder, local or ``gs://``.
        task: path of a task file to use instead of the one that was mined with, or "".
        export: local folder for a SavedModel that takes raw strings, or "".
    """

    workspace: str
    task: str = ""
    export: str = ""


@dataclass(frozen=True, slots=True)
class Labels:
    """The fine-tuning half as the trainer takes it.

    Attributes:
        ads: keys, texts and consensus labels.
        tied: keys of the ads whose experts disagree without a majority; they go back to review.
        experts: how many experts labelled.
        imported: round -> hash of the imports that this comes from.
    """

    ads: trainer.LabelledAds
    tied: tuple[str, ...]
    experts: int
    imported: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Trained:
    """What ``train`` leaves behind; JSON values."""

    summary: dict[str, Any]


def current_task(workspace: Workspace) -> Task:
    """Return the task that the newest pairs were mined with.

    Raises:
        UsageError: nothing was mined here.
        RunFailed: an earlier version mined it, or what it wrote was changed by hand.
    """
    for number in reversed(workspace.rounds()):
        manifest = workspace.latest(number, "pairs")
        if manifest:
            break
    else:
        raise UsageError(f"--workspace {workspace.root}: holds no pairs; start with `scout mine`")
    definition = manifest.facts.get("definition")
    try:
        if definition is None:
            raise ValueError("the task is not in it; an earlier version of ad-scout wrote it")
        return Task.model_validate_json(json.dumps(definition))
    except ValueError as error:
        raise RunFailed(
            f"{workspace.path(manifest.attempt)}/manifest.json: {error}; give --task, or mine again"
        ) from error


def training_settings(task: Task) -> trainer.TrainingSettings:
    """Return the task's training section as the trainer takes it."""
    section = task.training
    llm = section.learner == "llm"
    return trainer.TrainingSettings(
        learner=section.learner,
        preset=task.model.preset if llm else section.encoder,
        dtype=task.model.dtype,
        prompt=task.prompt_spec() if llm else None,
        max_ad_tokens=task.model.max_ad_tokens,
        lora_rank=section.lora_rank,
        learning_rate=section.learning_rate,
        batch_size=section.batch_size,
        max_epochs=section.max_epochs,
        patience=section.patience,
        validation_share=section.validation_share,
        min_per_class=section.min_per_class,
        seed=task.seed,
    )


def fine_tuning_labels(workspace: Workspace, task: Task, texts: Mapping[str, str]) -> Labels:
    """Return the consensus labels of the fine-tuning half, of all rounds of this policy version."""
    # First: what comes in while this reads and trains is then seen to be new.
    imported = _imported(workspace, task.version)
    table = ratings(read_half(workspace, "fine_tuning", task.version))
    consensus = agreement.consensus(table.values, task.review.consensus)
    # An ad of which nothing is left once markup is cut cannot be scored, and so teaches nothing.
    wordless = [key for key in table.keys if is_wordless(texts[key])]
    consensus[[key in set(wordless) for key in table.keys]] = MISSING
    given = (table.values != MISSING).any(axis=1) if table.values.size else np.zeros(0, dtype=bool)
    settled = np.flatnonzero(consensus != MISSING)
    ads = trainer.LabelledAds(
        keys=tuple(table.keys[i] for i in settled),
        texts=tuple(texts[table.keys[i]] for i in settled),
        labels=consensus[settled].astype(np.int8),
    )
    tied = tuple(
        table.keys[i]
        for i in np.flatnonzero(given & (consensus == MISSING))
        if table.keys[i] not in set(wordless)
    )
    return Labels(ads, tied, len(table.experts), imported)


def train(options: TrainOptions, say: Callable[[str], None]) -> Trained:
    """Train on all fine-tuning labels so far, evaluate all models, and decide.

    A rerun with the same labels does nothing; with new evaluation verdicts alone it evaluates
    again without training.

    Args:
        options: see :class:`TrainOptions`.
        say: told, in one line each, what a person should know.

    Raises:
        UsageError: no pairs or no verdicts yet, a wrong task file, a folder for the export that
            cannot be written.
        TooFewLabels: labels that teach nothing yet.
        RunFailed: something in the workspace is damaged.
    """
    workspace = Workspace(options.workspace)
    stored = current_task(workspace)
    task = load_task(options.task) if options.task else stored
    _check_task(options, task, stored)
    round_number = _round_of(workspace, task)
    workspace.check_writable()
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
        }
    )
    base = _base_clusters(workspace, task)
    wanted = config_hash(
        {
            "training": training_hash,
            "verdicts": labels.imported,
            "stopping": task.stopping.model_dump(mode="json"),
            "min_overlap": task.review.min_overlap,
            "tied": labels.tied,
            "llm0": [base.facts["score_key"], base.facts["threshold_margin"]],
        }
    )
    # The newest alone: mining and `status` go by it, also after other settings were tried.
    done = workspace.latest(round_number, "model")
    if done and done.config_hash == wanted and model_store.is_whole(workspace, done):
        say(f"round {round_number} is trained already with these labels; nothing to do")
    else:
        done = _train(
            workspace, task, round_number, shown, labels, settings, training_hash, wanted, say
        )
    if options.export:
        _export(workspace, task, done, options.export, say)
    return Trained(_summary(workspace, done))


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
) -> Manifest:
    attempt = workspace.new_attempt(round_number, "model")
    before = next(
        (
            manifest
            for manifest in reversed(workspace.manifests(round_number, "model"))
            if manifest.facts["training_hash"] == training_hash
            and model_store.is_whole(workspace, manifest)
        ),
        None,
    )
    balance = int(labels.ads.labels.sum())
    # Before the training: where ties leave too few labels, they are what can be done about it.
    ties = _write_ties(workspace, attempt, shown, labels.tied, say)
    if before:
        say(f"round {round_number}: trained on these labels before; evaluating again")
        files = tuple(model_store.model_files(before))
        model_facts = {name: before.facts[name] for name in before.facts["of_model"]}
    else:
        if not labels.ads.keys:
            raise TooFewLabels(f"no labelled ads: {_more(workspace)}, or settle the ties")
        say(
            f"round {round_number}: training {_learner_name(task)} on {len(labels.ads.keys):,} "
            f"labelled ads ({balance:,} {task.labels.positive})"
        )
        files, manifest = _fit(workspace, attempt, labels.ads, settings, say)
        model_facts = {
            "learner": manifest.learner,
            "model_id": manifest.model_id,
            "base_model_id": manifest.base_model_id,
            "threshold_margin": manifest.threshold_margin,
            "threshold_probability": manifest.threshold_probability,
            "label_set_hash": manifest.label_set_hash,
            "task_prompt_hash": policy.render(task.prompt_spec()).hash,
            "fitting_ads": manifest.fitting.ads,
            "validation_ads": manifest.validation.ads,
            "epochs": [trained_epoch(epoch) for epoch in manifest.epochs],
        }
    current = Manifest(
        stage="model",
        round=round_number,
        attempt=attempt,
        config_hash=wanted,
        files=(*files, *ties),
        rows=len(labels.ads.keys),
        facts={"task_version": task.version, **model_facts},
        created=utc_now(),
    )
    found = _evaluate(workspace, task, shown, current, len(labels.ads.keys), say)
    report = json.dumps(found.report, indent=1, sort_keys=True).encode()
    path = f"{attempt}/evaluation.json"
    storage.write(workspace.path(path), report)
    facts = {
        "task": task.name,
        "task_version": task.version,
        "definition": task.model_dump(mode="json"),
        "training_hash": training_hash,
        "verdicts": labels.imported,
        "of_model": sorted(model_facts),
        **model_facts,
        "labels": {
            "fine_tuning": len(labels.ads.keys),
            "fine_tuning_positive": balance,
            "fine_tuning_experts": labels.experts,
            "tied": len(labels.tied),
        },
        "evaluation": found.report,
    }
    committed = Manifest(
        stage=current.stage,
        round=current.round,
        attempt=attempt,
        config_hash=wanted,
        files=(*files, *ties, BlockFile(path, 1, len(report), blocks.sha256(report))),
        rows=current.rows,
        facts=facts,
        created=utc_now(),
    )
    workspace.commit(committed)
    return committed


def trained_epoch(epoch: trained.Epoch) -> dict[str, Any]:
    """Return an epoch's figures as JSON values."""
    return {
        "epoch": epoch.number,
        "loss": epoch.loss,
        "validation_loss": epoch.validation_loss,
        "validation_kappa": epoch.validation_kappa,
        "seconds": round(epoch.seconds, 2),
    }


def _fit(
    workspace: Workspace,
    attempt: str,
    ads: trainer.LabelledAds,
    settings: trainer.TrainingSettings,
    say: Callable[[str], None],
) -> tuple[tuple[BlockFile, ...], trained.TrainedModel]:
    with tempfile.TemporaryDirectory(prefix="scout-train-") as scratch:
        folder, logs = Path(scratch) / "model", Path(scratch) / "logs"
        try:
            manifest = trainer.train(ads, settings, folder, progress=say, logs=logs)
        except trainer.TooFewLabelsError as error:
            raise TooFewLabels(
                f"{error}; {_more(workspace)} ({len(ads.keys):,} ads have a settled label so far, "
                f"{int(ads.labels.sum()):,} of them positive)"
            ) from error
        except trainer.TrainingDataError as error:
            raise RunFailed(f"training: {error}") from error
        except PresetError as error:
            raise UsageError(f"training: {error}") from error
        except FloatingPointError as error:
            raise RunFailed(f"training: {error}; lower training.learning_rate") from error
        with step("storing the model"):
            files = model_store.store(workspace, attempt, folder)
        # For TensorBoard; no reader of ours needs them, so the manifest leaves them out.
        for path in sorted(logs.rglob("*")):
            if path.is_file():
                place = f"{attempt}/logs/{path.relative_to(logs).as_posix()}"
                storage.write(workspace.path(place), path.read_bytes())
    return files, manifest


def _evaluate(
    workspace: Workspace,
    task: Task,
    shown: Shown,
    current: Manifest,
    fine_tuning_ads: int,
    say: Callable[[str], None],
) -> Evaluated:
    """Measure LLM-0 and every round's model on the evaluation ads of all rounds."""
    earlier = model_store.models(workspace, task.version, before_round=current.round)
    candidates = [_base_candidate(workspace, _base_clusters(workspace, task), say)]
    for manifest in [*earlier, current]:
        if manifest is not current and not model_store.is_whole(workspace, manifest):
            say(f"the model of round {manifest.round} is gone or damaged: not evaluated again")
            continue
        candidates.append(
            Candidate(
                round=manifest.round,
                model_id=manifest.facts["model_id"],
                threshold=manifest.facts["threshold_margin"],
                margins=_scorer(functools.partial(load_trained, workspace, task, manifest)),
            )
        )
    found = evaluate(workspace, task, shown.texts(), candidates, fine_tuning_ads)
    say(found.decision.reason)
    return found


def _scorer(load: Callable[[], Labeler]) -> Callable[[Sequence[str]], np.ndarray]:
    return lambda texts: trained.margins(load(), texts)


def _base_candidate(workspace: Workspace, base: Manifest, say: Callable[[str], None]) -> Candidate:
    """Return LLM-0 as the first round of this policy version used it, with its threshold then."""
    task = Task.model_validate_json(json.dumps(base.facts["definition"]))
    try:
        identity = identify_task(task, say)
    except PresetError as error:
        raise UsageError(f"model: {error}") from error
    return Candidate(
        round=_BASE_ROUND,
        model_id=identity.model_id,
        threshold=base.facts["threshold_margin"],
        margins=_scorer(LoadLabeler(task, identity, workspace.root)),
    )


def _base_clusters(workspace: Workspace, task: Task) -> Manifest:
    """Return the manifest of the first clusters of this policy version: LLM-0 labelled them."""
    for number in workspace.rounds():
        clusters = workspace.latest(number, "clusters")
        if clusters and clusters.facts["task_version"] == task.version:
            return clusters
    raise RunFailed(f"--workspace {workspace.root}: no clusters of policy version {task.version}")


def _check_task(options: TrainOptions, task: Task, stored: Task) -> None:
    if task.name != stored.name:
        raise UsageError(
            f"--task {options.task}: is the task {task.name!r}, but the workspace holds "
            f"{stored.name!r}"
        )
    shaping: Any = {"training": True, "stopping": True, "review": {"consensus", "min_overlap"}}
    own, other = (t.model_dump(mode="json", exclude=shaping) for t in (task, stored))
    changed = sorted(key for key in own if own[key] != other[key] and key != "version")
    if task.version == stored.version and changed:
        raise UsageError(
            f"--task {options.task}: differs from the task that the pairs were mined with in "
            f"{', '.join(changed)}; only training, stopping, review.consensus and review.min_overlap "
            "may be changed here: mine with the new task instead"
        )
    if task.version != stored.version:
        raise UsageError(
            f"--task {options.task}: has version {task.version}, the pairs were mined with version "
            f"{stored.version}; mine a round with the new version first"
        )
    if task.training.learner == "llm" and task.model.preset == FAKE:
        raise UsageError(
            "training.learner: the fake model cannot learn; set model.preset to a real one, or "
            "training.learner to head or encoder"
        )


def _round_of(workspace: Workspace, task: Task) -> int:
    """Return the last round of this policy version with verdicts."""
    for number in reversed(workspace.rounds()):
        verdicts, pairs = workspace.latest(number, "verdicts"), workspace.latest(number, "pairs")
        if verdicts and pairs and pairs.facts["task_version"] == task.version:
            return number
    raise UsageError(
        f"--workspace {workspace.root}: no verdicts on pairs of policy version {task.version} yet; "
        "label review.csv and run `scout import`"
    )


def _imported(workspace: Workspace, task_version: int) -> dict[str, str]:
    """Return round -> hash of what was imported, from the manifests: no verdict is read."""
    found = {}
    for number in workspace.rounds():
        verdicts, pairs = workspace.latest(number, "verdicts"), workspace.latest(number, "pairs")
        if verdicts and pairs and pairs.facts["task_version"] == task_version:
            found[str(number)] = verdicts.config_hash
    return found


def _write_ties(
    workspace: Workspace,
    attempt: str,
    shown: Shown,
    tied: Sequence[str],
    say: Callable[[str], None],
) -> tuple[BlockFile, ...]:
    """Write a review sheet of the ads on which no majority was found."""
    if not tied:
        return ()
    ads = {ad.key: ad for ad in shown.ads()}
    # Without a pair id each row stands alone: its partner needs no second answer.
    rows = [("", "", ads[key].ad_id, ads[key].text) for key in sorted(tied)]
    data = ad_sheet(rows)
    path = f"{attempt}/ties.csv"
    storage.write(workspace.path(path), data)
    say(
        f"{len(tied)} ads have no majority and do not train: let one more expert label "
        f"{workspace.path(path)} and import it"
    )
    return (BlockFile(path, len(tied), len(data), blocks.sha256(data)),)


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
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent):
            pass
    except OSError as error:
        raise UsageError(
            f"--export {target}: cannot be written ({error.strerror or error}); name another folder"
        ) from error


def _export(
    workspace: Workspace, task: Task, manifest: Manifest, target: str, say: Callable[[str], None]
) -> None:
    from models import export
    from models.graph_tokenizer import GraphTokenizerError

    names = (task.labels.positive, task.labels.negative)
    try:
        with step("exporting the model"):
            export.export(
                model_store.fetch(workspace, manifest), Path(target), labels=names, progress=say
            )
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


def _summary(workspace: Workspace, manifest: Manifest) -> dict[str, Any]:
    facts = manifest.facts
    return {
        "task": facts["task"],
        "round": manifest.round,
        "learner": facts["learner"],
        "model": workspace.path(model_store.model_files(manifest)[0].path.rsplit("/", 1)[0]),
        "model_id": facts["model_id"],
        "threshold_probability": facts["threshold_probability"],
        "threshold_margin": facts["threshold_margin"],
        "epochs": facts["epochs"],
        "labels": facts["labels"],
        "evaluation": facts["evaluation"],
        "ties": [workspace.path(f.path) for f in manifest.files if f.path.endswith("/ties.csv")],
    }


def standing(workspace: Workspace) -> dict[str, Any]:
    """Return where the rounds stand; from manifests alone, no verdict is read.

    Rounds of an earlier version of the policy are marked: their kappas do not compare.
    """
    rounds: list[dict[str, Any]] = []
    newest = 0
    for number in workspace.rounds():
        pairs = workspace.latest(number, "pairs")
        verdicts = workspace.latest(number, "verdicts")
        model = workspace.latest(number, "model")
        known = model or pairs
        version = known.facts["task_version"] if known else 0
        newest = version or newest
        entry: dict[str, Any] = {
            "round": number,
            "task_version": version,
            "pairs": pairs.rows if pairs else 0,
            "covered_share": pairs.facts["covered_share"] if pairs else None,
            "labelled": None,
            "model": None,
        }
        if verdicts:
            keys = verdicts.facts["keys"]
            entry["labelled"] = {
                "fine_tuning": len(keys["fine_tuning"]),
                "evaluation": len(keys["evaluation"]),
                "withheld": keys["withheld"],
                "experts": verdicts.facts["experts"],
            }
        if model:
            report = model.facts["evaluation"]
            entry["model"] = {
                "model_id": model.facts["model_id"],
                "learner": model.facts["learner"],
                "labels": model.facts["labels"],
                "evaluation": report,
            }
        rounds.append(entry)
    for entry in rounds:
        entry["comparable"] = entry["task_version"] == newest
    return {"rounds": rounds, "task_version": newest, "next": _next_step(workspace, rounds)}


def _open_ads(workspace: Workspace, number: int) -> int:
    """Return how many ads of a round no expert answered yet, by its manifests."""
    pairs, verdicts = workspace.latest(number, "pairs"), workspace.latest(number, "verdicts")
    if pairs is None:
        return 0
    if verdicts is None:
        return 2 * pairs.rows
    keys = verdicts.facts["keys"]
    answered = sum(len(keys[half]) for half in HALVES) + keys["withheld"]
    answered += len(verdicts.facts.get("skipped_keys", ()))
    # An earlier attempt of the round may have shown other ads, whose verdicts count too.
    return max(0, 2 * pairs.rows - answered)


def _more(workspace: Workspace) -> str:
    """Say where more labels come from."""
    rounds = [number for number in workspace.rounds() if workspace.latest(number, "pairs")]
    left = _open_ads(workspace, rounds[-1]) if rounds else 0
    if left:
        return (
            f"{left:,} of the ads that round {rounds[-1]} shows are not answered yet: label those "
            "first; `scout mine` opens the next round for more pairs"
        )
    return "`scout mine` opens the next round for more pairs"


def _next_step(workspace: Workspace, rounds: list[dict[str, Any]]) -> str:
    if not rounds:
        return "run `scout mine`"
    last = rounds[-1]
    number = last["round"]
    review = workspace.latest(number, "review")
    if review is None and not last["labelled"]:
        return "run `scout mine` again: it goes on where it stopped"
    if not last["labelled"] and review:
        # A page from before the round was mined again is not what experts should label.
        since = datetime.fromisoformat(review.created).timestamp()
        found = storage.match(workspace.path(f"exports/round-{number:04d}/page/review*.html"))
        pages = [page for page in found if page.last_updated_in_seconds >= since]
        sheet = pages[0].path if pages else workspace.path(f"{review.attempt}/review.csv")
        return f"let experts label {sheet}, then run `scout import`"
    if not last["model"]:
        left = _open_ads(workspace, number)
        first = f"label the {left:,} ads of round {number} that are open, then " if left else ""
        return f"run `scout train`; if it finds too few labels, {first}`scout mine` for more pairs"
    model = workspace.latest(number, "model")
    assert model is not None
    # Not by time: an import may come within the same second, and on an earlier round.
    if model.facts.get("verdicts") != _imported(workspace, last["task_version"]):
        return "run `scout train` again: verdicts came in since"
    decision = last["model"]["evaluation"]["decision"]
    if decision["stop"]:
        best = decision["best_round"]
        return f"nothing; the best model is {f'that of round {best}' if best else 'LLM-0'}"
    return "run `scout mine` for the next round"

"""Where the rounds stand, and what to do next.

From manifests, and from verdicts only where a training has not seen all of them: what it said of both
halves is in its manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from pipelines.config import Task
from pipelines.console.typed import typed
from pipelines.errors import RunFailed, UsageError
from pipelines.jobs.audit_standing import audit_standing
from pipelines.jobs.results import (
    Labelled,
    LabelStanding,
    Round,
    RoundModel,
    Spending,
    Stage,
    Standing,
)
from pipelines.store import model_store, storage
from pipelines.store.workspace import STAGES, Workspace
from pipelines.verdicts.halves import imported_into
from pipelines.verdicts.shown import shown_ads


def standing(workspace: Workspace, stages: bool = False) -> Standing:
    """Return where the rounds stand.

    Rounds of an earlier version of the policy are marked: their kappas do not compare.

    Args:
        workspace: the workspace.
        stages: whether to read the newest manifest of every stage of every round, too.
    """
    all_pairs, all_verdicts = workspace.pairs.by_round(), workspace.verdicts.by_round()
    models = workspace.model.by_round()
    rounds: list[Round] = []
    newest = 0
    for number in workspace.rounds():
        pairs, verdicts = all_pairs.get(number), all_verdicts.get(number)
        model = models.get(number)
        version = 0
        if model:
            version = model.facts.task.version
        elif pairs:
            version = pairs.facts.origin.task.version
        newest = version or newest
        labelled, trained = None, None
        # Without audits: who labels those has labelled nothing of the round.
        if verdicts and not verdicts.facts.keys.of_audits_alone:
            keys = verdicts.facts.keys
            labelled = Labelled(
                len(keys.fine_tuning),
                len(keys.evaluation),
                len(keys.withheld),
                verdicts.facts.experts,
            )
        if model:
            learnt = model.facts.learnt
            trained = RoundModel(
                learnt.model_id,
                learnt.learner,
                model.facts.labels,
                model.facts.evaluation,
                learnt.bound,
            )
        rounds.append(
            Round(
                round=number,
                task_version=version,
                pairs=pairs.rows if pairs else 0,
                covered_share=pairs.facts.covered_share if pairs else None,
                labelled=labelled,
                model=trained,
                comparable=True,
                stages=_stages(workspace, number) if stages else {},
            )
        )
    rounds = [replace(entry, comparable=entry.task_version == newest) for entry in rounds]
    audit = audit_standing(workspace)
    labels, warnings = _labels(workspace, newest)
    step = _next_step(workspace, rounds, labels)
    try:
        spent = _spent(workspace, newest)
    except RunFailed as error:
        spent, warnings = None, (*warnings, f"minutes cannot be counted: {error.message}")
    return Standing(workspace.root, tuple(rounds), newest, step, audit, labels, warnings, spent)


def _spent(workspace: Workspace, task_version: int) -> Spending | None:
    """Return what labels have cost in experts' time; None before any answer."""
    if not workspace.verdicts.by_round():
        return None
    # Only now: what a strategy shows is known by loading it.
    from pipelines.jobs.minutes import spending

    found = spending(workspace, task_of(workspace, task_version))
    return found if found.answers else None


def _labels(
    workspace: Workspace, task_version: int
) -> tuple[LabelStanding | None, tuple[str, ...]]:
    """Return what experts said that no training has seen, and what is to be said of the halves."""
    if not workspace.verdicts_of(task_version):
        return None, ()
    # Only now: they read texts and count grams, which a workspace without verdicts need not wait for.
    from pipelines.jobs.label_standing import label_standing
    from pipelines.verdicts.balance import balance

    try:
        task, shown = task_of(workspace, task_version), shown_ads(workspace)
        warnings = balance(workspace, task, shown).warnings()
        models = model_store.models(workspace, task_version)
        imported = imported_into(workspace, task_version)
        if models and models[-1].facts.verdicts == imported:
            return None, warnings
        return label_standing(workspace, task, shown), warnings
    except RunFailed as error:
        return None, (f"the labels cannot be counted: {error.message}",)
    except UsageError as error:
        return None, (f"the labels cannot be counted: {error}",)


def task_of(workspace: Workspace, task_version: int) -> Task:
    """Return the task that the newest pairs of a version of the policy were mined with."""
    tasks = (pairs.facts.origin.task for pairs in workspace.pairs.by_round().values())
    return [task for task in tasks if task.version == task_version][-1]


def _stages(workspace: Workspace, number: int) -> dict[str, Stage]:
    found = {stage: workspace.latest(number, stage) for stage in STAGES}
    return {
        stage: Stage(latest.rows, latest.created, latest.attempt, latest.facts)
        for stage, latest in found.items()
        if latest
    }


def mine_command(workspace: Workspace) -> str:
    """Return the command that mined the newest pairs, as it can be typed again."""
    pairs = workspace.pairs.by_round()
    if not pairs:
        return typed("mine TASK --corpus GLOB", workspace=workspace.root)
    origin = pairs[max(pairs)].facts.origin
    if origin.date and (night := workspace.night.latest(origin.date)):
        globs = night.facts.corpus
        command = f"nightly {{}}{' --corpus {}' * len(globs)} --date DATE"
        return typed(command, origin.task_file or "TASK", *globs, workspace=workspace.root)
    # A date stands in the corpus's name already.
    parts, values = ["mine", "{}" if origin.task_file else "TASK"], [origin.task_file]
    given = [("corpus", place) for place in origin.corpus]
    if origin.read:
        names = ("id_field", "text_field", "weight_field", "format")
        given += [(name, value) for name in names if (value := getattr(origin.read, name))]
    for name, value in given:
        parts.append(f"--{name} {{}}")
        values.append(value)
    return typed(" ".join(parts), *filter(None, values), workspace=workspace.root)


def first_labels(workspace: Workspace) -> str:
    """Say how the newest round gets its first labels."""
    numbers = workspace.pairs.by_round()
    review = workspace.review.latest(max(numbers, default=0))
    back = typed("import FILE...", workspace=workspace.root)
    if review is None:
        return f"run {mine_command(workspace)} again: it goes on where it stopped"
    # A page from before the round was mined again is not what experts should label.
    since = datetime.fromisoformat(review.created).timestamp()
    found = storage.match(workspace.path(f"exports/round-{review.round:04d}/page/review*.html"))
    pages = [page for page in found if page.last_updated_in_seconds >= since]
    sheet = pages[0].path if pages else workspace.path(review.file("review.csv").path)
    return f"let experts label {sheet}, then run {back}"


def where_labels_come_from(workspace: Workspace) -> str:
    """Say where more labels come from."""
    number = max(workspace.pairs.by_round(), default=0)
    left = open_ads(workspace, number)
    if left:
        return (
            f"{left:,} of the ads that round {number} shows are not answered yet: label those "
            f"first; {mine_command(workspace)} opens the next round for more pairs"
        )
    return f"{mine_command(workspace)} opens the next round for more pairs"


def open_ads(workspace: Workspace, number: int) -> int:
    """Return how many ads of a round no expert answered yet, by its manifests."""
    pairs, verdicts = workspace.pairs.latest(number), workspace.verdicts.latest(number)
    if pairs is None:
        return 0
    answered = verdicts.facts.keys.number if verdicts else 0
    # An earlier attempt of the round may have shown other ads, whose verdicts count too.
    return max(0, pairs.facts.ads - answered)


def _next_step(workspace: Workspace, rounds: Sequence[Round], labels: LabelStanding | None) -> str:
    train, mine = typed("train", workspace=workspace.root), mine_command(workspace)
    if not rounds:
        return f"run {mine}"
    last = rounds[-1]
    number = last.round
    review = workspace.review.latest(number)
    if not last.labelled and review:
        return first_labels(workspace)
    if review is None and not last.labelled:
        return f"run {mine} again: it goes on where it stopped"
    if not last.model:
        left = open_ads(workspace, number)
        first = f"label the {left:,} ads of round {number} that are open, then " if left else ""
        lacking = " and ".join(labels.to_train) if labels else ""
        if lacking:
            return (
                f"{first}{'' if first else 'run '}{mine} for more pairs: training lacks {lacking}"
            )
        return f"run {train}"
    model = workspace.model.latest(number)
    assert model is not None
    # Not by time: an import may come within the same second, and on an earlier round.
    if model.facts.verdicts != imported_into(workspace, last.task_version):
        return f"run {train} again: verdicts came in since"
    decision = model.facts.evaluation.decision
    if decision.stop:
        best = decision.best_round
        return f"nothing; the best model is {f'that of round {best}' if best else 'LLM-0'}"
    return f"run {mine} for the next round"

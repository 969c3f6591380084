"""What labels cost in experts' minutes: what an item takes, what a budget buys, what was spent."""

from __future__ import annotations

import datetime
from collections.abc import Callable

from pipelines.config import Task
from pipelines.contracts import ReviewItem
from pipelines.jobs.results import Spending
from pipelines.numerics.minutes import PAIR, POSITIVES, SINGLE, Rate, affordable, gaps_sec, rates
from pipelines.store.workspace import Workspace
from pipelines.strategies import registry
from pipelines.strategies.base import PairStrategy, Strategy
from pipelines.verdicts.contradictions import remembered


def kind_of(strategy: Strategy) -> str:
    """Return what kind of item a strategy shows, as far as minutes go."""
    if isinstance(strategy, PairStrategy):
        return PAIR
    return POSITIVES if strategy.finds_positives else SINGLE


def kind_of_item(item: ReviewItem) -> str:
    """Return what kind of item it is."""
    if len(item.ads) == 2:
        return PAIR
    found = item.source in registry.names() and registry.create(item.source).finds_positives
    return POSITIVES if found else SINGLE


def assumed_rates(task: Task) -> dict[str, Rate]:
    """Return what items cost by the task and by what is assumed, without a measurement."""
    return rates(task.review.minutes.model_dump(), [])


def spending(workspace: Workspace, task: Task, before: int | None = None) -> Spending:
    """Measure what items take, and sum up what those answered so far have cost.

    By the times that imports remember; what was said is not looked at, so that both halves count.

    Args:
        workspace: the workspace.
        task: says what an item takes, where it does.
        before: count rounds below this one alone.

    Raises:
        RunFailed: something in the workspace is damaged.
    """
    manifests = {
        number: manifest
        for number, manifest in workspace.verdicts.by_round().items()
        if before is None or number < before
    }
    # Where a round was mined again, an ad may have been shown in two items: the later one was answered.
    items = {
        (number, ad.key): item
        for number in manifests
        for manifest in workspace.asked(number)
        for item in workspace.read_items(manifest)
        for ad in item.ads
    }
    last: dict[tuple[str, int, str], float | None] = {}
    kinds: dict[str, str] = {}
    for number, manifest in manifests.items():
        for said in remembered(workspace, {number: manifest}):
            item = items.get((number, said.key))
            if item is None:
                continue
            kinds[item.item_id] = kind_of_item(item)
            place = (said.expert, number, item.item_id)
            time = _seconds(said.time)
            known = last.get(place)
            last[place] = time if known is None or time is None else max(known, time)
    measured = []
    for expert in {place[0] for place in last}:
        timed = [
            (time, kinds[place[2]])
            for place, time in last.items()
            if place[0] == expert and time is not None
        ]
        measured.append(gaps_sec([time for time, _ in timed], [kind for _, kind in timed]))
    found = rates(task.review.minutes.model_dump(), measured)
    by_round: dict[int, float] = {}
    for _, number, item_id in last:
        by_round[number] = by_round.get(number, 0.0) + found[kinds[item_id]].minutes
    return Spending(sum(by_round.values()), len(last), found, by_round)


def _seconds(time: str) -> float | None:
    return datetime.datetime.fromisoformat(time).timestamp() if time else None


def in_items(task: Task, workspace: Workspace, number: int, say: Callable[[str], None]) -> Task:
    """Return a task whose budget is in items, where its file gives minutes.

    By what earlier rounds took, so that a round that is mined again has the same budget.

    Args:
        task: the task.
        workspace: measured in.
        number: of the round that is mined.
        say: told what the minutes buy, and by which rate.
    """
    minutes = task.selection.minutes
    if minutes is None:
        return task
    kind = kind_of(registry.create(task.selection.strategy))
    rate = spending(workspace, task, before=number).rates[kind]
    experts = task.review.experts_per_ad
    items = affordable(minutes, rate.minutes, experts)
    how = {
        "task": f"review.minutes.{kind}",
        "measured": f"measured on {rate.answers:,} answers",
        "assumed": f"assumed; review.minutes.{kind} says otherwise, and answers with times measure it",
    }[rate.source]
    noun = "pairs" if kind == PAIR else "ads"
    say(
        f"{minutes:g} minutes buy {items:,} {noun}: {rate.minutes:.2g} minutes each ({how}), "
        f"{experts} experts an ad"
    )
    selection = task.selection.model_copy(update={"budget": items})
    return task.model_copy(update={"selection": selection})

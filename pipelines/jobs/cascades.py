"""What a cascade is to do next, by what it did before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from pipelines.config import Task
from pipelines.numerics.cascade import next_share, pooled
from pipelines.stages.cascade_ads import Cascade
from pipelines.store import students
from pipelines.store.facts import CascadeFacts
from pipelines.store.workspace import Place, Workspace


def planned(
    workspace: Workspace, task: Task, score_key: str, say: Callable[[str], None]
) -> Cascade | None:
    """Return how the next run spends LLM-0; None where it reads every ad.

    What a student was fitted for is kept as long as LLM-0 is asked the same. Where the ads that were
    explored say that more of LLM-0's positives are missed than the task allows, more is read from now on.

    Args:
        workspace: the workspace.
        task: with the committee that is asked.
        score_key: of LLM-0's scores.
        say: told when more is read than before.
    """
    if task.cascade.by is None:
        return None
    wanted = task.cascade
    key = students.foretold_key(score_key, task.cascade.by)
    student = students.find(workspace.root, key)
    share = wanted.share
    if share is None and student:
        share = _share(list(_before(workspace, student, wanted.kept)), say)
    return Cascade(
        by=task.cascade.by,
        student=student,
        share=share,
        kept=wanted.kept,
        explored=wanted.explore,
        pilot_ads=wanted.pilot_ads,
        prior=task.prior,
        seed=task.seed,
        key=key,
    )


def _before(workspace: Workspace, student: str, kept: float) -> Iterator[CascadeFacts]:
    """Yield what was done by a student for one aim."""
    scored = workspace.scored
    places: list[Place] = [*scored.by_round(), *scored.by_date()]
    for place in places:
        # Each attempt tells of the ads that were new to it alone.
        for manifest in scored.all(place):
            done = manifest.facts.cascade
            if done and done.student == student and done.kept == kept:
                yield done


def _share(before: list[CascadeFacts], say: Callable[[str], None]) -> float | None:
    """Return the share to read; None where the student's own pilot decides."""
    shares = [done.share for done in before if done.share is not None]
    if not shares:
        return None
    # Shares only grow, so the largest is the newest.
    share = max(shares)
    misses = [done.miss for done in before if done.miss and done.share == share]
    if not misses:
        return share
    miss = pooled(misses)
    wider = next_share(share, miss, before[0].kept)
    if wider > share:
        say(
            f"the cascade misses {miss.rate:.1%} of LLM-0's positives ({miss.low:.1%} to {miss.high:.1%}, by "
            f"{miss.explored:,} ads that were explored), {1 - before[0].kept:.1%} are allowed: LLM-0 reads "
            f"{wider:.0%} of the ads from now on instead of {share:.0%}"
        )
    return wider

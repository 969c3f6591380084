"""What is at the report's head, and where all of it comes from at its end."""

from __future__ import annotations

from pipelines.report.data import Evidence
from pipelines.report.html import Facts, Section, word
from pipelines.report.words import kappa_text, model_name


def headline(found: Evidence, projection: str) -> Facts:
    """Return the lines at the top of the report."""
    origin, covered = found.pairs.facts.origin, found.pairs.facts.covered_share
    sample, items, known = found.sample, found.items, found.known
    others = f", of {', '.join(map(str, known))} (--round shows another)" if len(known) > 1 else ""
    lines = [
        ("task", f"{word(found.task.name)}, policy version {found.task.version}"),
        ("round shown", f"{found.number}{others}"),
        ("scored by", word(origin.model_id, 300)),
    ]
    if sample:
        lines.append(
            (
                "ads",
                f"{sample.ads:,}, of which {sample.positives:,} ({sample.positives / sample.ads:.1%}) "
                f"are called {found.names['positive']}; maps {sample.extent}, by "
                f"{projection}",
            )
        )
    budget = found.task.selection.budget
    cover = "" if covered is None else f", which cover {covered:.1%} of the corpus"
    lines.append((found.noun(), f"{len(items):,} of a budget of {budget:,}{cover}"))
    newest = found.evaluation
    if newest:
        last = newest["models"][-1]
        lines += [
            ("experts among themselves", f"kappa {kappa_text(newest['expert_kappa'])}"),
            (f"{model_name(last['round'])} and experts", f"kappa {kappa_text(last['kappa'])}"),
        ]
    lines.append(("next", word(found.stand["next"], 500)))
    return lines


def provenance(found: Evidence) -> Section:
    """Return task, corpus, model and the attempts that the report was drawn from."""
    task, origin = found.task, found.pairs.facts.origin
    lines = [
        ("task", f"{word(task.name)}, policy version {task.version}"),
        ("policy", word(task.policy, 5000)),
        ("question", word(task.question)),
        ("corpus", ", ".join(word(pattern, 300) for pattern in origin.corpus)),
        ("date", word(origin.date) or "none given"),
        ("model", word(origin.model_id, 300)),
        ("model of round", str(origin.model_round) if origin.model_round else "none: LLM-0"),
        ("prompt", word(origin.prompt_hash)),
        ("vectors", word(origin.embedding_id, 300)),
        ("score key", word(origin.score_key)),
        ("seed", str(task.seed)),
    ]
    for manifest in (found.scored, found.clusters, found.pairs):
        if manifest:
            place = found.workspace.path(manifest.attempt)
            lines.append((manifest.stage, f"{word(place, 500)}, {manifest.created}"))
    versions = ", ".join(f"{word(k)} {word(v)}" for k, v in sorted(origin.versions.items()))
    lines.append(("versions", versions))
    return Section("provenance", "Provenance", facts=lines)

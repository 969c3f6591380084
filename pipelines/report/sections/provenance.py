"""What is at the report's head, and where all of it comes from at its end."""

from __future__ import annotations

from pipelines.report.data import Evidence
from pipelines.report.html import Facts, Section, word
from pipelines.report.words import kappa_text, model_name


def headline(found: Evidence, projection: str) -> Facts:
    """Return the lines at the top of the report."""
    number, known, facts = found.number, found.known, found.facts
    sample, items = found.sample, found.items
    others = f", of {', '.join(map(str, known))} (--round shows another)" if len(known) > 1 else ""
    lines = [
        ("task", f"{word(facts['task'])}, policy version {facts['task_version']}"),
        ("round shown", f"{number}{others}"),
        ("scored by", word(facts["model_id"], 300)),
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
    budget = found.definition["selection"]["budget"]
    cover = f", which cover {facts['covered_share']:.1%} of the corpus" if found.covers else ""
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
    facts, definition = found.facts, found.definition
    lines = [
        ("task", f"{word(facts['task'])}, policy version {facts['task_version']}"),
        ("policy", word(definition["policy"], 5000)),
        ("question", word(definition["question"])),
        ("corpus", ", ".join(word(pattern, 300) for pattern in facts["corpus"])),
        ("date", word(facts["date"]) or "none given"),
        ("model", word(facts["model_id"], 300)),
        ("model of round", str(facts["model_round"]) if facts["model_round"] else "none: LLM-0"),
        ("prompt", word(facts["prompt_hash"])),
        ("vectors", word(facts["embedding_id"], 300)),
        ("score key", word(facts["score_key"])),
        ("seed", str(definition["seed"])),
    ]
    for stage in ("scored", "clusters", "pairs"):
        manifest = found.manifests.get(stage)
        if manifest:
            place = found.workspace.path(manifest.attempt)
            lines.append((stage, f"{word(place, 500)}, {manifest.created}"))
    versions = ", ".join(f"{word(k)} {word(v)}" for k, v in sorted(facts["versions"].items()))
    lines.append(("versions", versions))
    return Section("provenance", "Provenance", facts=lines)

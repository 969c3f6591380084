"""The selection strategies by name: another one is a file beside this and a line here."""

from __future__ import annotations

import difflib
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from models.registry import Registry
from pipelines.errors import UsageError

if TYPE_CHECKING:
    # Strategies bring scikit-learn along: their names must be known at once.
    from pipelines.strategies.base import Strategy

_STRATEGIES: Registry[type[Strategy]] = Registry(
    "strategy",
    {
        "boundary": "pipelines.strategies.boundary:Boundary",
        "uncertainty": "pipelines.strategies.uncertainty:Uncertainty",
        "random": "pipelines.strategies.random:Random",
        "exploration": "pipelines.strategies.exploration:Exploration",
        "committee": "pipelines.strategies.committee:Committee",
        "bald": "pipelines.strategies.bald:Bald",
        "gradient-length": "pipelines.strategies.gradient_length:GradientLength",
        "error-reduction": "pipelines.strategies.error_reduction:ErrorReduction",
        "badge": "pipelines.strategies.badge:Badge",
        "core-set": "pipelines.strategies.core_set:CoreSet",
        "clusters": "pipelines.strategies.clusters:Clusters",
        "contrastive": "pipelines.strategies.contrastive:Contrastive",
        "discriminative": "pipelines.strategies.discriminative:Discriminative",
        "representative-errors": "pipelines.strategies.representative_errors:RepresentativeErrors",
        "noise": "pipelines.strategies.noise:Noise",
        "causal": "pipelines.strategies.causal:Causal",
        "relevance": "pipelines.strategies.relevance:Relevance",
    },
)
# Other names of the field for one and the same ranking: of two classes the first three are equal, and a
# committee's divergence from its consensus is BALD's mutual information.
_ALIASES = {
    "least-confidence": "uncertainty",
    "margin": "uncertainty",
    "entropy": "uncertainty",
    "consensus-divergence": "bald",
    "query-by-committee": "committee",
    "typiclust": "clusters",
    "cal": "contrastive",
    "real": "representative-errors",
}


def names() -> tuple[str, ...]:
    """Return what strategies call themselves, each once."""
    return tuple(_STRATEGIES)


def aliases() -> dict[str, str]:
    """Return the other names that ``selection.strategy`` may have, and whose they are."""
    return dict(_ALIASES)


def check(name: str) -> None:
    """Refuse a name that no strategy has; nothing is loaded.

    Raises:
        UsageError: says which there are.
    """
    if name not in _STRATEGIES and name not in _ALIASES:
        near = difflib.get_close_matches(name, [*_STRATEGIES, *_ALIASES], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(_STRATEGIES)}"
        raise UsageError(f"selection.strategy: no strategy {name!r}; {hint}")


def create(name: str) -> Strategy:
    """Return a strategy by its name or another name of it; raises as :func:`check` does."""
    check(name)
    return _STRATEGIES.get(_ALIASES.get(name, name))()


def registered(strategy: type[Strategy]) -> AbstractContextManager[None]:
    """Know a strategy of one's own, by its name, while the body runs.

    Raises:
        ValueError: the name is taken.
    """
    return _STRATEGIES.registered(strategy.name, strategy)

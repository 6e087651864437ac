"""Nothing held out may reach a prediction: every ranker, every protocol; and the finder finds."""

from dataclasses import replace

import pytest

from evaluation.planted import BASELINES, ObservedRanker, planted, planted_catalog, planted_runs
from recsys_ms.evaluation.leak import find_leaks
from recsys_ms.evaluation.protocols import (
    LeaveOneTaskOut,
    Setting1,
    Setting3,
    UnseenModels,
)
from recsys_ms.evaluation.temporal import Temporal
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.ranker_names import RANKER_NAMES, make_ranker

RUNS = planted_runs(n_tasks=4, n_models=12)
# settings-2 makes the folds of leave-one-task-out: test_protocols.py.
PROTOCOLS = [
    LeaveOneTaskOut(),
    LeaveOneTaskOut(n_observed=3),
    UnseenModels(n_repeats=1, test_fraction=0.3),
    UnseenModels(n_repeats=1, test_fraction=0.5, group_by="family"),
    Setting1(n_repeats=1),
    Setting3(n_repeats=1),
    Temporal(runs=RUNS, fractions=(0.6,)),
]


def protocol_id(protocol):
    options = [
        f"{k}={v}" for k, v in protocol.settings().items() if k in ("n_observed", "group_by")
    ]
    return " ".join([protocol.name, *options])


class LeakyProtocol(LeaveOneTaskOut):
    """Trains on the task that it tests."""

    def folds(self, interactions, catalog, *, seed):
        for fold in super().folds(interactions, catalog, seed=seed):
            yield replace(fold, train=interactions)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=protocol_id)
@pytest.mark.parametrize("name", [*BASELINES, "observed"])
def test_small_rankers_do_not_leak(protocol, name):
    factory = {**BASELINES, "observed": ObservedRanker}[name]
    assert (
        find_leaks(
            Interactions.from_runs(RUNS),
            catalog=planted_catalog(),
            protocol=protocol,
            factory=factory,
        )
        == ()
    )


def test_a_leak_of_the_protocol_is_found():
    leaks = find_leaks(planted(), protocol=LeakyProtocol(), factory=ObservedRanker)
    assert leaks == tuple(f"task-{i}: task-{i}" for i in range(6))


def test_a_leak_of_the_ranker_is_found():
    """A ranker that sees the whole history behind the protocol's back is caught."""
    seen = []

    class Spying(LeaveOneTaskOut):
        def folds(self, interactions, catalog, *, seed):
            seen.append(interactions)
            yield from super().folds(interactions, catalog, seed=seed)

    class Peeking(ObservedRanker):
        def _fit(self, interactions, rng):
            super()._fit(seen[-1], rng)

    assert find_leaks(planted(n_tasks=3), protocol=Spying(), factory=Peeking)


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=protocol_id)
@pytest.mark.parametrize("name", RANKER_NAMES)
def test_registered_rankers_do_not_leak(protocol, name):
    assert (
        find_leaks(
            Interactions.from_runs(RUNS),
            catalog=planted_catalog(),
            protocol=protocol,
            factory=lambda: make_ranker(name),
            n_folds=2,
        )
        == ()
    )

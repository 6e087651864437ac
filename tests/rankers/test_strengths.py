"""Strengths: planted covariances are found, tasks without structure get none."""

from dataclasses import replace

import numpy as np

from recsys_ms.rankers.outcome_shape import OutcomeShape
from recsys_ms.rankers.strengths import HeldOutTask, Strengths, fit_bend, fit_strengths
from recsys_ms.rankers.transfer_model import ModelRows


def tasks(factors: float, directions: float, noise: float, n: int = 40) -> list[HeldOutTask]:
    """Held-out tasks drawn with the given strengths from known loadings."""
    rng = np.random.default_rng(0)
    loadings, near = rng.normal(size=(60, 2)), rng.normal(size=(60, 4)) / 2.0
    found = []
    for i in range(n):
        normal = np.sqrt(factors) * loadings @ rng.normal(size=2)
        normal += np.sqrt(directions) * near @ rng.normal(size=4)
        normal += np.sqrt(0.3 * noise) * rng.normal(size=60)
        found.append(
            HeldOutTask(
                name=f"t{i}",
                mean=np.zeros(60),
                level=0.01,
                factor_sd=1.0,
                models=ModelRows(np.zeros(60), loadings, near, np.full(60, 0.3), np.zeros(60)),
                normal=normal,
            )
        )
    return found


def test_planted_strengths_are_found() -> None:
    found = fit_strengths(tasks(0.5, 0.3, 1.5), seed=0)
    assert 0.3 < found.factors < 0.8
    assert 0.15 < found.directions < 0.6
    assert 1.2 < found.noise < 1.8


def test_tasks_that_share_nothing_are_not_believed_to() -> None:
    found = fit_strengths(tasks(0.0, 0.0, 1.0), seed=0)
    assert found.factors < 0.03
    assert found.directions < 0.03


def test_one_task_tells_nothing() -> None:
    assert fit_strengths(tasks(0.5, 0.3, 1.0, n=1), seed=0) == Strengths()


def test_the_bend_is_taken_as_far_as_new_tasks_have_it() -> None:
    rng = np.random.default_rng(1)
    shape = OutcomeShape.normal()
    bend = rng.normal(size=60)
    own = [replace(each, models=replace(each.models, bend=bend)) for each in tasks(0.1, 0.0, 1.0)]
    for share in (0.0, 0.6):
        reached = [0.3 * rng.normal(size=60) + share * bend for _ in own]
        found = fit_bend(own, reached, [shape] * len(own), Strengths())
        assert abs(found.bend - share) < 0.07

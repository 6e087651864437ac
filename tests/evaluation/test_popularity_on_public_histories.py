"""Popularity, leave-one-task-out, on the public histories: the figures measured independently.

Definition: z-score of a model's outcome within each training task (population standard deviation),
mean over the training tasks, Pearson against the held-out outcomes over the models of that task,
mean over tasks. Models without another run would be predicted 0; no history below has one.
"""

import numpy as np
import pytest
from benchmarks.public_histories import load

from recsys_ms.evaluation.backtest import backtest
from recsys_ms.evaluation.protocols import LeaveOneTaskOut

pytestmark = [pytest.mark.shared_data, pytest.mark.usefixtures("shared_data")]

#: Tasks, interactions and the figure.
HISTORIES = {
    "parc_controlled": (7, 196, 0.703),
    "parc_all": (7, 459, 0.697),
    "transfergraph_jobs": (19, 4967, 0.729),
    "transfergraph_records": (12, 2141, 0.825),
    "spider": (7, 462, 0.876),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_mean_pearson_of_popularity(name):
    n_tasks, n_interactions, published = HISTORIES[name]
    history, _ = load(name, cards=False)
    assert (history.n_tasks, history.n_interactions) == (n_tasks, n_interactions)
    result = backtest(history, protocol=LeaveOneTaskOut(), rankers=[], n_draws=500)
    # The figures are given to three digits; the tolerance is the one asked for.
    assert result.mean("popularity", "pearson") == pytest.approx(published, abs=0.005)
    assert result.summaries["popularity"].n_defined["pearson"] == n_tasks
    assert result.mean("oracle", "regret@1") == 0.0
    assert abs(result.mean("random", "spearman")) < 0.3
    low, high = result.summaries["popularity"].interval["pearson"]
    assert low < published < high
    assert np.isfinite(result.mean("popularity", "regret@1"))

"""Protocols by name."""

import pytest

from evaluation.planted import planted_runs
from recsys_ms.core.errors import UsageError
from recsys_ms.evaluation.named_protocols import PROTOCOL_NAMES, make_protocol
from recsys_ms.evaluation.protocols import LeaveOneTaskOut, Setting1, Setting3, UnseenModels


@pytest.mark.parametrize("name", PROTOCOL_NAMES)
def test_every_name_makes_its_protocol(name):
    assert make_protocol(name, runs=planted_runs()).name == name


@pytest.mark.parametrize("number", [1, 2, 3])
def test_both_spellings(number):
    one, other = make_protocol(f"settings-{number}"), make_protocol(f"setting-{number}")
    assert one == other


def test_options_arrive():
    assert make_protocol("leave-one-task-out", n_observed=4) == LeaveOneTaskOut(n_observed=4)
    assert make_protocol(
        "unseen-models", n_repeats=2, group_by="family", test_fraction=0.3
    ) == UnseenModels(n_repeats=2, group_by="family", test_fraction=0.3)
    assert make_protocol("settings-1", n_repeats=2) == Setting1(n_repeats=2)
    assert make_protocol("settings-3", train_fraction=0.8) == Setting3(train_fraction=0.8)
    assert make_protocol(
        "temporal", runs=planted_runs(), before=["2026-01-09"], undated="leave-out"
    ).settings() == {"before": ["2026-01-09T00:00:00+00:00"], "undated": "leave-out"}


def test_invalid_arguments():
    with pytest.raises(UsageError, match="choose one of leave-one-task-out"):
        make_protocol("loto")
    with pytest.raises(UsageError, match="no option 'n_observed'"):
        make_protocol("unseen-models", n_observed=1)
    with pytest.raises(UsageError, match="runs="):
        make_protocol("temporal")

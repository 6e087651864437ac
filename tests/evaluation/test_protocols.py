"""Protocols: what is trained on, what is tested, and that the two never meet."""

import numpy as np
import pytest

from evaluation.planted import planted, planted_catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.evaluation.protocols import (
    LeaveOneTaskOut,
    Setting1,
    Setting2,
    Setting3,
    UnseenModels,
)
from recsys_ms.history.interactions import Interactions

ALL = [
    LeaveOneTaskOut(),
    LeaveOneTaskOut(n_observed=3),
    UnseenModels(n_repeats=3),
    UnseenModels(n_repeats=3, group_by="family"),
    Setting1(),
    Setting2(),
    Setting3(),
]


def pairs(interactions):
    return {
        (interactions.task_ids[t], interactions.model_ids[m]): v
        for t, m, v in zip(
            interactions.task_index, interactions.model_index, interactions.outcomes, strict=True
        )
    }


def folds_of(protocol, history=None, seed=0, catalog=None):
    history = planted() if history is None else history
    catalog = planted_catalog() if catalog is None else catalog
    return list(protocol.folds(history, catalog, seed=seed))


def same(one, other):
    return (
        one.name == other.name
        and one.train.task_ids == other.train.task_ids
        and np.array_equal(one.train.values, other.train.values)
        and [(h.query, h.model_ids, h.outcomes.tolist()) for h in one.held_out]
        == [(h.query, h.model_ids, h.outcomes.tolist()) for h in other.held_out]
    )


@pytest.mark.parametrize("protocol", ALL, ids=lambda p: f"{p.name} {p.settings()}")
class TestEveryProtocol:
    def test_train_and_test_never_meet_and_tell_the_truth(self, protocol):
        history = planted()
        truth = pairs(history)
        for fold in folds_of(protocol, history):
            trained = pairs(fold.train)
            assert trained.items() <= truth.items()
            for held_out in fold.held_out:
                task = held_out.query.task_id
                tested = {(task, model) for model in held_out.model_ids}
                revealed = {(task, model) for model in held_out.query.observed}
                assert not tested & trained.keys()
                assert not tested & revealed
                assert [truth[pair] for pair in sorted(tested)] == held_out.outcomes.tolist()
                assert {(task, m): v for m, v in held_out.query.observed.items()}.items() <= (
                    truth.items()
                )

    def test_warmth_says_what_training_knows(self, protocol):
        for fold in folds_of(protocol):
            for held_out in fold.held_out:
                hot = held_out.query.task_id in fold.train.task_ids
                warm = bool(held_out.query.observed)
                assert held_out.warmth == ("hot" if hot else "warm" if warm else "cold")

    def test_the_seed_decides(self, protocol):
        for one, other in zip(folds_of(protocol), folds_of(protocol), strict=True):
            assert same(one, other)
        if protocol.name not in ("settings-2",) and protocol != LeaveOneTaskOut():
            others = folds_of(protocol, seed=1)
            assert not all(map(same, folds_of(protocol), others))

    def test_names_are_unique_and_counted(self, protocol):
        folds = folds_of(protocol)
        assert len({fold.name for fold in folds}) == len(folds) == protocol.n_folds(planted())

    def test_the_history_is_not_changed(self, protocol):
        history = planted()
        before = history.values.copy()
        folds_of(protocol, history)
        assert np.array_equal(history.values, before)


def test_leave_one_task_out_tests_every_task_whole():
    history = planted()
    for fold in folds_of(LeaveOneTaskOut(), history):
        assert fold.name not in fold.train.task_ids
        (held_out,) = fold.held_out
        assert len(held_out.model_ids) == history.of_task(fold.name)[0].size


def test_revealed_runs_depend_on_the_task_only():
    history = planted()
    whole = {f.name: f.held_out[0].query for f in folds_of(LeaveOneTaskOut(n_observed=2), history)}
    part = history.without_task("task-5")
    for fold in folds_of(LeaveOneTaskOut(n_observed=2), part):
        assert fold.held_out[0].query == whole[fold.name]


def test_a_thinner_history_is_a_part_of_a_thicker_one():
    thin, thick, whole = (
        folds_of(LeaveOneTaskOut(history_fraction=share)) for share in (0.2, 0.6, 1.0)
    )
    for few, more, every in zip(thin, thick, whole, strict=True):
        parts = [pairs(fold.train).items() for fold in (few, more, every)]
        assert parts[0] < parts[1] < parts[2]
        n = every.train.n_interactions
        assert 0.1 * n < few.train.n_interactions < 0.3 * n
        assert [h.query for h in few.held_out] == [h.query for h in every.held_out]
        np.testing.assert_array_equal(few.held_out[0].outcomes, every.held_out[0].outcomes)
    least = folds_of(LeaveOneTaskOut(history_fraction=1e-9))
    assert all(fold.train.n_interactions == 1 for fold in least)


def test_a_task_with_too_few_models_is_named():
    history = Interactions.from_triplets(
        ["big"] * 4 + ["small"] * 2, ["a", "b", "c", "d", "a", "b"], [1, 2, 3, 4, 5, 6]
    )
    folds = folds_of(LeaveOneTaskOut(n_observed=1), history)
    assert [fold.left_out for fold in folds] == [(), ("small",)]
    assert folds[1].held_out == ()


def test_one_task_cannot_be_left_out():
    history = Interactions.from_triplets(["t"] * 3, ["a", "b", "c"], [1, 2, 3])
    for protocol in (LeaveOneTaskOut(), Setting2(), Setting3()):
        with pytest.raises(DataError, match="unseen-models or settings-1"):
            folds_of(protocol, history)
    assert folds_of(UnseenModels(n_repeats=1, test_fraction=0.5), history)


def test_unseen_models_are_unseen_on_every_task():
    for fold in folds_of(UnseenModels(n_repeats=4)):
        tested = {model for held_out in fold.held_out for model in held_out.model_ids}
        assert not tested & set(fold.train.model_ids)
        assert {held_out.warmth for held_out in fold.held_out} == {"hot"}


def test_a_fifth_of_the_models_is_held_out():
    history = planted(n_tasks=3, n_models=40, density=1.0)
    for fold in folds_of(UnseenModels(n_repeats=2), history):
        assert fold.train.n_models == 32


def test_families_are_held_out_whole():
    catalog = planted_catalog()
    for fold in folds_of(UnseenModels(n_repeats=4, group_by="family"), catalog=catalog):
        tested = {model for held_out in fold.held_out for model in held_out.model_ids}
        family = catalog.models["family"]
        assert not set(family[list(tested)]) & set(family[list(fold.train.model_ids)])
        assert fold.groups == tuple(sorted({f"family {family[m]}" for m in tested}))


def test_a_model_of_unknown_family_stands_alone():
    catalog = planted_catalog(n_models=10)  # model-10 and model-11 have no card
    groups = set()
    for fold in folds_of(UnseenModels(n_repeats=20, group_by="family"), catalog=catalog):
        groups.update(fold.groups)
    assert {"model model-10", "model model-11"} <= groups


def test_grouping_needs_families():
    with pytest.raises(DataError, match="the family of all 12 models is unknown"):
        list(UnseenModels(group_by="family").folds(planted(), None, seed=0))


def test_setting_1_knows_the_target_task_only():
    for fold in folds_of(Setting1(n_repeats=2)):
        assert fold.train.task_ids == (fold.held_out[0].query.task_id,)


def test_settings_1_and_3_test_the_same_models():
    for one, three in zip(folds_of(Setting1()), folds_of(Setting3()), strict=True):
        assert one.held_out[0].model_ids == three.held_out[0].model_ids
        assert three.train.n_tasks == 6


def test_setting_2_is_leave_one_task_out():
    for one, other in zip(folds_of(Setting2()), folds_of(LeaveOneTaskOut()), strict=True):
        assert same(one, other)


def test_train_fraction_is_that_of_the_target_task():
    history = planted(n_tasks=2, n_models=20, density=1.0)
    for fold in folds_of(Setting3(train_fraction=0.8, n_repeats=1), history):
        assert len(fold.held_out[0].model_ids) == 4


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeaveOneTaskOut(history_fraction=0.0), "history_fraction"),
        (lambda: LeaveOneTaskOut(n_observed=-1), "n_observed"),
        (lambda: UnseenModels(n_repeats=0), "n_repeats"),
        (lambda: UnseenModels(test_fraction=1.0), "test_fraction"),
        (lambda: UnseenModels(group_by="colour"), "group_by"),
        (lambda: Setting1(train_fraction=0.0), "train_fraction"),
        (lambda: Setting3(n_repeats=0), "n_repeats"),
    ],
)
def test_bad_settings(make, message):
    with pytest.raises(UsageError, match=message):
        make()


def test_too_few_models_to_hold_out():
    history = Interactions.from_triplets(["t", "u"], ["a", "a"], [1, 2])
    with pytest.raises(DataError, match="nothing to train on"):
        folds_of(UnseenModels(), history)


def test_lower_is_better_outcomes_are_negated():
    history = Interactions.from_triplets(
        ["t"] * 3 + ["u"] * 3, list("abc") * 2, [3.0, 2.0, 1.0] * 2, direction="min", metric="rmse"
    )
    fold = folds_of(LeaveOneTaskOut(), history)[0]
    assert fold.held_out[0].outcomes.tolist() == [-3.0, -2.0, -1.0]

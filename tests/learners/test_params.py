"""Every head has a frozen config beside it, and says what it learned."""

from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest

from recsys_ms.core.errors import NotFittedError, UsageError
from recsys_ms.core.state import declares
from recsys_ms.learners.ensemble import EnsembleHead
from recsys_ms.learners.fm import FactorizationMachineHead
from recsys_ms.learners.gaussian.kernel_head import KernelHead
from recsys_ms.learners.head import Head
from recsys_ms.learners.linear import LinearHead
from recsys_ms.learners.trees import LightGBMHead

OTHER = {
    LinearHead: {"penalty": 2.0},
    FactorizationMachineHead: {"n_factors": 2, "noise_margins": (0.5,)},
    LightGBMHead: {"n_trees": 7, "objective": "lambdarank"},
    KernelHead: {"n_tuning_rows": 30},
    EnsembleHead: {"n_folds": 3},
}
every_head = pytest.mark.parametrize("head_type", OTHER, ids=lambda each: each.__name__)


def test_no_head_is_forgotten():
    ours = [each for each in Head.__subclasses__() if each.__module__.startswith("recsys_ms.")]
    assert set(ours) == set(OTHER)


@every_head
def test_settings_make_the_same_head_again(head_type):
    for head in (head_type(), head_type(**OTHER[head_type])):
        params = head.get_params()
        assert list(params) == [each.name for each in fields(head.config)]
        assert head_type(**params).config == head.config
        assert head_type(head.config).config == head.config
    told = ", ".join(f"{name}={value!r}" for name, value in OTHER[head_type].items())
    # In the order of the fields, whatever that of the arguments.
    assert sorted(repr(head)[len(head_type.__name__) + 1 : -1]) == sorted(told)
    assert repr(head_type()) == f"{head_type.__name__}()"


@every_head
def test_settings_are_frozen_and_checked(head_type):
    head = head_type()
    name = next(iter(head.get_params()))
    with pytest.raises(FrozenInstanceError):
        setattr(head.config, name, 1)
    with pytest.raises(UsageError, match="unknown setting 'nonsense'"):
        head_type(nonsense=1)
    with pytest.raises(UsageError, match="not both"):
        head_type(head.config, **OTHER[head_type])


@every_head
def test_what_is_learned_is_stored_and_a_refit_forgets(head_type):
    assert declares(head_type)
    rng = np.random.default_rng(0)
    design, target = rng.normal(size=(40, 3)), rng.normal(size=40)
    head = head_type()
    for use in (head.state, lambda: head.predict(design)):
        with pytest.raises(NotFittedError, match=f"{head_type.__name__} is not fitted.*fit"):
            use()
    assert head.fit(design[:20], -target[:20], rng=1) is head
    head.fit(design, target, rng=2)
    fresh = head_type().fit(design, target, rng=2)
    np.testing.assert_array_equal(head.predict(design), fresh.predict(design))
    again = head_type.from_state(head.state())
    np.testing.assert_array_equal(again.predict(design), head.predict(design))
    assert repr(again) == repr(head)

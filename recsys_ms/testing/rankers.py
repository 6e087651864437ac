"""The contract of rankers."""

import copy
import tempfile
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.configured import plain
from recsys_ms.core.errors import NotFittedError, NotSavableError, UsageError
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery
from recsys_ms.serving.artifact import load_artifact, save_artifact
from recsys_ms.testing.assertions import require, require_raises, skip, to_fill_in
from recsys_ms.testing.planted import planted_catalog, planted_history

_SEED: Final = 3
#: Rankers that were fitted, by their contract and their settings.
_FITTED: Final[dict[tuple[type, str], BaseRanker]] = {}


class RankerContract:
    """Tests of a ranker; subclass it and define :meth:`make_ranker`.

    Attributes
    ----------
    model_ids : tuple of str
        Models to predict: with runs, with a card only, and unknown.
    queries : tuple of TaskQuery
        Tasks to predict: of the history, unknown, and unknown with outcomes.
    """

    model_ids: tuple[str, ...] = ("m03", "m00", "new-model", "never seen", "m17")
    queries: tuple[TaskQuery, ...] = (
        TaskQuery(task_id="t01"),
        TaskQuery(task_id="somewhere new"),
        TaskQuery(task_id="warm", observed={"m00": 0.8, "m01": 0.6, "m05": 0.61}),
    )

    def make_ranker(self) -> BaseRanker:
        """The ranker, not fitted; a new one every time."""
        raise to_fill_in(self, "make_ranker")

    def interactions(self) -> Interactions:
        """The history it is fitted on."""
        return planted_history()

    def catalog(self) -> Catalog:
        """The catalog it is fitted with."""
        return planted_catalog()

    def test_fit_returns_itself(self) -> None:
        """``fit`` returns the ranker."""
        ranker = self.make_ranker()
        found = ranker.fit(self.interactions(), self.catalog(), rng=_SEED)
        require(found is ranker, "fit() must return self")
        _FITTED.setdefault((type(self), repr(ranker)), ranker)

    def test_one_finite_number_a_model(self) -> None:
        """Every model is answered, known or not, on every task, known or not."""
        for query in self.queries:
            answer = self._fitted().predict(query, self.model_ids)
            for part in (answer.value, answer.order):
                require(
                    part.shape == (len(self.model_ids),) and bool(np.isfinite(part).all()),
                    f"task {query.task_id!r}: {part}, expected one finite number a model",
                )

    def test_no_model_no_answer(self) -> None:
        """Without models the answer is empty."""
        answer = self._fitted().predict(self.queries[0], [])
        require(answer.value.shape == (0,), "without models the answer must be empty")

    def test_works_without_a_catalog(self) -> None:
        """A history alone is enough, unless the ranker names what it needs of a catalog."""
        try:
            ranker = self.make_ranker().fit(self.interactions(), rng=_SEED)
        except ValueError as error:
            skip(f"needs a catalog: {error}")
        answer = ranker.predict(self.queries[1], self.model_ids)
        require(bool(np.isfinite(answer.value).all()), "an answer is not finite")

    def test_same_seed_same_answer_and_refit_forgets(self) -> None:
        """A second fit equals the first one of a new ranker with the same seed."""
        history = self.interactions()
        other = history.select(history.task_index < history.n_tasks // 2)
        ranker = self.make_ranker().fit(other, self.catalog(), rng=_SEED + 1)
        self._same(self._fitted(), ranker.fit(history, self.catalog(), rng=_SEED))

    def test_order_of_models_is_irrelevant(self) -> None:
        """A model's answer does not depend on the other models of the question."""
        ranker = self._fitted()
        turned = tuple(reversed(self.model_ids))
        for query in self.queries:
            together = ranker.predict(query, self.model_ids).value
            # Products of one row and of many sum in another order.
            for ids in (turned, *((each,) for each in self.model_ids)):
                own = ranker.predict(query, ids).value
                wanted = together[[self.model_ids.index(each) for each in ids]]
                np.testing.assert_allclose(own, wanted, rtol=1e-8, atol=1e-10)

    def test_asking_changes_nothing(self) -> None:
        """The second answer to a question is the first."""
        ranker = self._fitted()
        first = [ranker.predict(query, self.model_ids) for query in self.queries]
        again = [ranker.predict(query, self.model_ids) for query in self.queries]
        for a, b in zip(first, again, strict=True):
            _equal(a, b)

    def test_inputs_are_not_written_to(self) -> None:
        """Arrays of the history are not changed."""
        history = self.interactions()
        arrays = {
            each.name: getattr(history, each.name)
            for each in fields(history)
            if isinstance(getattr(history, each.name), np.ndarray)
        }
        before = copy.deepcopy(arrays)
        ranker = self.make_ranker().fit(history, self.catalog(), rng=_SEED)
        for query in self.queries:
            ranker.predict(query, self.model_ids)
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, before[name], err_msg=name)

    def test_unfitted_use_is_refused(self) -> None:
        """Asking and saving before ``fit`` raise ``NotFittedError``."""
        require_raises(
            NotFittedError,
            lambda: self.make_ranker().predict(self.queries[1], ["m00"]),
            "predict before fit",
        )
        if not self._is_savable():
            return
        require_raises(NotFittedError, lambda: self.make_ranker().state(), "state before fit")

    def test_save_and_load(self) -> None:
        """A loaded ranker answers exactly as the saved one."""
        ranker = self._fitted()
        if not self._is_savable():
            require_raises(NotSavableError, ranker.state, "saving what cannot be saved")
            skip("it does not declare how it is saved")
        with tempfile.TemporaryDirectory() as folder:
            save_artifact(ranker.state(), Path(folder, "saved"), manifest={})
            state, _ = load_artifact(Path(folder, "saved"))
        loaded = type(ranker).from_state(state, self.catalog())
        require(loaded.config == ranker.config, f"{loaded!r} was loaded of {ranker!r}")
        self._same(ranker, loaded)

    def test_config_round_trip(self) -> None:
        """Settings make the same ranker again: as they are, and as JSON has them."""
        ranker = self.make_ranker()
        made: type[Any] = type(ranker)
        params = ranker.get_params()
        require(
            list(params) == [each.name for each in fields(ranker.config)],
            "get_params() must give the fields of the config",
        )
        for values in (params, plain(params)):
            require(made(**values).config == ranker.config, f"{values} made another ranker")
        require(made(ranker.config).config == ranker.config, "its config made another ranker")
        require(repr(ranker).startswith(f"{made.__name__}("), f"repr is {ranker!r}")
        require_raises(UsageError, lambda: made(no_such_setting=1), "an unknown setting")
        for name in params:
            require_raises(
                FrozenInstanceError,
                lambda name=name: setattr(ranker.config, name, None),  # type: ignore[misc]
                f"setting {name} of the config",
            )

    def _is_savable(self) -> bool:
        try:
            self.make_ranker().require_savable()
        except NotSavableError:
            return False
        return True

    def _fitted(self) -> BaseRanker:
        """The ranker, fitted once for all tests that only read it."""
        ranker = self.make_ranker()
        key = (type(self), repr(ranker))
        if key not in _FITTED:
            _FITTED[key] = ranker.fit(self.interactions(), self.catalog(), rng=_SEED)
        return _FITTED[key]

    def _same(self, left: BaseRanker, right: BaseRanker) -> None:
        for query in self.queries:
            _equal(left.predict(query, self.model_ids), right.predict(query, self.model_ids))


def _equal(left: Prediction, right: Prediction) -> None:
    np.testing.assert_array_equal(left.value, right.value)
    np.testing.assert_array_equal(left.order, right.order)

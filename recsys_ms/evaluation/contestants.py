"""The rankers of a back-test, given by name, as classes, factories or instances."""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeGuard

import numpy as np
import pandas as pd

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, RecsysError, UsageError, kind_of
from recsys_ms.core.executor import Executor, ProcessExecutor, why_not_sent
from recsys_ms.core.types import FloatArray
from recsys_ms.evaluation.result import ORACLE, POPULARITY, RANDOM, STATIC
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.base import BaseRanker, Prediction, TaskQuery
from recsys_ms.rankers.ranker_names import make_ranker


class RankerLike(Protocol):
    """The methods that a back-test calls; :class:`~recsys_ms.rankers.base.BaseRanker` has them."""

    def fit(
        self, interactions: Interactions, catalog: Catalog | None, *, rng: np.random.Generator
    ) -> object:
        """Learn from training interactions; the return value is ignored."""
        ...

    def predict(self, query: TaskQuery, model_ids: Sequence[str]) -> Any:
        """Predict for ``model_ids``: a Prediction, or one number each, higher is better.

        The numbers may be an array or a list in the order of ``model_ids``, or a mapping or Series
        by model id; they are then both value and order.
        """
        ...


RankerFactory: TypeAlias = Callable[[], Any]
#: A name or variant (``nmf:8``), an unfitted instance, a class, or a function that makes one.
Contestant: TypeAlias = "str | RankerLike | type | RankerFactory"
Contestants: TypeAlias = "Mapping[str, Contestant] | Iterable[Contestant]"

#: Rows of every back-test besides the oracle's.
ALWAYS: Final = (POPULARITY, RANDOM, STATIC)

#: Errors while making a ranker that are those of the argument.
_MAKING_ERRORS: Final = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
)
_WANTED: Final = (
    "expected a name such as 'nmf' or 'nmf:8', an unfitted ranker, a class, or a function without "
    "arguments that makes one"
)
_METHODS: Final = "fit(interactions, catalog, *, rng) and predict(query, model_ids)"


class RankerFailedError(RecsysError):
    """A ranker raised an error, which is the cause."""

    @property
    def slip(self) -> BaseException | None:
        """The cause, if it is not one of our own errors: its traceback is needed to find it."""
        return None if isinstance(self.__cause__, RecsysError) else self.__cause__


@contextmanager
def asking(step: str) -> Iterator[None]:
    """Turn any error of a ranker into a failure of this ranker, which does not end the back-test.

    Raises
    ------
    RankerFailedError
        The ranker raised an error.
    """
    try:
        yield
    except Exception as error:
        raise RankerFailedError(f"{step}: {type(error).__name__}: {error}") from error


def contestants(rankers: Contestants, *, keep: Iterable[str] = ()) -> dict[str, RankerFactory]:
    """The factory of each ranker of a back-test, by the name of its row.

    Parameters
    ----------
    rankers : mapping or iterable
        Name → ranker, or rankers that have a name of their own.
    keep : iterable of str
        Rows whose intervals are needed.

    Raises
    ------
    UsageError
        Not a ranker, it cannot be made, or two rankers have the same name.
    """
    chosen: dict[str, RankerFactory] = {name: partial(make_ranker, name) for name in ALWAYS}
    for name, one in _named(rankers):
        if not isinstance(name, str) or not name:
            raise UsageError(f"the name of a ranker is {name!r}; expected a text")
        chosen[name] = _factory(name, one)
    made = {name: _made(name, factory) for name, factory in chosen.items()}
    for name in sorted(set(keep)):
        if name not in made:
            raise UsageError(
                f"keep names {name!r}, which is not compared; compared are {', '.join(made)}"
            )
        if not isinstance(made[name], BaseRanker):
            raise UsageError(
                f"keep names {name!r}, which has no intervals: {type(made[name]).__name__} is not "
                "a BaseRanker; derive it from BaseRanker, or leave it out of keep"
            )
    return chosen


def _named(given: Any) -> list[tuple[Any, object]]:
    if isinstance(given, Mapping):
        if ORACLE in given:
            raise UsageError("the row 'oracle' is computed here; give that ranker another name")
        return list(given.items())
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise UsageError(
            f"rankers is {kind_of(given)}; expected a sequence of names or rankers, or a mapping "
            "of name to ranker"
        )
    found: dict[str, object] = {}
    for one in given:
        name = _name_of(one)
        # The same text twice is the same ranker twice; two objects are two rankers.
        if name in found and not isinstance(one, str):
            raise UsageError(
                f"two rankers are called {name!r}; give a mapping, {{'mine': ..., 'other': ...}}"
            )
        if name != ORACLE:
            found[name] = one
    return list(found.items())


def _name_of(one: object) -> str:
    if isinstance(one, str):
        return one
    name = getattr(one, "name", None)
    if isinstance(name, str) and name:
        return name
    if not _is_ranker(one) and not callable(one):
        raise UsageError(f"rankers holds {kind_of(one)}; {_WANTED}")
    own: str = getattr(one, "__name__", type(one).__name__)
    if own == "<lambda>":
        raise UsageError("a lambda has no name; give rankers={'name': lambda: ...}")
    return own


def check_can_be_sent(named: Mapping[str, object], executor: Executor, kind: str) -> None:
    """Check that rankers or metrics can be sent to the processes of an executor.

    Raises
    ------
    UsageError
        A lambda, a local class, or something defined in a notebook, with a ProcessExecutor.
    """
    if not isinstance(executor, ProcessExecutor):
        return
    for name, one in named.items():
        if reason := why_not_sent(one):
            raise UsageError(
                f"{kind} {name!r} cannot be sent to other processes ({reason}). Put its class or "
                "function into a module, a file that can be imported, and import it from there; "
                "or use executor='serial'"
            )


def as_prediction(answer: object, model_ids: Sequence[str]) -> Prediction:
    """The answer of a ranker, in any of its forms, as a Prediction.

    Raises
    ------
    DataError
        Not one finite number per model.
    """
    if hasattr(answer, "value") and hasattr(answer, "order"):
        value, order = answer.value, answer.order
    else:
        value = order = _of_models(answer, model_ids)
    return Prediction(_vector(value, model_ids), _vector(order, model_ids))


def _of_models(answer: object, model_ids: Sequence[str]) -> object:
    # Numbers by model id are put in the order of model_ids.
    if isinstance(answer, pd.Series) and not isinstance(answer.index, pd.RangeIndex):
        answer = answer.to_dict()
    if not isinstance(answer, Mapping):
        return answer
    missing = [model_id for model_id in model_ids if model_id not in answer]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(model_ids)} models are missing from the answer, the first is "
            f"{missing[0]!r}; expected a number for each"
        )
    return [answer[model_id] for model_id in model_ids]


def _vector(part: object, model_ids: Sequence[str]) -> FloatArray:
    try:
        found: FloatArray = np.asarray(part, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the answer is {kind_of(part)}; expected a Prediction, or one number per model"
        ) from error
    if found.shape != (len(model_ids),) or not np.isfinite(found).all():
        raise DataError(
            f"the answer has shape {found.shape} and {int((~np.isfinite(found)).sum())} numbers "
            f"that are not finite; expected one finite number for each of {len(model_ids)} models"
        )
    return found


def _is_ranker(one: object) -> TypeGuard[RankerLike]:
    return callable(getattr(one, "fit", None)) and callable(getattr(one, "predict", None))


def _factory(name: str, one: object) -> RankerFactory:
    if isinstance(one, str):
        return partial(make_ranker, one)
    if isinstance(one, type):
        own: type[Any] = one
        if not _is_ranker(one):
            raise UsageError(f"ranker {name!r}: the class {own.__name__} has no {_METHODS}")
        return own
    if _is_ranker(one):
        # Copies of the unfitted ranker: no fold sees what another learned.
        return partial(copy.deepcopy, one)
    if callable(one):
        return one
    raise UsageError(f"ranker {name!r} is {kind_of(one)}; {_WANTED}")


def _made(name: str, factory: RankerFactory) -> object:
    # One unfitted ranker, so that errors end a back-test before its first fold.
    try:
        made: object = factory()
    except RecsysError:
        raise
    except _MAKING_ERRORS as error:
        is_copy = isinstance(factory, partial) and factory.func is copy.deepcopy
        raise UsageError(
            f"ranker {name!r} cannot be {'copied' if is_copy else 'made'} "
            f"({type(error).__name__}: {error}); {_WANTED}"
        ) from error
    if not _is_ranker(made):
        raise UsageError(
            f"ranker {name!r}: its factory made {kind_of(made)}, which has no {_METHODS}"
        )
    if not isinstance(made, BaseRanker):
        _check_call(name, made.fit, None, None, rng=None)
        _check_call(name, made.predict, None, ())
    return made


def _check_call(name: str, method: Callable[..., object], *given: object, **named: object) -> None:
    try:
        inspect.signature(method).bind(*given, **named)
    except TypeError as error:
        raise UsageError(
            f"ranker {name!r}: {method.__name__} cannot be called as a back-test does ({error}); "
            f"expected {_METHODS}"
        ) from error

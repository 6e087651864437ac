"""Cards for every architecture of timm: traced, embedded, clustered."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.facts import card_vector, cluster_name
from recsys_ms.architectures.subtrees import VIEWS
from recsys_ms.architectures.timm_models import TimmArchitecture, described
from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.core.executor import Executor, SerialExecutor
from recsys_ms.core.optional import require
from recsys_ms.core.progress import NO_PROGRESS, Progress

#: Where descriptions wait until all are there; kept, so that the next run has less to do.
_CACHE: Final = ".architectures"


@dataclass(frozen=True, slots=True)
class RegistryReport:
    """Counts, failures and times of :func:`embed_timm`.

    Attributes
    ----------
    n_architectures : int
        Architectures to describe.
    n_cards : int
        Cards written: one an architecture, one for each of its weights.
    n_clusters : int
        Different clusters among them.
    failures : dict of str to str
        Reasons by architecture; these have no card, and are tried again next time.
    seconds_traced, seconds_embedded : float
        Building and tracing architectures that no file described; training, vectors and clusters.
    """

    n_architectures: int
    n_cards: int
    n_clusters: int
    failures: dict[str, str]
    seconds_traced: float
    seconds_embedded: float


def timm_architectures(pattern: str = "*") -> list[str]:
    """Names of timm's architectures without tags, sorted, that match a pattern such as ``resnet*``.

    ``UsageError`` if none matches.
    """
    timm: Any = require("timm", extra="embed", purpose="list the architectures of timm")
    names = sorted(timm.list_models(pattern))
    if not names:
        raise UsageError(f"{pattern!r}: none of timm's architectures matches; try 'resnet*'")
    return names


def embed_timm(
    out: str | Path,
    names: Sequence[str] | None = None,
    *,
    archi2vec: Archi2Vec | None = None,
    config: Archi2VecConfig | None = None,
    executor: Executor | None = None,
    progress: Progress = NO_PROGRESS,
) -> RegistryReport:
    """Write cards of timm's architectures into a catalog, and the archi2vec of their vectors.

    No weights are built or downloaded. Every architecture has a card of its own name, and one for
    each of its weights (``ARCHITECTURE.TAG``, the ids of timm's runs), with the input size, classes
    and licence of those. Cards that the catalog has of other models stay; what both know is taken
    from here. Descriptions are kept in ``out/.architectures``: a run that was stopped goes on where
    it was, and one after an upgrade of torch or timm describes anew.

    Parameters
    ----------
    out : str or Path
        Folder of a catalog, created where absent; ``archi2vec.safetensors`` is written beside it.
    names : sequence of str, optional
        Default: every architecture of the timm that is installed.
    archi2vec : Archi2Vec, optional
        A fitted one, so that vectors agree with those it made before. Default: fitted on these.
    config : Archi2VecConfig, optional
        Options of the default.
    executor : Executor, optional
        Where architectures are traced; default: one after the other, here.
    progress : Progress, optional
        Shows architectures.

    Raises
    ------
    MissingExtraError
        torch, timm or gensim is not installed.
    UsageError
        The archi2vec looks at graphs with other views than the default.
    DataError
        None could be described, or too few to fit archi2vec on.
    StorageError
        The folder cannot be written.
    """
    folder = Path(out)
    views = (archi2vec.config if archi2vec else config or Archi2VecConfig()).views
    if views != VIEWS:
        raise UsageError(
            "embed_timm keeps words of the default views; fit an Archi2Vec with other views on "
            "graphs of architecture_graph"
        )
    wanted = timm_architectures() if names is None else list(names)
    # A catalog that cannot be read is reported before minutes of work.
    Catalog.read(folder, missing_ok=True)
    start = time.perf_counter()
    answers = (executor or SerialExecutor()).map(
        partial(described, folder=folder / _CACHE), iter(wanted)
    )
    made: list[TimmArchitecture] = []
    failures: dict[str, str] = {}
    shown = progress.track(answers, total=len(wanted), description="architectures")
    for name, answer in zip(wanted, shown, strict=True):
        if isinstance(answer, str):
            failures[name] = answer
        else:
            made.append(answer)
    if failures and len(made) < (2 if archi2vec is None else 1):
        name, reason = next(iter(failures.items()))
        raise DataError(f"{len(failures)} of {len(wanted)} cannot be described; {name}: {reason}")
    traced = time.perf_counter()
    embedder, words = archi2vec or Archi2Vec(config), [each.words for each in made]
    vectors = embedder.transform(words) if archi2vec else embedder.fit_transform(words)
    clusters = embedder.clusters(vectors)
    embedded = time.perf_counter()
    cards: list[ModelCard] = []
    for each, vector, number in zip(made, vectors, clusters, strict=True):
        embedding, cluster = card_vector(vector), cluster_name(int(number))
        described_cards = (each.card, *each.weights)
        cards += [replace(card, embedding=embedding, cluster=cluster) for card in described_cards]
    # Read now: others may have written cards meanwhile.
    Catalog.read(folder, missing_ok=True).with_models(cards).write(folder)
    embedder.save(folder)
    return RegistryReport(
        n_architectures=len(wanted),
        n_cards=len(cards),
        n_clusters=len(set(clusters.tolist())),
        failures=failures,
        seconds_traced=traced - start,
        seconds_embedded=embedded - traced,
    )

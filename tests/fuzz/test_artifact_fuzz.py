"""Changed artifacts of every ranker: a right answer or a typed error, and nothing else.

``FUZZ_SEED`` begins at another seed; ``-m slow`` tries thousands.
"""

import os
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from artifact_mutants import mutant
from harness import run_limited, unwanted

import recsys_ms as rms
from recsys_ms.catalog.cards import TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.catalog.score_table import ScoreTable
from recsys_ms.core.errors import ArtifactError, DataError
from recsys_ms.history.interactions import Interactions
from recsys_ms.rankers.ranker_names import RANKER_NAMES
from recsys_ms.testing.planted import planted_catalog, planted_history

FIRST_SEED = int(os.environ.get("FUZZ_SEED", "0"))
#: Cards of a task and a model that are not in the history.
NEW = TaskCard(task_id="new", domain="domain1", n_samples=500)


def small() -> tuple[Interactions, Catalog]:
    """Six tasks and nine models of the planted history; cards, and two scores."""
    whole, catalog = planted_history(), planted_catalog()
    history = whole.select((whole.task_index < 6) & (whole.model_index < 9))
    scores = catalog.scores.frame.iloc[:, :2].loc[list(history.task_ids)]
    models = catalog.models.loc[[*history.model_ids, "new-model"]]
    return history, Catalog(models, catalog.tasks.loc[list(history.task_ids)], ScoreTable(scores))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Files of an artifact of each ranker."""
    found, (history, catalog) = {}, small()
    # A given weight spares a back-test.
    for name in [*(each for each in RANKER_NAMES if each != "fennec"), "fennec:0.5"]:
        folder = tmp_path_factory.mktemp("original") / name
        rms.Ranker(rms.RankerConfig(ranker=name)).fit(history, catalog).save(folder)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found[name] = {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
    return found


def ask(folder: Path, *, thoroughly: bool) -> None:
    """Questions of every kind; no number that is promised may be missing."""
    ranker = rms.Ranker.load(folder)
    answers = [ranker.recommend("new", card=NEW, reasons=thoroughly)]
    if thoroughly:
        answers += [
            ranker.recommend("t01"),
            ranker.recommend("new", observed={"m00": 0.7, "m01": 0.8}),
            ranker.suggest("new", budget=2),
        ]
        amounts = ranker.explain("new", ranker.model_ids[-1], card=NEW)["amount"]
        assert np.isfinite(amounts.to_numpy(dtype=np.float64)).all()
    for answer in answers:
        assert len(answer)
        for column in ("predicted", "low", "high"):
            assert np.isfinite(answer[column]).all(), column
        for told in answer.get("reasons", ()):
            assert " nan" not in " ".join(told)


def fuzz(originals: dict[str, dict[str, bytes]], seeds: range, *, thoroughly: bool) -> Counter[str]:
    """Try a mutant for each seed; a test fails where one ends in neither of the two ways."""
    names = list(originals)

    def tried(seed: int) -> str:
        name = names[seed % len(names)]
        made, told = mutant(originals[name], seed)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                made.write(Path(folder))
                ask(Path(folder), thoroughly=thoroughly)
            except (ArtifactError, DataError):
                # Of a metric with another name, each part is valid, and the question does not fit.
                raise
            except Exception as error:
                raise AssertionError(f"{name}, seed {seed}: {told}") from error
        return told

    outcomes = run_limited(tried, seeds, seconds_per_case=30.0)
    bad = unwanted(outcomes)
    assert not bad, f"{len(bad)} of {len(seeds)}:\n" + "\n".join(bad[:5])
    peak = max(each.peak_bytes for each in outcomes)
    assert peak < 2 << 30, f"{peak / 2**30:.1f} GB"
    return Counter(each.end for each in outcomes)


def test_changed_artifacts(originals: dict[str, dict[str, bytes]]) -> None:
    seeds = range(FIRST_SEED, FIRST_SEED + 700)
    ends = fuzz(originals, seeds, thoroughly=False)
    # Most changes are found; some change a number that any number may be.
    assert ends["typed"] > 350
    assert ends["ok"] > 35


@pytest.mark.slow
def test_many_changed_artifacts(originals: dict[str, dict[str, bytes]]) -> None:
    fuzz(originals, range(FIRST_SEED + 1_000, FIRST_SEED + 6_000), thoroughly=True)

"""What a verb loads before it answers: nothing that it does not use, so that it starts at once."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from child import run_python

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.embedded import RUNS_FILE, embedded_folder
from recsys_ms.history.interactions import Interactions
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker

#: What no verb that answers from a saved ranker may load.
HEAVY = ("torch", "sklearn", "scipy.stats", "lightgbm", "implicit", "numba", "deltalake", "duckdb",
         "matplotlib", "networkx")  # fmt: skip
_ASK = """
import json, os, sys
from recsys_ms.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["recsys-ms", *words]
    try:
        main()
    except SystemExit as left:
        assert not left.code, left
print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def loaded(*commands: Sequence[str]) -> tuple[set[str], str]:
    """Modules that verbs have loaded when they are done, one after the other, and their output."""
    done = run_python(_ASK, json.dumps(commands))
    return set(json.loads(done.stderr.splitlines()[-1])), done.stdout


@pytest.fixture(scope="module", params=["nmf", "gbdt", "auto"])
def artifact(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = pd.read_parquet(embedded_folder() / RUNS_FILE)
    some = sorted(runs["model_id"].unique())[:12]
    folder = tmp_path_factory.mktemp("saved") / request.param
    config = RankerConfig(ranker=request.param)
    tasks = sorted({"digits", *sorted(runs["task_id"].unique())[:7]})
    own = runs[runs["model_id"].isin(some) & runs["task_id"].isin(tasks)]
    Ranker(config).fit(own, Catalog.read(embedded_folder())).save(folder)
    return folder


def test_an_answer_loads_no_learner(artifact: Path) -> None:
    asked = ["recommend", "--artifact", str(artifact), "--json", "--task"]
    suggest = ["suggest", "--artifact", str(artifact), "--task", "new", "--json"]
    modules, out = loaded([*asked, "digits"], [*asked, "a-new-one"], suggest)
    known, new, suggested = answers(out)
    assert len(known["models"]) == len(new["models"]) == 10
    assert suggested["models"]
    assert not modules.intersection(HEAVY)
    assert not any(name.startswith("recsys_ms.scores") for name in modules)


def answers(text: str) -> Iterator[Any]:
    """JSON documents, one after the other."""
    while text := text.strip():
        answer, end = json.JSONDecoder().raw_decode(text)
        yield answer
        text = text[end:]


def test_help_loads_nothing_at_all() -> None:
    modules, out = loaded(["--help"])
    assert "recommend" in out
    assert not modules.intersection({*HEAVY, "numpy", "pandas", "pyarrow"})


@pytest.mark.parametrize("verb", ["recommend", "suggest", "train", "rollback"])
def test_help_of_a_verb_loads_no_learner(verb: str) -> None:
    modules, out = loaded([verb, "--help"])
    assert "Usage" in out
    assert not modules.intersection({*HEAVY, "pandas"})


def test_the_verb_rollback_loads_no_learner(tmp_path: Path) -> None:
    for number in ("000001", "000002"):
        version = tmp_path / "versions" / number
        Ranker(RankerConfig(ranker="popularity")).fit(
            Interactions.from_triplets(["a", "a", "b", "b"], list("mnmn"), [0.1, 0.2, 0.3, 0.4])
        ).save(version)
    (tmp_path / "current").symlink_to("versions/000002")
    modules, out = loaded(["rollback", "--registry", str(tmp_path), "--json"])
    assert json.loads(out)["version"] == 1
    # It answers a question before it is put back; what trains is not needed for that.
    assert not modules.intersection(HEAVY)

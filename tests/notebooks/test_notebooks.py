"""Notebooks run from top to bottom on the embedded history, and carry no outputs.

What their texts say of the embedded data is asserted where it was computed: by a last cell that
runs in the notebook's own kernel. Most take minutes for that, which stands behind ``-m slow``: by
default they run on a part of the embedded history, and what holds of any is asserted.
"""

import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

nbformat = pytest.importorskip("nbformat", reason="needs the extra 'notebook'")
nbclient = pytest.importorskip("nbclient", reason="needs the extra 'notebook'")
pytest.importorskip("ipykernel", reason="needs the extra 'notebook'")
pytest.importorskip("matplotlib", reason="needs the extra 'notebook'")

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

#: What a notebook imports beyond the extra 'notebook'.
NEEDS = {"04_archi2vec_map": ("torch", "the extra 'embed'")}

CLAIMS = {
    "01_offline_evaluation": """
for result in (cold, *warm.values(), unseen, temporal):
    assert {"popularity", "random", "static", "oracle", *rankers} == set(result.rankers)
    assert not result.failures
    assert result.mean("oracle", "regret@1") == 0
assert set(temporal.scenarios) <= {"cold", "hot", "warm"}
""",
    "02_cold_start": """
assert not alone.failures
assert closed["oracle"] == 1
assert closed["nmf"] > 0.5
assert by_view["images"].mean("nmf", "regret@1") < by_view["names"].mean("nmf", "regret@1")
assert answer.attrs["nearest_tasks"]
assert mine not in ranker.task_ids
""",
    "03_which_score": """
def verdicts(of, metric):
    return {name: of.summaries[name].difference[metric].verdict for name in names}

def ahead(of, metric):
    return {name for name, verdict in verdicts(of, metric).items() if verdict == 1}

assert scores.shape == (1200, 18)
assert len(names) == 18
for of in (result, fair, learned):
    assert {"popularity", "random", "static", "oracle"} < set(of.rankers)
    assert not of.failures
    assert len(of.tasks) == 20
assert ahead(result, "weighted_tau") == {"score:linear_probe", "score:logme", "score:knn"}
assert ahead(result, "pearson") == set()
assert "score:linear_probe" in ahead(fair, "pearson")
regret = {name: result.mean(name, "regret@1") for name in result.rankers}
assert max(regret["score:linear_probe"], regret["score:knn"]) < regret["popularity"] / 2
assert {result.mean("oracle", metric) for metric in ("pearson", "regret@1")} == {1.0, 0.0}
for metric, best in (("pearson", max), ("weighted_tau", max), ("regret@1", min)):
    assert best(names, key=lambda name: result.mean(name, metric)) == "score:linear_probe"

assert milliseconds["features"] == milliseconds.max()
dear = ["nleep", "pactran_gaussian", "pactran_dirichlet"]
assert milliseconds[dear].min() > 8 * milliseconds.drop([*dear, "features"]).max()

assert by_task.loc["score:linear_probe", "worst"] > 0.5
for name in ("score:parc", "score:lfc"):
    assert tau.loc[["sprites-position", "brain_tumor_mri"], name].max() < 0.4
    assert by_task.loc[name, "worst task"] in ("sprites-position", "brain_tumor_mri")

assert at_bound.index[0] == "lcnet_035"
for column in ("H-score at its bound", "EMMS at 0"):
    assert at_bound.loc["lcnet_035", column] > 0.5
    assert at_bound[column].drop("lcnet_035").max() == 0
for name in ("score:h_score", "score:emms", "score:gbc"):
    assert fair.mean(name, "weighted_tau") > result.mean(name, "weighted_tau") + 0.1
    assert fair.mean(name, "weighted_tau") < fair.mean("score:linear_probe", "weighted_tau")
lost = {n: result.mean(n, "pearson") - fair.mean(n, "pearson") for n in (*names[:3], "popularity")}
assert min(lost.values()) > 0
assert max(lost, key=lost.get) == "popularity"
assert choices.loc[["h_score", "emms"], "lcnet_035"].tolist() == [20, 20]
assert choices.loc[["etran_energy", "pactran_gaussian"], "test_nfnet"].tolist() == [20, 20]
assert (choices.sum(axis=1) == 20).all()

assert (gains.loc[["pearson", "weighted_tau"], "low"] > 0).all()
assert gains.loc["regret@1", "difference"].max() < 0
assert gains.loc["regret@1", "high"].max() > -0.005
""",
    "04_archi2vec_map": """
assert vectors.shape == (1371, 64)
assert chosen in cosine.nlargest(3).index
family_of = {name: set(models["family"].iloc[near[name]]) for name in mine}
assert family_of == {"my convolutions": {"vgg"}, "my transformer": {"vision_transformer"}}
assert set(in_zoo) < set(models.index)

# A map on which kin are near on the plane as they are by their vectors.
assert np.isfinite(layout).all()
assert layout.shape == (1373, 2)
plane = places.loc[models.index].to_numpy()
far = np.square(plane[:, None] - plane[None]).sum(axis=2)
np.fill_diagonal(far, np.inf)
on_plane = (family[far.argsort(axis=1)[:, :10]] == family[:, None]).mean(axis=1)
assert on_plane[(sizes > 10).to_numpy()].mean() > 0.75

assert len(clusters) == 64
assert 0.6 < in_largest < 0.85
assert kin.mean() > 0.88
assert by_chance < 0.06
kinship = kin.groupby(models["family"]).mean()
assert "deit" in kinship.nsmallest(3).index
assert models.loc[same, "embedding"].nunique() == 1
assert models.loc[same, "n_parameters"].nunique() == 3

assert known["with"].models["embedding"].notna().all()
assert known["without"].models[["embedding", "cluster"]].isna().all(axis=None)
assert not [cell for each in worth.values() for cell in each.failures]
gain = {n: worth["with"].mean(n, "pearson") - worth["without"].mean(n, "pearson") for n in rankers}
assert gain["cards"] > 0 > gain["nmf"]
assert len(pairs) == 45
assert -0.5 < rho < 0
""",
    "05_bring_your_logs": """
assert (from_sheet.n_new, from_sheet.n_quarantined) == (178, 2)
assert replayed.n_new == 2
assert (again.n_new, again.n_duplicate, n_pending) == (0, 178, 0)
assert inspected.n_ready == 0
assert set(inspected.missing) == {"model_id", "task_id", "metric"}
assert (from_logs.n_new, len(logs.warnings)) == (10, 1)
assert from_logs.n_curve_points > 10 * 5

assert (last_night.outcome, last_night.version) == ("published", 1)
assert (this_night.outcome, this_night.version) == ("published", 2)
assert counts == {"n_new": 711, "n_quarantined": 0, "n_failed_runs": 1}
# One run of the logs is not finished, and that of the crash does not count.
assert (last_night.n_interactions, this_night.n_interactions) == (189, 899)
assert summary["outcome"] == "unchanged"
assert not set(held_out) & set(nights["tonight"].task_ids)
assert (by_night["pearson"]["tonight"] > by_night["pearson"]["last night"]).all()
assert (by_night["regret@1"]["tonight"] <= by_night["regret@1"]["last night"]).all()

assert (refused.outcome, refused.version) == ("kept", 2)
assert not [check for check in refused.checks if check["passed"]]
assert set(pd.DataFrame(refused.checks)["against"]) == {"popularity", "current"}
card = catalog.task_card(mine)
earlier = nights["last night"].recommend(mine, card=card, top=None)
assert served.recommend(mine, card=card, top=None).equals(earlier)
assert served.manifest["history_version"] == last_night.history_version
assert not work.exists()
""",
}


#: Notebooks that back-test for long, and what holds of a part of the history too.
ON_A_PART = {
    "01_offline_evaluation": CLAIMS["01_offline_evaluation"],
    "02_cold_start": """
assert not alone.failures
assert closed["oracle"] == 1
assert answer.attrs["nearest_tasks"]
assert mine not in ranker.task_ids
""",
    "03_which_score": """
assert len(names) == 18
assert scores.shape[1] == 18
for of in (result, fair, learned):
    assert {"popularity", "random", "static", "oracle"} < set(of.rankers)
    assert not of.failures
assert {result.mean("oracle", metric) for metric in ("pearson", "regret@1")} == {1.0, 0.0}
""",
    "04_archi2vec_map": CLAIMS["04_archi2vec_map"].partition('gain = {n: worth["with"]')[0],
}
#: Of the embedded history: tasks, and every such model.
N_TASKS, EVERY = 6, 3
#: In the kernel before the notebook: imports make no garbage to look for, and reports embed the
#: script that other tests embed.
PREPARE = f"""
import gc, sys
gc.set_threshold(100_000, 50, 50)
sys.path.append({str(Path(__file__).resolve().parents[1])!r})
from kept_script import keep_script
keep_script()
sys.path.pop()
"""


def named(path):
    return path.stem


@pytest.fixture(scope="module")
def on_a_part(tmp_path_factory):
    """A checkout whose embedded history is that of some tasks and models."""
    root = tmp_path_factory.mktemp("checkout")
    (root / "notebooks").mkdir()
    (root / "data_history" / "zoo").mkdir(parents=True)
    for path in [*ROOT.iterdir(), *(ROOT / "data_history").iterdir()]:
        place = root / path.relative_to(ROOT)
        if not place.exists():
            place.symlink_to(path)
    zoo = ROOT / "data_history" / "zoo"
    runs = pd.read_parquet(zoo / "runs.parquet")
    tasks = sorted(runs["task_id"].unique())
    kept = runs["task_id"].isin(tasks[:: len(tasks) // N_TASKS][:N_TASKS])
    kept &= runs["model_id"].isin(sorted(runs["model_id"].unique())[::EVERY])
    runs[kept].to_parquet(root / "data_history" / "zoo" / "runs.parquet")
    for path in zoo.iterdir():
        if path.name != "runs.parquet":
            (root / "data_history" / "zoo" / path.name).symlink_to(path)
    return root


def test_there_are_notebooks():
    assert set(map(named, NOTEBOOKS)) == set(CLAIMS)
    assert set(ON_A_PART) < set(CLAIMS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=named)
def test_outputs_are_stripped(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", [p for p in NOTEBOOKS if p.stem in ON_A_PART], ids=named)
def test_runs_on_a_part_of_the_history(path, on_a_part):
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        cell.source = re.sub(r"\bn_repeats=\d+", "n_repeats=1", cell.source)
    run_notebook(notebook, path, ON_A_PART[path.stem], on_a_part / "notebooks")


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[pytest.mark.slow] * (path.stem in ON_A_PART))
        for path in NOTEBOOKS
    ],
)
def test_runs_and_shows_what_it_says(path):
    run_notebook(nbformat.read(path, as_version=4), path, CLAIMS[path.stem], path.parent)


def run_notebook(notebook, path, claims, folder):
    """Run a notebook, read from ``path``, and then ``claims`` in ``folder``."""
    if not (ROOT / "data_history" / "zoo" / "runs.parquet").is_file():
        pytest.skip("the embedded history is not recorded: data_history/zoo/runs.parquet is absent")
    module, extra = NEEDS.get(path.stem, ("json", ""))
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed (needs {extra})")
    code = nbformat.v4.new_code_cell
    notebook.cells = [code(PREPARE), *notebook.cells, code(claims)]
    client = nbclient.NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute()
    # A ranker that fails on a fold is logged and leaves a hole in the table.
    logged = [
        output["text"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if output.get("name") == "stderr"
    ]
    assert not [text for text in logged if "failed" in text]

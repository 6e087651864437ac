"""The design of a study: read from TOML, expanded, named."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from recsys_ms.core.errors import UsageError

pytest.importorskip("PIL", reason="the tasks need pillow (extra embed)")

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.scores.methods import METHODS
from training.zoo.study import read_study
from training.zoo.tasks.registry import TASKS

pytestmark = pytest.mark.zoo

ROOT = Path(__file__).resolve().parents[2]
STUDY = ROOT / "training" / "zoo" / "study.toml"
EMBEDDED = ROOT / "data_history" / "zoo"


@pytest.fixture(scope="module")
def study():
    return read_study(STUDY)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    text = STUDY.read_text()
    assert old in text
    path = tmp_path / "study.toml"
    path.write_text(text.replace(old, new))
    return path


def test_the_shipped_study_is_as_large_as_asked_for(study):
    assert len(study.architectures) >= 10
    assert len(study.sources) >= 5
    assert len(study.targets) >= 16
    assert len(study.learning_rates) >= 3
    assert len(study.models()) == len(study.architectures) * (len(study.sources) + 1) >= 60
    runs = study.finetunings()
    assert len(runs) == len(study.models()) * len(study.targets) * len(study.learning_rates)
    assert len(runs) >= 2800
    assert len({run.run_id for run in runs}) == len(runs)
    assert max(run.recipe.n_train for run in runs) <= 1000
    assert study.n_probe == 500


def test_the_embedded_history_is_the_shipped_study(study):
    runs = pd.read_parquet(EMBEDDED / "runs.parquet")
    assert sorted(runs["run_id"]) == sorted(run.run_id for run in study.finetunings())
    finished = runs[runs["status"] == "finished"]
    assert finished["value"].between(0.0, 1.0).all()
    assert len(finished) >= 0.95 * len(runs)
    catalog = Catalog.read(EMBEDDED)
    assert set(catalog.models.index) == {model.model_id for model in study.models()}
    assert set(catalog.tasks.index) == set(study.targets)
    assert catalog.models["family"].nunique() >= 8
    for column in ("embedding", "cluster", "gmacs"):
        assert catalog.models[column].notna().all()
    for column in ("embedding", "label_embedding"):
        assert catalog.tasks[column].notna().all()
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 20_000_000


def test_the_embedded_scores_are_of_all_pairs(study):
    scores = Catalog.read(EMBEDDED).scores.frame
    pairs = {(task, model.model_id) for task in study.targets for model in study.models()}
    assert set(scores.index) == pairs
    assert set(METHODS) == set(scores.columns)
    seconds = pd.read_parquet(EMBEDDED / "score_seconds.parquet")
    assert len(seconds) == len(pairs) * (len(METHODS) + 2)
    has_head = ~scores.index.get_level_values("model_id").str.endswith("@random")
    assert scores["leep"].notna().equals(pd.Series(has_head, index=scores.index))
    assert scores[["logme", "lfc", "parc", "emms"]].notna().mean().min() > 0.99


def test_the_embedded_curves_end_in_the_values(study):
    runs = pd.read_parquet(EMBEDDED / "runs.parquet").set_index("run_id")
    curves = pd.read_parquet(EMBEDDED / "curves.parquet")
    tested = curves[curves["metric"] == "accuracy"].sort_values("epoch", kind="stable")
    last = tested.groupby("run_id")["value"].last()
    finished = runs[runs["status"] == "finished"]
    pd.testing.assert_series_equal(
        last.reindex(finished.index), finished["value"], check_names=False
    )
    assert (tested.groupby("run_id").size().reindex(finished.index) == 3).all()


def test_order_is_random_and_fixed(study):
    runs = [run.run_id for run in study.finetunings()]
    assert runs == [run.run_id for run in study.finetunings()]
    other = replace(study, architectures=study.architectures[::-1])
    assert {run.run_id for run in other.finetunings()} == set(runs)
    first_tenth = {run.task_id for run in study.finetunings()[: len(runs) // 10]}
    assert first_tenth == set(study.targets)


def test_recipes_may_differ_by_task(study):
    recipes = {run.task_id: run.recipe for run in study.finetunings()}
    assert recipes["digits"].n_train == 96 != study.finetuning.n_train
    assert recipes["digits"].n_test == study.finetuning.n_test
    assert recipes["dtd10"].n_test == 400
    assert recipes["letters"] == replace(
        study.finetuning, learning_rate=recipes["letters"].learning_rate
    )
    before = {model.source: model.recipe for model in study.models()}
    assert before["cifar10"].mirror
    assert not before["capitals"].mirror
    seen = {recipe.n_train * recipe.epochs for recipe in before.values() if recipe}
    assert seen == {48_000}


def test_tasks_without_files_are_left_out(tmp_path):
    whole = read_study(STUDY, images=tmp_path)
    left = whole.at_hand()
    assert left.sources == ("capitals", "patterns", "scenes")
    assert set(left.targets) == set(whole.targets) & set(TASKS)
    assert set(left.recipe_of) == {"digits"}
    kept = {run.run_id for run in left.finetunings()}
    assert kept < {run.run_id for run in whole.finetunings()}
    (tmp_path / "cifar10.parquet").touch()
    assert read_study(STUDY, images=tmp_path).at_hand().sources == (*left.sources, "cifar10")


def test_names_do_not_depend_on_where_images_and_encoders_lie(study, tmp_path):
    moved = replace(read_study(STUDY, images=tmp_path), encoders=(), n_probe=7)
    assert [run.run_id for run in moved.finetunings()] == [
        run.run_id for run in study.finetunings()
    ]


@pytest.mark.parametrize(
    ("epochs", "every", "tested"),
    [(5, 0, [5]), (5, 1, [1, 2, 3, 4, 5]), (5, 2, [1, 3, 5]), (4, 3, [1, 4]), (2, 7, [2])],
)
def test_epochs_after_which_a_network_is_tested(study, epochs, every, tested):
    recipe = replace(study.finetuning, epochs=epochs, test_every=every)
    assert [epoch for epoch in range(1, epochs + 1) if recipe.is_tested(epoch)] == tested


def test_names_follow_what_decides_the_result(study):
    run = study.finetunings()[0]
    others = [
        replace(run, seed=run.seed + 1),
        replace(run, data_seed=run.data_seed + 1),
        replace(run, study="another"),
        replace(run, recipe=replace(run.recipe, learning_rate=0.5)),
        replace(run, model=replace(run.model, seed=run.model.seed + 1)),
        replace(run, model=replace(run.model, image_size=64)),
    ]
    assert len({run.run_id, *(other.run_id for other in others)}) == len(others) + 1
    assert replace(run).run_id == run.run_id


def test_a_random_start_has_no_source(study):
    model = next(m for m in study.models() if m.source is None)
    assert model.model_id.endswith("@random")
    assert model.recipe is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "zoo-2"', "", "'name' is missing"),
        ("image_size = 32", "image_size = 32\ncolour = 1", r"study\.colour'\] are unknown"),
        ('sources = ["capitals"', 'sources = ["digits"', "sources and targets"),
        ('sources = ["capitals"', 'sources = ["imagenet"', "'imagenet' is unknown"),
        ('"counting",', '"counting", "counting",', "a target is named twice"),
        ("batch_size = 40", "batch_size = 4000", "exceeds n_train"),
        ("epochs = 5", "epochs = 0", "must be at least 1"),
        ("learning_rate = 3e-3", "learning_rate = -1.0", "must be positive"),
        ("shift = 2", "shift = -2", "cannot be negative"),
        ("seeds = [0]", "seeds = []", "it needs"),
        ('name = "test_resnet"', 'title = "test_resnet"', "unexpected keyword"),
        ("[study]", "[study", "not TOML"),
        ("of.digits", "of.imagenet", r"\[finetuning.of.imagenet\]: .* none of the targets"),
        ("[finetuning.of.digits]", "[finetuning.of.cifar10]", "cifar10 is none of the targets"),
        ("[pretraining.of.cifar10]", "[pretraining.of.digits]", "digits is none of the sources"),
        ("n_train = 96", "n_images = 96", r"recipe of 'digits' has \['n_images'\], expected some"),
        ("n_train = 96", "learning_rate = 0.1", "learning_rates holds for all targets"),
        ("n_train = 96", "epochs = 0", "must be at least 1"),
        ("[finetuning.of.digits]\nn_train = 96\nbatch_size = 32", "[finetuning.of]\ndigits = 96",
         "recipe of 'digits' is 96, expected a table"),
        ('path = "rsscn7.parquet"', 'file = "rsscn7.parquet"', r"\[\[images\]\] has .*'file'"),
        ('path = "rsscn7.parquet"', "path = 7", r"\[\[images\]\] has .*expected the texts"),
        ('domain = "aerial"', "", r"expected the texts \['description', 'domain', 'path'"),
        ('task_id = "rsscn7"', 'task_id = "letters"', "'letters'.* are declared twice"),
        ("encoders =", "encoder =", r"scores\.encoder'\] are unknown"),
        ("open-clip:", "clip:", "encoder 'clip:.*expected open-clip:FOLDER or transformers:FOLDER"),
        ("open-clip:../../data_history/proxy", "open-clip", "expected open-clip:FOLDER"),
    ],
)  # fmt: skip
def test_invalid_study(tmp_path, old, new, message):
    with pytest.raises(UsageError, match=message):
        read_study(changed(tmp_path, old, new))


def test_a_recipe_of_a_task_nobody_trains_on(study):
    with pytest.raises(UsageError, match=r"a recipe of \['sprites-scale'\], no source or target"):
        replace(study, recipe_of={"sprites-scale": {}})


def test_folders_start_from_that_of_the_study(tmp_path):
    path = changed(tmp_path, 'images = "../../../shared/data/images"', 'images = "pictures"')
    study = read_study(path)
    assert study.pictures[0].path == str(tmp_path / "pictures" / "brain_tumor_mri.parquet")
    assert study.encoders == (
        f"open-clip:{(tmp_path / '../../data_history/proxy').resolve()}",
        f"transformers:{(tmp_path / '.work/encoders/all-MiniLM-L6-v2').resolve()}",
    )
    path = changed(tmp_path, 'path = "cifar10.parquet"', 'path = "torchvision:CIFAR10:cifar"')
    found = read_study(path, images=tmp_path / "sets").book.get("cifar10")
    assert found.path == f"torchvision:CIFAR10:{tmp_path / 'sets' / 'cifar'}"


def test_a_study_without_models(tmp_path):
    text = STUDY.read_text()
    sources = 'sources = ["capitals", "patterns", "scenes", "caltech100", "cifar10"]'
    assert sources in text
    recipes = text[text.index("[pretraining.of.caltech100]") : text.index("[finetuning]")]
    path = tmp_path / "study.toml"
    path.write_text(text.replace(sources, "sources = []").replace(recipes, ""))
    assert len(read_study(path).models()) == 10
    path.write_text(path.read_text().replace("random_start = true", "random_start = false"))
    with pytest.raises(UsageError, match="needs a source"):
        read_study(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_study(tmp_path / "none.toml")

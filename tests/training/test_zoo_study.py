"""The design of a study: read from TOML, expanded, named."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from recsys_ms.core.errors import UsageError

pytest.importorskip("PIL", reason="the tasks need pillow (extra embed)")

from recsys_ms.catalog.catalog import Catalog
from training.zoo.study import read_study

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
    assert len(study.architectures) >= 8
    assert len(study.sources) >= 3
    assert len(study.targets) >= 6
    assert len(study.learning_rates) == 2
    assert len(study.models()) == len(study.architectures) * (len(study.sources) + 1)
    runs = study.finetunings()
    assert len(runs) == len(study.models()) * len(study.targets) * 2
    assert len({run.run_id for run in runs}) == len(runs)


def test_the_embedded_history_is_the_shipped_study(study):
    runs = pd.read_parquet(EMBEDDED / "runs.parquet")
    assert sorted(runs["run_id"]) == sorted(run.run_id for run in study.finetunings())
    assert runs["value"].between(0.0, 1.0).all()
    catalog = Catalog.read(EMBEDDED)
    assert set(catalog.models.index) == {model.model_id for model in study.models()}
    assert set(catalog.tasks.index) == set(study.targets)
    assert catalog.models["family"].nunique() >= 8
    assert sum(path.stat().st_size for path in EMBEDDED.iterdir()) < 2_000_000


def test_order_is_random_and_fixed(study):
    runs = [run.run_id for run in study.finetunings()]
    assert runs == [run.run_id for run in study.finetunings()]
    other = replace(study, architectures=study.architectures[::-1])
    assert {run.run_id for run in other.finetunings()} == set(runs)
    first_tenth = {run.task_id for run in study.finetunings()[: len(runs) // 10]}
    assert first_tenth == set(study.targets)


def test_a_task_may_have_training_images_of_its_own(study):
    counts = {run.task_id: run.recipe.n_train for run in study.finetunings()}
    assert counts["digits"] == study.n_train_of["digits"] != study.finetuning.n_train
    assert counts["letters"] == study.finetuning.n_train


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
        ('name = "zoo-1"', "", "'name' is missing"),
        ("image_size = 32", "image_size = 32\ncolour = 1", r"study\.colour'\] are unknown"),
        ('sources = ["capitals"', 'sources = ["digits"', "sources and targets"),
        ('sources = ["capitals"', 'sources = ["imagenet"', "'imagenet' is unknown"),
        ('"counting",', '"counting", "counting",', "a target is named twice"),
        ("batch_size = 64", "batch_size = 6400", "exceeds n_train"),
        ("epochs = 5", "epochs = 0", "must be at least 1"),
        ("learning_rate = 3e-3", "learning_rate = -1.0", "must be positive"),
        ("digits = 96", "imagenet = 96", "no targets"),
        ("seeds = [0]", "seeds = []", "it needs"),
        ('name = "test_resnet"', 'title = "test_resnet"', "unexpected keyword"),
        ("[study]", "[study", "not TOML"),
    ],
)
def test_a_study_that_cannot_be_meant(tmp_path, old, new, message):
    with pytest.raises(UsageError, match=message):
        read_study(changed(tmp_path, old, new))


def test_a_study_without_models(tmp_path):
    path = changed(tmp_path, 'sources = ["capitals", "patterns", "scenes"]', "sources = []")
    assert len(read_study(path).models()) == 10
    path.write_text(path.read_text().replace("random_start = true", "random_start = false"))
    with pytest.raises(UsageError, match="needs a source"):
        read_study(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        read_study(tmp_path / "none.toml")

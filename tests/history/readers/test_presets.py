"""Every preset on the file it is for; the counts are those of the data sheet beside the files."""

import json

import pyarrow as pa
import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.history.readers.presets import PRESETS, get_preset
from recsys_ms.history.readers.table import read_table

needs_data = pytest.mark.shared_data
TIMM = (
    "imagenet",
    "imagenet-a",
    "imagenet-r",
    "imagenet-real",
    "imagenetv2-matched-frequency",
    "sketch",
)


def read(shared_data, file, preset, **options):
    mapping = get_preset(preset, kind="run").mapping.overridden(**options)
    reader = read_table(shared_data / "histories" / "raw" / file, mapping)
    batches = list(reader)
    assert not [reject for batch in batches for reject in batch.rejects]
    assert not reader.warnings
    runs = pa.concat_tables([batch.runs for batch in batches]).to_pandas()
    assert runs["run_id"].is_unique
    return runs, sum(batch.n_left_out for batch in batches)


@needs_data
def test_parc_controlled(shared_data):
    runs, n_left_out = read(shared_data, "parc_controlled.csv", "parc")
    assert (len(runs), n_left_out) == (196, 0)
    assert (runs.model_id.nunique(), runs.task_id.nunique()) == (32, 7)
    first = runs[(runs.model_id == "resnet50@nabird") & (runs.task_id == "cifar10")]
    assert first.value.tolist() == pytest.approx([0.8997])


@needs_data
def test_parc_all_keeps_missing_results_as_failed_runs(shared_data):
    runs, _ = read(shared_data, "parc_all.csv", "parc")
    assert runs.status.value_counts().to_dict() == {"finished": 459, "failed": 10}
    failed = runs[runs.status == "failed"]
    assert failed.value.isna().all()
    assert set(failed.tags) == {'{"missing":"-1"}'}
    assert (failed.model_id == "resnet101@simclr_imagenet").sum() == 7
    assert runs[runs.status == "finished"].model_id.nunique() == 70
    controlled, _ = read(shared_data, "parc_controlled.csv", "parc")
    assert set(controlled.run_id) <= set(runs.run_id), "the rows of both files are the same runs"


@needs_data
def test_ftrecords_has_19_tasks(shared_data):
    runs, n_left_out = read(
        shared_data, "transfergraph/ftrecords_img.csv", "transfergraph-ftrecords"
    )
    assert (len(runs), n_left_out) == (6936, 35)
    assert runs.model_id.nunique() == 292
    counts = runs.task_id.value_counts().to_dict()
    assert len(counts) == 19
    assert counts["clevr_count"] + counts["clevr_distance"] == 280 + 284 - 35
    assert counts["smallnorb_label_azimuth"] == 243
    assert counts["dsprites_label_x_position"] == 239
    assert counts["cifar100"] == 741
    settings = [json.loads(text) for text in runs.hyperparameters]
    assert sum(setting["lr"] == 0.1 for setting in settings) == 833
    assert {setting["train_slice"] for setting in settings} == {":800", ":80%", ":100%"}
    assert all(isinstance(setting["batch_size"], int) for setting in settings)


@needs_data
def test_ftrecords_800_is_one_protocol(shared_data):
    runs, n_left_out = read(
        shared_data, "transfergraph/ftrecords_img.csv", "transfergraph-ftrecords-800"
    )
    assert runs.task_id.nunique() == 19
    assert (len(runs), n_left_out) == (5084, 1887)
    settings = {tuple(sorted(json.loads(text).items()))[2:] for text in runs.hyperparameters}
    assert settings == {(("lr", 0.01), ("train_slice", ":800"))}


@needs_data
def test_records_with_and_without_food101(shared_data):
    file = "transfergraph/records.csv"
    runs, _ = read(shared_data, file, "transfergraph-records")
    assert (len(runs), runs.task_id.nunique(), runs.model_id.nunique()) == (2253, 13, 180)
    assert set(runs.metric) == {"accuracy"}
    runs, n_left_out = read(
        shared_data, file, "transfergraph-records", where="finetuned_dataset <> 'food101'"
    )
    assert (len(runs), n_left_out, runs.task_id.nunique()) == (2141, 112, 12)


@needs_data
@pytest.mark.parametrize("name", TIMM)
def test_timm(shared_data, name):
    runs, _ = read(shared_data, f"timm/results-{name}.csv", "timm-results")
    assert (len(runs), runs.model_id.nunique()) == (1556, 1266)
    assert set(runs.task_id) == {name}
    assert runs.value.between(0, 1).all()
    assert set(json.loads(runs.hyperparameters.iloc[0])) == {
        "img_size",
        "crop_pct",
        "interpolation",
    }


@needs_data
def test_spider(shared_data):
    runs, _ = read(shared_data, "spider_multisource_accuracy.csv", "spider-multisource")
    assert (len(runs), runs.model_id.nunique(), runs.task_id.nunique()) == (462, 66, 7)
    assert runs.value.max() <= 1
    runs, n_left_out = read(shared_data, "spider_accuracy.csv", "spider-accuracy")
    assert (len(runs), n_left_out, runs.task_id.nunique()) == (80, 20, 8)
    runs, n_left_out = read(shared_data, "spider_accuracy.csv", "spider-regression")
    assert (len(runs), n_left_out, set(runs.task_id)) == (20, 80, {"dSprites", "UTKFace"})
    assert runs.value.max() < 0


@needs_data
def test_an_option_replaces_what_the_preset_says(shared_data):
    runs, _ = read(shared_data, "parc_controlled.csv", "parc", set={"metric": "top1"})
    assert set(runs.metric) == {"top1"}


def test_every_preset_is_documented_and_can_be_stored():
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert len(preset.text) > 40
        assert preset.files
        assert preset.kind in ("run", "model", "task")
        assert type(preset.mapping).from_json(preset.mapping.to_json()) == preset.mapping


def test_an_unknown_preset_names_close_ones():
    with pytest.raises(UsageError, match="did you mean 'timm-results'"):
        get_preset("timm-result", kind="run")
    with pytest.raises(UsageError, match="reads a model from each row, expected a run"):
        get_preset("timm-benchmark", kind="run")
    assert get_preset("timm-benchmark").kind == "model"

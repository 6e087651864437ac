"""Presets of public fine-tuning histories; what is said of the data is from its data sheet."""

from typing import Final

from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.preset import Preset

_ACCURACY: Final = {"metric": "accuracy", "direction": "max"}

_PARC: Final = Preset(
    name="parc",
    kind="run",
    files="parc_controlled.csv, parc_all.csv",
    text=(
        "Transfer performance of 32 (controlled) or 71 models on 7 tasks, percent. A model is "
        "ARCHITECTURE@SOURCE. -1 means no result: such runs are kept as failed, with the tag "
        "missing=-1. parc_all holds all of parc_controlled, and its runs get the same names, so "
        "ingesting both adds nothing. The metric of voc2007, a multi-label task, is not stated by "
        "the origin and is called 'oracle' after its column."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{Architecture}@{Source Dataset}",
            "task_id": "{Target Dataset}",
            "value": "{Oracle}",
            "metric": "{metric_name}",
        },
        set={"direction": "max", "source": "parc"},
        columns={
            "metric_name": "CASE WHEN \"Target Dataset\" = 'voc2007' THEN 'oracle' "
            "ELSE 'accuracy' END"
        },
        unit="percent",
        missing=("-1",),
    ),
)

# Three TFDS data sets hold two tasks each. Two are told apart by label_name; clevr by preprocess
# only. The label_name 'label' and none mean the same task everywhere else.
_FTRECORDS_TASK: Final = (
    "CASE WHEN train_dataset_name = 'clevr' THEN configs->>'preprocess' "
    "WHEN train_dataset_name IN ('dsprites', 'smallnorb') "
    "THEN train_dataset_name || '_' || (configs->>'label_name') "
    "ELSE train_dataset_name END"
)

_FTRECORDS: Final = Preset(
    name="transfergraph-ftrecords",
    kind="run",
    files="transfergraph/ftrecords_img.csv",
    text=(
        "6,936 fine-tunings of 292 models on 19 tasks: clevr, dsprites and smallnorb are split "
        "into the two tasks each holds (clevr_count, dsprites_label_orientation, ...). The 35 "
        "clevr rows on a test split without public annotations (accuracy exactly 0) are left out. "
        "train_slice, lr, batch_size and epochs are hyperparameters: rows trained on 800 images "
        "and on whole data sets are mixed, and the best value per pair compares unlike protocols; "
        "transfergraph-ftrecords-800 avoids that. The run is named by its hash upstream, so "
        "repeats stay apart. elapsed_time, whose unit is not stated, is a tag."
    ),
    mapping=FieldMapping(
        map={
            "run_id": "transfergraph-{hash}",
            "model_id": "{model_identifier}",
            "task_id": "{task_name}",
            "value": "{test_accuracy}",
            "hyperparameters.lr": "{configs.lr}",
            "hyperparameters.batch_size": "{batch_size}",
            "hyperparameters.epochs": "{epochs}",
            "hyperparameters.train_slice": "{train_slice}",
            "tags.label_name": "{configs.label_name}",
            "tags.preprocess": "{configs.preprocess}",
            "tags.test_data": "{test_split}[{test_slice}]",
            "tags.elapsed_time": "{elapsed_time}",
        },
        set={
            "metric": "test_accuracy",
            "direction": "max",
            "split": "test",
            "source": "transfergraph-ftrecords",
        },
        columns={"task_name": _FTRECORDS_TASK},
        unit="fraction",
        where="NOT (train_dataset_name = 'clevr' AND test_split = 'test' AND test_accuracy = 0)",
    ),
)

_FTRECORDS_800: Final = Preset(
    name="transfergraph-ftrecords-800",
    kind="run",
    files="transfergraph/ftrecords_img.csv",
    text=(
        "transfergraph-ftrecords, of one protocol: only rows with lr 0.01 that were trained on 800 "
        "images (train_slice ':800')."
    ),
    mapping=_FTRECORDS.mapping.overridden(
        where="train_slice = ':800' AND CAST(configs->>'lr' AS DOUBLE) = 0.01"
    ),
)

_RECORDS: Final = Preset(
    name="transfergraph-records",
    kind="run",
    files="transfergraph/records.csv",
    text=(
        "2,253 fine-tunings of 180 models on 13 tasks, test accuracy as a fraction. food101 is "
        "unusable (110 of its 112 models are at chance): leave it out with "
        "--where \"finetuned_dataset <> 'food101'\". The metric is called 'accuracy', not "
        "'test_accuracy' as in transfergraph-ftrecords: the two follow different protocols on "
        "tasks of the same name, and must not be mixed unseen."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "task_id": "{finetuned_dataset}",
            "value": "{test_accuracy}",
            "hyperparameters.lr": "{lr}",
            "hyperparameters.batch_size": "{batch_size}",
            "hyperparameters.epochs": "{epochs}",
            "hyperparameters.input_shape": "{input_shape}",
            "tags.elapsed_seconds": "{elapsed_time}",
        },
        set={**_ACCURACY, "split": "test", "source": "transfergraph-records"},
        unit="fraction",
    ),
)

_TIMM: Final = Preset(
    name="timm-results",
    kind="run",
    files="timm/results-*.csv",
    text=(
        "Top-1 accuracy of 1,556 (model, image size) entries on one of six test sets a file; the "
        "task is the file's name without 'results-'. Evaluations of given weights, not "
        "fine-tunings: the hyperparameters hold at test time. 290 models occur at two sizes."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "task_id": "{test_set}",
            "value": "{top1}",
            "hyperparameters.img_size": "{img_size}",
            "hyperparameters.crop_pct": "{crop_pct}",
            "hyperparameters.interpolation": "{interpolation}",
        },
        set={"metric": "top1", "direction": "max", "source": "timm"},
        columns={"test_set": "regexp_replace(_stem, '^results-', '')"},
        unit="percent",
    ),
)

_SPIDER_MAP: Final = {"model_id": "{model}", "task_id": "{task}", "value": "{value}"}

_SPIDER_MULTI: Final = Preset(
    name="spider-multisource",
    kind="run",
    files="spider_multisource_accuracy.csv",
    text=(
        "Accuracy of 66 models FTD_ARCHITECTURE_SOURCE on 7 tasks, percent. In 21 of the 462 cells "
        "source and task are the same data set."
    ),
    mapping=FieldMapping(
        map=_SPIDER_MAP, set={**_ACCURACY, "source": "spider-multisource"}, unit="percent"
    ),
)

_SPIDER: Final = Preset(
    name="spider-accuracy",
    kind="run",
    files="spider_accuracy.csv",
    text=(
        "Accuracy of 10 torchvision models on 8 tasks, percent. The 20 rows of the two regression "
        "tasks, which have another metric and unit, are left out: spider-regression reads them."
    ),
    mapping=FieldMapping(
        map=_SPIDER_MAP,
        set={**_ACCURACY, "source": "spider"},
        unit="percent",
        where="metric = 'accuracy'",
    ),
)

_SPIDER_REGRESSION: Final = Preset(
    name="spider-regression",
    kind="run",
    files="spider_accuracy.csv",
    text=(
        "Negative errors (higher is better, not a fraction) of 10 torchvision models on dSprites "
        "and UTKFace; the 80 accuracies of the file are left out."
    ),
    mapping=FieldMapping(
        map=_SPIDER_MAP,
        set={"metric": "neg_error", "direction": "max", "source": "spider"},
        where="metric = 'neg_error'",
    ),
)

RUN_PRESETS: Final = (
    _PARC,
    _FTRECORDS,
    _FTRECORDS_800,
    _RECORDS,
    _TIMM,
    _SPIDER_MULTI,
    _SPIDER,
    _SPIDER_REGRESSION,
)

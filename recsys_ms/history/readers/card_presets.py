"""Presets of public tables that describe models and tasks; see the data sheet beside them."""

from typing import Final

from recsys_ms.history.readers.mapping import FieldMapping
from recsys_ms.history.readers.preset import Preset

_TG_FAMILY: Final = (
    "nullif(replace(lower(regexp_extract(architectures->>0, '^([A-Za-z0-9]+)For', 1)), "
    "'data2vecvision', 'data2vec-vision'), '')"
)
_TG_MODELS_ALL: Final = Preset(
    name="transfergraph-models-all",
    kind="model",
    files="transfergraph/model_config.csv",
    text=(
        "231 models of the ftrecords history: class of the architecture, sizes, and what the "
        "weights were trained on, where known."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "architecture": "{architectures.0}",
            "family": "{family_name}",
            "input_size": "{input_shape}",
            "hidden_width": "{output_shape}",
            "pretrained_domain": "{dataset}",
            "n_source_classes": "{#labels}",
        },
        columns={"family_name": _TG_FAMILY},
    ),
)
_TG_MODELS: Final = Preset(
    name="transfergraph-models",
    kind="model",
    files="transfergraph/model_config_dataset.csv",
    text=(
        "185 models of the two transfergraph histories, with number of parameters and the accuracy "
        "on the data they were trained on (a fraction; not a transfer result)."
    ),
    mapping=_TG_MODELS_ALL.mapping.overridden(
        map={
            "family": "{model_type}",
            "n_parameters": "{number_of_parameters}",
            "source_accuracy": "{accuracy}",
        }
    ),
)
_TG_TASKS: Final = Preset(
    name="transfergraph-tasks",
    kind="task",
    files="transfergraph/finetune_dataset_config.csv",
    text=(
        "Training images and classes of the 12 usable tasks of transfergraph-records, as the file "
        "says (it gives flowers 10 classes; Oxford Flowers has 102)."
    ),
    mapping=FieldMapping(
        map={
            "task_id": "{finetune_dataset}",
            "n_samples": "{size}",
            "n_classes": "{number_of_classes}",
        }
    ),
)
_TIMM_BENCHMARK: Final = Preset(
    name="timm-benchmark",
    kind="model",
    files="timm/benchmark-infer-*.csv",
    text=(
        "Parameters, GMACs and activations of 1,282 timm architectures by image size. The cards "
        "are of architectures, without a tag of weights: catalog.importer.expand_cards gives them "
        "to the models of a history (ARCHITECTURE.TAG), each from the row of its own image size."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "architecture": "{model}",
            "input_size": "{infer_img_size}",
            "n_parameters": "{n_params}",
            "gmacs": "{infer_gmacs}",
            "macts": "{infer_macts}",
            "traits.images_per_second": "{infer_samples_per_sec}",
        },
        columns={"n_params": "round(param_count * 1000000)"},
    ),
)
_TIMM_METADATA: Final = Preset(
    name="timm-metadata",
    kind="model",
    files="timm/model_metadata-in1k.csv",
    text=(
        "Pre-training data of 521 models under old timm names without tags: no id of timm-results "
        "is among them, and one architecture can have several weights, so prefer the tag in the "
        "name."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "architecture": "{model}",
            "pretrained_domain": "{pretrain}",
        }
    ),
)
_TIMM_MODELS: Final = Preset(
    name="timm-models",
    kind="model",
    files="timm/results-*.csv",
    text=(
        "Models of the result files: architecture and tag from the name, parameters, image size "
        "(of the better of two rows, since the files are sorted by accuracy)."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "architecture": "{architecture_name}",
            "pretrained_tag": "{tag}",
            "n_parameters": "{n_params}",
            "input_size": "{img_size}",
        },
        columns={
            "architecture_name": "split_part(model, '.', 1)",
            "tag": "regexp_extract(model, '^[^.]*[.](.*)$', 1)",
            "n_params": "round(param_count * 1000000)",
        },
    ),
)
_PARC_MODELS: Final = Preset(
    name="parc-models",
    kind="model",
    files="parc_controlled.csv, parc_all.csv",
    text=(
        "Models of the parc history from its own columns: architecture, family, layers where the "
        "name says them (resnet50), and what the weights were trained on."
    ),
    mapping=FieldMapping(
        map={
            "model_id": "{Architecture}@{Source Dataset}",
            "architecture": "{Architecture}",
            "family": "{family_name}",
            "n_layers": "{layers}",
            "pretrained_domain": "{Source Dataset}",
        },
        columns={
            "family_name": "regexp_extract(Architecture, '^[a-z]+')",
            "layers": "TRY_CAST(regexp_extract(Architecture, '[0-9]+$') AS INTEGER)",
        },
    ),
)
_PARC_TASKS: Final = Preset(
    name="parc-tasks",
    kind="task",
    files="parc_controlled.csv, parc_all.csv",
    text="Tasks of the parc history, with the numbers of classes that the data sheet names.",
    mapping=FieldMapping(
        map={"task_id": "{Target Dataset}", "n_classes": "{classes}"},
        columns={
            "classes": "map {'nabird': 555, 'oxford_pets': 37, 'cub200': 200, 'caltech101': 101, "
            "'stanford_dogs': 120, 'voc2007': 21, 'cifar10': 10}[\"Target Dataset\"]"
        },
    ),
)
_SPIDER_MODELS: Final = Preset(
    name="spider-models",
    kind="model",
    files="spider_multisource_accuracy.csv",
    text="Architecture and source data set of the 66 models FTD_ARCHITECTURE_SOURCE.",
    mapping=FieldMapping(
        map={
            "model_id": "{model}",
            "architecture": "{architecture_name}",
            "pretrained_domain": "{source_name}",
        },
        columns={
            "architecture_name": "regexp_extract(model, '^FTD_(.+)_([^_]+)$', 1)",
            "source_name": "regexp_extract(model, '^FTD_(.+)_([^_]+)$', 2)",
        },
    ),
)

CARD_PRESETS: Final = (
    _TG_MODELS,
    _TG_MODELS_ALL,
    _TG_TASKS,
    _TIMM_BENCHMARK,
    _TIMM_METADATA,
    _TIMM_MODELS,
    _PARC_MODELS,
    _PARC_TASKS,
    _SPIDER_MODELS,
)

"""The public histories beside the checkout, ready to be back-tested: interactions and cards.

Each README in ``../shared/data/histories`` says the quirks that are followed here. Nothing is
copied into the repository.
"""

import ast
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from recsys_ms.catalog.cards import ModelCard, TaskCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.history.interactions import Interactions

ROOT: Final = Path(__file__).resolve().parents[2]
HISTORIES: Final = ROOT.parent / "shared" / "data" / "histories"

#: Columns of ``models.csv`` and ``tasks.csv`` that are fields of a card; others become traits.
_MODEL_FIELDS: Final = {
    "params": "n_parameters", "n_parameters": "n_parameters", "size": "n_parameters",
    "number_of_parameters": "n_parameters", "layers": "n_layers", "embed_dim": "hidden_width",
    "output_shape": "hidden_width", "family": "family", "model_type": "family",
    "architecture": "architecture", "backbone": "architecture", "pretrain_tag": "pretrained_tag",
    "pretrain_data": "pretrained_domain", "extra_pretrain_data": "pretrained_domain",
    "pretrain_dataset": "pretrained_domain", "dataset": "pretrained_domain",
    "image_size": "input_size", "license": "licence",
}  # fmt: skip
_TASK_FIELDS: Final = {
    "n_samples": "n_samples", "num_training_inst": "n_samples", "n_labels": "n_classes",
    "n_classes": "n_classes", "num_classes": "n_classes", "domain": "domain", "category": "domain",
}  # fmt: skip
_COUNTS: Final = {
    "n_parameters",
    "n_layers",
    "hidden_width",
    "input_size",
    "n_samples",
    "n_classes",
}
#: Names, addresses and long texts: they tell single rows apart and describe nothing.
_LEFT_OUT: Final = {
    "name", "link", "url", "model_uuid", "tokenizer", "base_id", "description", "classnames",
    "openml_id", "creation_date", "last_modified", "Centered Metric?", "main_metric", "metric",
    "labels", "accuracy", "memory_consumption", "n_models", "n_releases",
    "n_partial_models_dropped",
}  # fmt: skip
#: A trait with more words than this is taken as separate words of at most so many kinds.
_MAX_KINDS: Final = 60


def _columns(frame: pd.DataFrame, key: str, fields: Mapping[str, str]) -> list[dict[str, object]]:
    kinds = {
        name: frame[name].nunique()
        for name in frame.columns
        if name != key and name not in _LEFT_OUT and frame[name].notna().any()
    }
    found = []
    for row in frame.to_dict("records"):
        card: dict[str, object] = {}
        traits: dict[str, str | float] = {}
        for name, n_kinds in kinds.items():
            value = row[name]
            if value is None or value != value or value in (np.inf, -np.inf):
                continue
            field = fields.get(name)
            if field in _COUNTS and isinstance(value, int | float) and value >= 1:
                card[field] = int(value)
            elif field is not None and field not in _COUNTS:
                card[field] = str(value)
            elif isinstance(value, bool):
                traits[name] = str(value)
            elif isinstance(value, int | float):
                traits[name] = float(value)
            elif isinstance(value, str) and n_kinds <= _MAX_KINDS:
                traits[name] = value
        if traits:
            card["traits"] = traits
        found.append({key: str(row[key]), **card})
    return found


def _cards(
    models: pd.DataFrame | None, tasks: pd.DataFrame | None, metrics: Mapping[str, str]
) -> Catalog:
    return Catalog.from_cards(
        models=[]
        if models is None
        else [
            ModelCard(**row)
            for row in _columns(
                models.rename(columns={"model": "model_id"}), "model_id", _MODEL_FIELDS
            )
        ],
        tasks=[]
        if tasks is None
        else [
            TaskCard(**row, metric=metrics.get(str(row["task_id"])))
            for row in _columns(tasks.rename(columns={"task": "task_id"}), "task_id", _TASK_FIELDS)
        ],
    )


def _of_frame(runs: pd.DataFrame) -> Interactions:
    frame = runs.rename(columns={"model": "model_id", "task": "task_id"})
    runs = frame.assign(status="finished").dropna(subset=["value"])
    return Interactions.from_runs(runs, on_two_metrics="most-runs")


def _more(name: str) -> tuple[Interactions, Catalog]:
    folder = HISTORIES / "more" / name
    runs = pd.read_csv(folder / "runs.csv", low_memory=False)
    if name == "livebench":
        # The same pair stands in up to ten releases: the latest counts.
        runs = runs.sort_values("date").drop_duplicates(["model", "task"], keep="last")
    metrics = dict(zip(runs["task"].astype(str), runs["metric"], strict=True))
    models = pd.read_csv(folder / "models.csv", low_memory=False)
    return _of_frame(runs), _cards(
        models, pd.read_csv(folder / "tasks.csv", low_memory=False), metrics
    )


def _triplets(task: Iterable[str], model: Iterable[str], value: Iterable[float]) -> Interactions:
    return Interactions.from_triplets(
        list(task), list(model), np.asarray(list(value), dtype=float), metric="accuracy"
    )


def _parc(file: str) -> tuple[Interactions, Catalog]:
    frame = pd.read_csv(HISTORIES / "raw" / file)
    frame = frame[frame["Oracle"] != -1]
    model = frame["Architecture"] + "@" + frame["Source Dataset"]
    cards = frame.assign(model=model).drop_duplicates("model")
    return (
        _triplets(frame["Target Dataset"], model, frame["Oracle"] / 100),
        Catalog.from_cards(
            models=[
                ModelCard(model_id=m, architecture=a, pretrained_domain=s)
                for m, a, s in zip(
                    cards["model"], cards["Architecture"], cards["Source Dataset"], strict=True
                )
            ]
        ),
    )


def _jobs() -> tuple[Interactions, Catalog]:
    frame = pd.read_csv(HISTORIES / "raw" / "transfergraph" / "ftrecords_img.csv")
    configs = frame["configs"].map(ast.literal_eval)
    data = frame["train_dataset_name"]
    label = configs.map(lambda config: config.get("label_name"))
    preprocess = configs.map(lambda config: config.get("preprocess"))
    task = data.mask(data.isin(["dsprites", "smallnorb"]), data + "/" + label)
    task = task.mask(data == "clevr", data + "/" + preprocess)
    invalid = (data == "clevr") & (frame["test_split"] == "test") & (frame["test_accuracy"] == 0)
    assert invalid.sum() == 35
    keep = (configs.map(lambda c: c["lr"]) == 0.01) & (frame["train_slice"] == ":800") & ~invalid
    models = pd.read_csv(HISTORIES / "raw" / "transfergraph" / "model_config.csv")
    return (
        _triplets(task[keep], frame["model_identifier"][keep], frame["test_accuracy"][keep]),
        _cards(models, None, {}),
    )


def _records() -> tuple[Interactions, Catalog]:
    raw = HISTORIES / "raw" / "transfergraph"
    frame = pd.read_csv(raw / "records.csv")
    frame = frame[frame["finetuned_dataset"] != "food101"]
    tasks = pd.read_csv(raw / "finetune_dataset_config.csv").rename(
        columns={"finetune_dataset": "task", "size": "n_samples", "number_of_classes": "n_classes"}
    )
    return (
        _triplets(frame["finetuned_dataset"], frame["model"], frame["test_accuracy"]),
        _cards(pd.read_csv(raw / "model_config_dataset.csv"), tasks, {}),
    )


def _transfergraph_image() -> tuple[Interactions, Catalog]:
    folder = HISTORIES / "more" / "transfergraph_image"
    frame = pd.read_csv(folder / "records.csv")
    frame = frame[(frame["finetuned_dataset"] != "food101") & frame["eval_accuracy"].notna()]
    return (
        _triplets(frame["finetuned_dataset"], frame["model"], frame["eval_accuracy"]),
        _cards(pd.read_csv(folder / "model_config_dataset.csv"), None, {}),
    )


def _spider() -> tuple[Interactions, Catalog]:
    frame = pd.read_csv(HISTORIES / "raw" / "spider_multisource_accuracy.csv")
    return _triplets(frame["task"], frame["model"], frame["value"] / 100), Catalog.empty()


def _timm() -> tuple[Interactions, Catalog]:
    parts = []
    for path in sorted((HISTORIES / "raw" / "timm").glob("results-*.csv")):
        frame = pd.read_csv(path)
        parts.append(frame.assign(task=path.stem.removeprefix("results-")))
    frame = pd.concat(parts)
    catalog = Catalog.read(ROOT / "data_history" / "timm")
    ids = sorted(set(frame["model"]))
    architectures = catalog.models
    cards = []
    for model in ids:
        name, _, tag = model.partition(".")
        at = architectures.index.get_indexer([name])[0]
        n_parameters = float(
            str(frame.loc[frame["model"] == model, "param_count"].iloc[0]).replace(",", "")
        )
        row = architectures.iloc[at] if at >= 0 else None
        cards.append(
            ModelCard(
                model_id=model,
                architecture=name,
                pretrained_tag=tag or None,
                n_parameters=round(n_parameters * 1e6),
                family=None if row is None else row["family"],
                embedding=None if row is None else row["embedding"],
            )
        )
    return _triplets(frame["task"], frame["model"], frame["top1"] / 100), Catalog.from_cards(
        models=cards
    )


def _zoo() -> tuple[Interactions, Catalog]:
    folder = ROOT / "data_history" / "zoo"
    runs = pd.read_parquet(folder / "runs.parquet")
    return Interactions.from_runs(runs), Catalog.read(folder)


MORE: Final = (
    "hear", "lovm", "livebench", "imagenet_testbed", "model_recycling", "tabzilla", "talent",
    "dclm", "mteb_multimodal", "euroeval", "mteb_text",
)  # fmt: skip
LOADERS: Final[Mapping[str, Callable[[], tuple[Interactions, Catalog]]]] = {
    "zoo": _zoo,
    "parc_controlled": lambda: _parc("parc_controlled.csv"),
    "parc_all": lambda: _parc("parc_all.csv"),
    "transfergraph_jobs": _jobs,
    "transfergraph_records": _records,
    "transfergraph_image": _transfergraph_image,
    "spider": _spider,
    "timm": _timm,
    **{name: (lambda name=name: _more(name)) for name in MORE},
}


def load(name: str, *, cards: bool = True) -> tuple[Interactions, Catalog]:
    """Interactions and cards of one public history; an empty catalog without ``cards``."""
    interactions, catalog = LOADERS[name]()
    return interactions, catalog if cards else Catalog.empty()

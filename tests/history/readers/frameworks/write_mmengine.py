"""Trains with OpenMMLab's Runner: python write_mmengine.py FOLDER (no network)."""

import json
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, METRICS, MODELS
from mmengine.runner import Runner
from torch.utils.data import Dataset


@MODELS.register_module()
class Linear(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)

    def forward(self, inputs, labels, mode="tensor"):
        scores = self.layer(inputs)
        if mode == "loss":
            return {"loss": torch.nn.functional.cross_entropy(scores, labels)}
        return scores, labels


@DATASETS.register_module()
class Points(Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, at):
        return torch.randn(3, generator=torch.Generator().manual_seed(at)), at % 2


@METRICS.register_module()
class Top1(BaseMetric):
    default_prefix = "accuracy"

    def process(self, data_batch, data_samples):
        scores, labels = data_samples
        self.results.append({"n": len(labels), "right": (scores.argmax(1) == labels).sum().cpu()})

    def compute_metrics(self, results):
        right = sum(int(each["right"]) for each in results)
        return {"top1": 100.0 * right / sum(each["n"] for each in results)}


def main(folder):
    loader = {
        "batch_size": 4,
        "num_workers": 0,
        "dataset": {"type": "Points"},
        "sampler": {"type": "DefaultSampler", "shuffle": False},
        "collate_fn": {"type": "default_collate"},
    }
    config = Config(
        {
            "model": {"type": "Linear"},
            "work_dir": str(folder / "work_dirs" / "linear_points"),
            "load_from": None,
            "dataset_type": "Points",
            "data_root": "data/points/",
            "train_dataloader": loader,
            "val_dataloader": loader,
            "train_cfg": {"by_epoch": True, "max_epochs": 3, "val_interval": 1},
            "val_cfg": {},
            "val_evaluator": {"type": "Top1"},
            "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 0.1}},
            "randomness": {"seed": 0},
            "default_hooks": {
                "logger": {"type": "LoggerHook", "interval": 1},
                "checkpoint": {"type": "CheckpointHook", "save_best": "accuracy/top1"},
            },
            "default_scope": "mmengine",
        }
    )
    runner = Runner.from_cfg(config)
    runner.train()
    [scalars] = folder.rglob("scalars.json")
    rows = [json.loads(line) for line in scalars.read_text().splitlines()]
    for path in (*folder.rglob("*.log"), *folder.rglob("2*.json"), *folder.rglob("2*.py")):
        path.unlink()
    top1 = [row["accuracy/top1"] for row in rows if "accuracy/top1" in row]
    (folder / "expected.json").write_text(json.dumps({"accuracy/top1": top1}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

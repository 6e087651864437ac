"""Trains with Ultralytics from random weights: python write_ultralytics.py FOLDER (no network)."""

import os
import sys
import tempfile
from pathlib import Path

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}
# Settings of its own: those of the user stay as they are.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp()

import numpy as np
from PIL import Image, ImageDraw
from ultralytics import YOLO, settings

SIZE = 64
SETTINGS = {"imgsz": SIZE, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "seed": 7}
#: Without them, random weights find no box in a minute.
FAST = {
    "optimizer": "Adam",
    "lr0": 0.003,
    "warmup_epochs": 0,
    "mosaic": 0.0,
    "patience": 8,
    "nbs": 4,
}


def boxes(folder):
    """White boxes on noise, with their labels."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for number in range(8):
            image = Image.fromarray(rng.integers(0, 80, (SIZE, SIZE, 3), dtype=np.uint8))
            x, y = map(int, rng.integers(4, 28, 2))
            ImageDraw.Draw(image).rectangle((x, y, x + 30, y + 30), fill="white")
            image.save(folder / "images" / split / f"{number}.png")
            label = f"0 {(x + 15) / SIZE} {(y + 15) / SIZE} {30 / SIZE} {30 / SIZE}\n"
            (folder / "labels" / split / f"{number}.txt").write_text(label)
    data = folder / "data.yaml"
    data.write_text(f"path: {folder}\ntrain: images/train\nval: images/val\nnames: [box]\n")
    return data


def shades(folder):
    """Dark and bright pictures in one folder a class."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for shade, (low, high) in {"dark": (0, 120), "bright": (100, 255)}.items():
            (folder / split / shade).mkdir(parents=True)
            for number in range(4):
                pixels = rng.integers(low, high, (SIZE, SIZE, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / split / shade / f"{number}.png")
    return folder


class Killed(Exception):
    """Stands for the end of the process in the middle of a training."""


def kill(trainer):
    if trainer.epoch == 1:
        raise Killed


def main(folder):
    settings.update({"mlflow": False})
    made = folder / "pictures"
    data = boxes(made / "white-boxes")
    runs = {"project": str(folder / "detect"), **SETTINGS}
    YOLO("yolo11n.yaml").train(data=str(data), epochs=40, name="train", **FAST, **runs)
    killed = YOLO("yolov8n.yaml")
    killed.add_callback("on_train_epoch_start", kill)
    try:
        killed.train(data=str(data), epochs=3, name="train2", **runs)
    except Killed:
        pass
    classes = str(shades(made / "shades"))
    runs["project"] = str(folder / "classify")
    YOLO("yolo11n-cls.yaml").train(data=classes, epochs=6, name="train", **FAST, **runs)
    for path in sorted(made.rglob("*.txt")):
        path.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())

"""``recsys-ms score`` as a user calls it."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from warm import warm

#: What commands need that run a model.
TORCH = ("torch", "timm", "transformers")


def run(*arguments: object, cwd: Path, more: tuple[str, ...] = ()) -> CompletedProcess[str]:
    env = {"COLUMNS": "220", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    return warm(*more).run(*arguments, cwd=cwd, env=env)


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = rng.normal(size=(60, 8)) + 2 * rng.normal(size=(3, 8))[labels]
    np.savez(tmp_path / "features.npz", features=features.astype(np.float32), labels=labels)
    return tmp_path


def test_the_table_of_a_probe_file(probe: Path) -> None:
    done = run("score", "features.npz", cwd=probe)
    assert done.returncode == 0, done.stderr
    assert "LogME" in done.stdout
    assert "needs source_probs" in done.stdout
    told = json.loads(run("score", "features.npz", "--json", cwd=probe).stdout)
    assert told["scores"]["logme"]["status"] == "ok"
    assert told["scores"]["leep"]["value"] is None
    assert (told["n_probe"], told["rank"]) == (60, 8)
    some = run("score", "features.npz", "--scores", "logme, knn", "--json", cwd=probe)
    assert list(json.loads(some.stdout)["scores"]) == ["logme", "knn"]


def test_a_probe_set_that_no_score_can_be_computed_from(probe: Path) -> None:
    np.savez(probe / "one.npz", features=np.eye(9), labels=np.zeros(9, dtype=int))
    done = run("score", "one.npz", "--scores", "logme,leep", cwd=probe)
    assert done.returncode == 3
    assert "1 class" in done.stdout
    assert "no score could be computed" in done.stderr
    # One that could is an answer.
    some = run("score", "one.npz", "--scores", "logme,etran_energy", cwd=probe)
    assert some.returncode == 0, some.stderr


def test_scores_are_kept_in_a_catalog(probe: Path) -> None:
    line = ["score", "features.npz", "--scores", "logme,lfc", "-C", "c", "--task", "birds"]
    assert run(*line, "--model-id", "resnet18", cwd=probe).returncode == 0
    assert run(*line, "--model-id", "vit", cwd=probe).returncode == 0
    from recsys_ms.catalog.catalog import Catalog

    scores = Catalog.read(probe / "c").scores.frame
    assert scores.index.tolist() == [("birds", "resnet18"), ("birds", "vit")]
    assert list(scores.columns) == ["lfc", "logme"]
    asked = run(*line, cwd=probe)
    assert asked.returncode == 2
    assert "--model-id" in asked.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ([], 2, "name a probe file"),
        (["features.npz", "--model", "timm:resnet18", "--images", "x"], 2, "name a probe file"),
        (["--model", "timm:resnet18"], 2, "name a probe file"),
        (["no.npz"], 3, "no such file"),
        (["features.npz", "--task", "t"], 2, "--catalog"),
        (["features.npz", "--scores", "logmee"], 2, "unknown"),
        (["features.npz", "--kind", "boxes"], 2, "boxes"),
        (["features.npz", "--encoder", "bert"], 2, "class_names"),
        (["--model", "resnet18", "--images", "x"], 2, "timm:NAME"),
        (["--model", "timm:resnet18", "--images", "x"], 3, "no such folder"),
    ],
)
def test_bad_usage(probe: Path, line: list[str], code: int, told: str) -> None:
    done = run("score", *line, cwd=probe)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert not done.stdout


def test_a_model_on_a_folder_of_images(tmp_path: Path) -> None:
    for module in ("torch", "timm", "PIL"):
        pytest.importorskip(module, reason=f"{module} is not installed (extra embed)")
    import timm
    import torch
    from PIL import Image
    from safetensors.torch import save_file

    torch.manual_seed(0)
    model = timm.create_model("test_resnet.r160_in1k", pretrained=False, num_classes=5)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    rng = np.random.default_rng(0)
    for label, level in (("dark", 40), ("grey", 120), ("light", 210)):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(8):
            pixels = np.clip(rng.normal(level, 20, (24, 24, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    line = [
        *("score", "--model", "timm:test_resnet.r160_in1k", "--images", "photos"),
        *("--weights", "w.safetensors", "--cache", "cache", "--most", "18", "--json"),
        *("-C", "c", "--task", "shades"),
    ]
    done = run(*line, cwd=tmp_path, more=TORCH)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["n_images"], told["n_computed"], told["n_classes"]) == (18, 18, 3)
    assert told["scores"]["knn"]["value"] > 0.6
    assert told["scores"]["leep"]["status"] == "ok"
    again = json.loads(run(*line, cwd=tmp_path, more=TORCH).stdout)
    assert again["n_computed"] == 0
    assert again["scores"]["logme"]["value"] == told["scores"]["logme"]["value"]
    from recsys_ms.catalog.catalog import Catalog

    assert Catalog.read(tmp_path / "c").scores.frame.index.tolist() == [
        ("shades", "test_resnet.r160_in1k")
    ]
    line = ["score", "--model", "timm:resnet18", "--images", "photos"]
    absent = run(*line, cwd=tmp_path, more=TORCH)
    assert absent.returncode == 3
    assert "--weights" in absent.stderr


TINY_BERT = """
import sys
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "a", "photo", "of", "cat", "dog", "eel", "."]
vocabulary = {word: number for number, word in enumerate(words)}
tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
)
PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    unk_token="[UNK]",
    pad_token="[PAD]",
    cls_token="[CLS]",
    sep_token="[SEP]",
).save_pretrained(sys.argv[1])
torch.manual_seed(0)
config = BertConfig(
    vocab_size=len(words),
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=8,
    max_position_embeddings=16,
)
BertModel(config).save_pretrained(sys.argv[1])
"""


def test_emms_with_a_foundation_model_from_a_folder(tmp_path: Path) -> None:
    for module in ("torch", "transformers"):
        pytest.importorskip(module, reason=f"{module} is not installed (extra embed)")
    made = warm(*TORCH).python(TINY_BERT, "bert", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    np.savez(
        tmp_path / "p.npz",
        features=rng.normal(size=(60, 8)) + rng.normal(size=(3, 8))[labels],
        labels=labels,
        class_names=np.array(["cat", "dog", "eel"]),
    )
    line = ["score", "p.npz", "--scores", "emms", "--cache", "cache", "--json"]
    encoders = ["--encoder", "transformers:bert", "--encoder", "transformers:bert=cls"]
    done = run(*line, *encoders, cwd=tmp_path, more=TORCH)
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["scores"]["emms"]
    assert first["status"] == "ok"
    assert -1 / 8 < first["value"] < 0
    again = json.loads(run(*line, *encoders, cwd=tmp_path, more=TORCH).stdout)["scores"]["emms"]
    assert again["value"] == first["value"]
    absent = run(*line, "--encoder", "transformers:./nowhere", cwd=tmp_path, more=TORCH)
    assert absent.returncode == 2
    assert "nowhere" in absent.stderr

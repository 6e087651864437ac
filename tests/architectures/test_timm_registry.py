"""Cards of timm's registry: resumed, complete, failures listed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from recsys_ms.architectures import timm_cards, timm_models
from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.subtrees import View
from recsys_ms.architectures.timm_cards import embed_timm, timm_architectures
from recsys_ms.architectures.timm_models import TimmArchitecture, describe, described
from recsys_ms.catalog.cards import ModelCard
from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.app import app
from recsys_ms.core.errors import DataError, UsageError
from recsys_ms.history.embedded import embedded_folder

timm: Any = pytest.importorskip("timm", reason="timm is not installed (extra embed)")
torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

pytestmark = [
    pytest.mark.zoo,
    # timm tells of models that have been renamed.
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

NAMES = ["resnet10t", "resnet18", "resnet50", "test_vit", "test_vit2", "test_convnext"]


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("catalog")
    report = embed_timm(folder, NAMES)
    assert (report.n_architectures, report.failures) == (6, {})
    return folder


def test_every_architecture_and_every_weights_has_a_card(embedded: Path) -> None:
    catalog = Catalog.read(embedded)
    weights = {name for n in NAMES for name in timm.list_pretrained(n)}
    assert len(weights) > 20
    assert set(catalog.models.index) == {*NAMES, *weights}
    card = catalog.model_card("resnet50")
    assert (card.architecture, card.family, card.pretrained_tag) == ("resnet50", "resnet", None)
    assert (card.n_parameters, card.n_layers, card.hidden_width) == (25_557_032, 50, 2048)
    assert card.input_size == 224
    tagged = catalog.model_card("resnet50.a1_in1k")
    assert (tagged.pretrained_tag, tagged.n_source_classes) == ("a1_in1k", 1000)
    assert tagged.embedding == card.embedding
    assert tagged.licence == "apache-2.0"
    # Vectors are those of the archi2vec beside the cards.
    words = [describe(name).words for name in NAMES]
    vectors = Archi2Vec.load(embedded).transform(words)
    for name, vector in zip(NAMES, vectors, strict=True):
        assert np.allclose(catalog.model_card(name).embedding, vector, atol=1e-6)


def test_parameters_count_the_head_of_the_weights() -> None:
    found = describe("convnext_tiny")
    by_tag = {each.pretrained_tag: each for each in found.weights}
    with torch.device("meta"):
        model = timm.create_model("convnext_tiny", num_classes=21_841)
    assert by_tag["fb_in22k"].n_source_classes == 21_841
    assert by_tag["fb_in22k"].n_parameters == sum(w.numel() for w in model.parameters())
    assert by_tag["fb_in1k"].n_parameters == found.card.n_parameters
    assert {224, 384} <= {each.input_size for each in found.weights}


def test_gmacs_are_unknown_at_another_size(tmp_path: Path, embedded: Path) -> None:
    embed_timm(tmp_path, ["convnext_tiny"], archi2vec=Archi2Vec.load(embedded))
    models = Catalog.read(tmp_path).models
    at_384 = models[models["input_size"] == 384]
    assert len(at_384) >= 1
    assert at_384["gmacs"].isna().all()
    assert models[models["input_size"] == 224]["gmacs"].notna().all()


def test_a_stopped_run_goes_on(
    embedded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counting(name: str) -> TimmArchitecture:
        asked.append(name)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return describe(name)

    monkeypatch.setattr(timm_models, "describe", counting)
    with pytest.raises(KeyboardInterrupt):
        embed_timm(tmp_path, NAMES)
    assert asked == NAMES[:4]
    assert not (tmp_path / "models.parquet").exists()
    # A file cut off in the middle is described again.
    damaged = tmp_path / ".architectures" / f"{NAMES[0]}.npz"
    damaged.write_bytes(damaged.read_bytes()[:200])
    asked.clear()
    asked.extend(["already"] * 4)
    embed_timm(tmp_path, NAMES)
    assert asked[4:] == [NAMES[0], *NAMES[3:]]
    asked.clear()
    embed_timm(tmp_path, NAMES)
    assert asked == []
    assert Catalog.read(tmp_path).to_jsonl() == Catalog.read(embedded).to_jsonl()


def test_descriptions_of_other_releases_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = described("test_vit", tmp_path)
    assert isinstance(first, TimmArchitecture)
    monkeypatch.setattr(timm_models, "_made_by", lambda: "another release")
    second = described("test_vit", tmp_path)
    assert isinstance(second, TimmArchitecture)
    assert second.seconds != first.seconds
    assert np.array_equal(first.words, second.words)


def test_failures_are_listed_and_not_fatal(tmp_path: Path, embedded: Path) -> None:
    report = embed_timm(tmp_path, ["no_such_model", *NAMES[:3]])
    assert set(report.failures) == {"no_such_model"}
    assert "no_such_model: timm cannot build it" in report.failures["no_such_model"]
    assert "resnet18" in Catalog.read(tmp_path).models.index
    with pytest.raises(DataError, match="1 of 1 cannot be described; no_such_model"):
        embed_timm(tmp_path / "none", ["no_such_model"], archi2vec=Archi2Vec.load(embedded))


def test_words_of_other_views_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="default views"):
        embed_timm(tmp_path, NAMES, config=Archi2VecConfig(views=(View(),)))


def test_what_the_catalog_knows_besides_stays(tmp_path: Path) -> None:
    cards = [
        ModelCard(model_id="ours", family="own"),
        ModelCard(model_id="resnet18", source_accuracy=0.7),
    ]
    Catalog.from_cards(models=cards).write(tmp_path)
    embed_timm(tmp_path, NAMES[:3])
    catalog = Catalog.read(tmp_path)
    assert catalog.model_card("ours").family == "own"
    card = catalog.model_card("resnet18")
    assert card.source_accuracy == 0.7
    assert card.embedding is not None


def test_cards_written_meanwhile_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def writing(name: str) -> TimmArchitecture:
        Catalog.from_cards(models=[ModelCard(model_id=f"beside-{name}")]).write(tmp_path)
        return describe(name)

    monkeypatch.setattr(timm_models, "describe", writing)
    embed_timm(tmp_path, NAMES[:3])
    assert {f"beside-{NAMES[2]}", NAMES[0]} <= set(Catalog.read(tmp_path).models.index)


def test_a_catalog_that_cannot_be_read_is_told_of_first(tmp_path: Path) -> None:
    (tmp_path / "models.parquet").write_bytes(b"no table")
    with pytest.raises(DataError, match="not a table of cards"):
        embed_timm(tmp_path, NAMES[:3])
    assert not (tmp_path / ".architectures").exists()


def test_building_without_weights_is_building(tmp_path: Path) -> None:
    with timm_models.without_weights():
        model = timm.create_model("resnet18")
    plain = timm.create_model("resnet18")
    assert all(weight.is_meta for weight in model.parameters())
    shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
    assert shapes == {key: tuple(tensor.shape) for key, tensor in plain.state_dict().items()}
    # Outside, filling works as ever.
    assert float(torch.zeros(3).fill_(2.0).sum()) == 6.0


def test_from_the_command_line(tmp_path: Path, embedded: Path) -> None:
    args = ["embed", "timm", "--out", str(tmp_path), "--only", "test_v*", "--executor", "serial"]
    done = CliRunner().invoke(app, [*args, "--archi2vec", str(embedded), "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["n_architectures"] == len(timm_architectures("test_v*"))
    assert told["failures"] == {}
    assert "test_vit" in Catalog.read(tmp_path).models.index
    shown = CliRunner().invoke(app, [*args, "--encoder", "svd", "--dims", "3"])
    assert shown.exit_code == 0, shown.output
    assert "clusters" in shown.stdout
    card = Catalog.read(tmp_path).model_card("test_vit")
    assert card.embedding is not None
    assert len(card.embedding) == 3
    ours = CliRunner().invoke(app, [*args, "--archi2vec", "embedded"])
    assert ours.exit_code == 0, ours.output
    shipped = Catalog.read(embedded_folder("timm")).model_card("test_vit").embedding
    assert np.allclose(Catalog.read(tmp_path).model_card("test_vit").embedding, shipped, atol=0.05)
    nothing = CliRunner().invoke(app, [*args[:4], "--only", "no_such*"])
    assert isinstance(nothing.exception, UsageError)
    assert "none of timm's architectures" in str(nothing.exception)
    karate = CliRunner().invoke(app, [*args[:4], "--encoder", "karateclub"])
    assert isinstance(karate.exception, UsageError)


def test_in_several_processes(tmp_path: Path, embedded: Path) -> None:
    from recsys_ms.core.executor import ProcessExecutor

    report = timm_cards.embed_timm(tmp_path, NAMES, executor=ProcessExecutor(2))
    assert report.failures == {}
    assert Catalog.read(tmp_path).to_jsonl() == Catalog.read(embedded).to_jsonl()

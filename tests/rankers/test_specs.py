"""One ranker, named in every way it can be named."""

import json
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import UsageError
from recsys_ms.core.rng import named_stream
from recsys_ms.learners.nmf import NMFConfig
from recsys_ms.nightly.settings import NightlyConfig
from recsys_ms.rankers.base import TaskQuery
from recsys_ms.rankers.fennec import FennecRanker
from recsys_ms.rankers.ranker_names import RANKERS, make_ranker, ranker_class, spec_of, split_specs
from recsys_ms.rankers.transfer import NMFRanker
from recsys_ms.serving.config import RankerConfig
from recsys_ms.serving.ranker import Ranker
from recsys_ms.testing.planted import planted_catalog, planted_history

SPECS = {
    "nmf:8": ("nmf", {"n_factors": 8}),
    "nmf:8,tolerance=0.01": ("nmf", {"n_factors": 8, "tolerance": 0.01}),
    "nmf:3": ("nmf", {}),
    "als:2": ("als", {"n_factors": 2}),
    "fennec:0.5": ("fennec", {"alpha": 0.5}),
    "fennec:alpha=none": ("fennec", {}),
    "lr+parc": ("lr", {"scores": ("parc",)}),
    "lr:scores=parc+logme": ("lr", {"scores": ("parc", "logme")}),
    "gbdt+none": ("gbdt", {"scores": ()}),
    "score:parc": ("score", {"score": "parc"}),
    "nmf:8,tolerance=0.01@parc": (
        "scored-history",
        {"ranker": "nmf:8,tolerance=0.01", "score": "parc"},
    ),
}


@pytest.mark.parametrize("spec", SPECS)
def test_a_spec_is_a_name_and_settings(spec: str) -> None:
    name, params = SPECS[spec]
    config = RankerConfig(ranker=spec)
    assert (config.ranker, config.params) == (name, params)
    assert config == RankerConfig(ranker=name, params=params) == RankerConfig(ranker=config.spec)
    assert hash(config) == hash(RankerConfig(ranker=spec))
    made = config.make()
    assert type(made) is ranker_class(name)
    assert made.config == make_ranker(spec).config == make_ranker(name, params).config
    assert make_ranker(spec_of(name, params)).config == made.config
    # As the manifest of an artifact keeps it.
    kept = json.loads(json.dumps({"ranker": config.ranker, "params": config.params}))
    assert RankerConfig.from_mapping(kept) == config


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("nmf:n_factor=8", "NMFRanker: unknown setting 'n_factor'; its settings are alpha_models"),
        ("nmf:8,n_factors=9", "n_factors is set twice"),
        ("nmf:n_factors=8,9", "'9' is not SETTING=VALUE of nmf"),
        ("nmf:much", "n_factors is 'much', expected a whole number"),
        ("popularity:3", "'3' is not SETTING=VALUE of popularity"),
        ("popularity+logme", "'logme' is not SETTING=VALUE"),
        ("nmf+logme", "'logme' is not SETTING=VALUE"),
        ("lr+", "no ranker is named 'lr\\+'"),
        ("best@parc", "no ranker is named 'best'"),
        ("fennec:1.5", r"alpha is 1\.5"),
    ],
)
def test_specs_that_mean_nothing(spec: str, told: str) -> None:
    for ask in (make_ranker, lambda text: RankerConfig(ranker=text)):
        with pytest.raises(UsageError, match=told):
            ask(spec)


def test_a_setting_is_given_once() -> None:
    with pytest.raises(UsageError, match="n_factors is set in the name and in params"):
        RankerConfig(ranker="nmf:8", params={"n_factors": 8})
    with pytest.raises(UsageError, match="params is 8"):
        RankerConfig(ranker="nmf", params=8)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="give a config or its fields by name"):
        NMFRanker(NMFConfig(), n_factors=8)
    with pytest.raises(UsageError, match=r"config is NMFConfig.*expected FennecConfig"):
        FennecRanker(NMFConfig())


def test_repr_is_what_makes_it() -> None:
    assert repr(make_ranker("nmf:8")) == "NMFRanker(n_factors=8)"
    assert repr(make_ranker("nmf")) == "NMFRanker()"
    assert repr(make_ranker("lr+parc")) == "LinearRanker(scores=('parc',))"
    assert repr(make_ranker("popularity")) == "PopularityRanker()"


def test_specs_in_one_option() -> None:
    text = "popularity, nmf:n_factors=8,tolerance=0.1,lr+parc ,nmf:8,max_sweeps=3@fda,,auto"
    assert split_specs(text) == [
        "popularity",
        "nmf:n_factors=8,tolerance=0.1",
        "lr+parc",
        "nmf:8,max_sweeps=3@fda",
        "auto",
    ]


@pytest.mark.parametrize(
    "table", ['ranker = "nmf:8"', 'ranker = "nmf"\n[ranker.params]\nn_factors = 8']
)
def test_in_the_nightly_file(tmp_path: Path, table: str) -> None:
    file = tmp_path / "nightly.toml"
    file.write_text(f'history = "h"\nregistry = "r"\n[ranker]\n{table}\n')
    config = NightlyConfig.from_toml(file)
    assert config.ranker == RankerConfig(ranker="nmf:8", on_two_metrics="most-runs")
    assert json.loads(json.dumps(config.procedure()))["ranker"]["params"] == {"n_factors": 8}


def test_short_forms_are_settings() -> None:
    for name in RANKERS.own:
        made = make_ranker(name)
        assert set(made.short_forms.values()) <= set(made.get_params())
        assert set(made.short_forms) <= {":", "+"}


@pytest.mark.parametrize("spec", ["nmf:5", "fennec:0.3", "lr+logme", "score:logme", "nmf:2@fda"])
def test_what_is_back_tested_is_published(spec: str, tmp_path: Path) -> None:
    history, catalog = planted_history(), planted_catalog()
    ranker = Ranker(RankerConfig(ranker=spec)).fit(history, catalog)
    ranker.save(tmp_path / "a")
    loaded = Ranker.load(tmp_path / "a")
    assert loaded.config == ranker.config == RankerConfig(ranker=spec)
    assert loaded.manifest["ranker"] == RankerConfig(ranker=spec).spec
    query = TaskQuery(task_id="t03")
    for a, b in zip(
        ranker.predict(query, history.model_ids),
        loaded.predict(query, history.model_ids),
        strict=True,
    ):
        np.testing.assert_array_equal(a, b)
    alone = make_ranker(spec).fit(history, catalog, rng=named_stream(0, "fit"))
    np.testing.assert_array_equal(
        alone.predict(query, history.model_ids).value, ranker.predict(query, history.model_ids)[0]
    )

"""The public ranker: the table, constraints, new models and tasks, saving."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from child import loaded_by

import recsys_ms as rms
from recsys_ms.core.errors import (
    ArtifactError,
    DataError,
    NotFittedError,
    UnknownIdError,
    UsageError,
)

COLUMNS = [
    "rank",
    "model_id",
    "predicted",
    "low",
    "high",
    "observed",
    "transfer_score",
    "meta_score",
    "n_tasks",
    "n_parameters",
    "gmacs",
    "cost_gpu_seconds",
    "reasons",
]


@pytest.fixture(scope="module")
def ranker(blocks: rms.Interactions, cards: rms.Catalog) -> rms.Ranker:
    return rms.Ranker(rms.RankerConfig(ranker="nmf")).fit(blocks, cards)


@pytest.fixture(scope="module")
def auto(blocks: rms.Interactions, cards: rms.Catalog) -> rms.Ranker:
    return rms.Ranker().fit(blocks, cards)


def test_the_documented_columns(auto: rms.Ranker) -> None:
    answer = auto.recommend("new task", top=4)
    assert list(answer.columns) == COLUMNS
    assert answer["rank"].tolist() == [1, 2, 3, 4]
    assert (answer["low"] <= answer["predicted"]).all()
    assert (answer["predicted"] <= answer["high"]).all()
    assert answer["observed"].isna().all()
    assert np.isfinite(answer[["transfer_score", "meta_score"]].to_numpy()).all()
    assert all(isinstance(reason, str) for row in answer["reasons"] for reason in row)


def test_a_known_task_shows_what_was_reached(ranker: rms.Ranker, blocks: rms.Interactions) -> None:
    answer = ranker.recommend("t01", top=None)
    columns, outcomes = blocks.of_task("t01")
    reached = {blocks.model_ids[int(j)]: v for j, v in zip(columns, outcomes, strict=True)}
    assert answer.iloc[0]["observed"] == max(reached.values())
    tried = answer.dropna(subset="observed")
    np.testing.assert_array_equal(tried["predicted"], tried["observed"])
    assert len(answer) == len(reached) + 1  # and the model that has a card only


def test_many_tasks_are_answered_as_each_alone(
    auto: rms.Ranker, ranker: rms.Ranker, blocks: rms.Interactions
) -> None:
    card = rms.TaskCard(task_id="described", domain="domain1", n_samples=1000, n_classes=10)
    observed = {"t01": {"m00": 0.9}, "new": {"m00": 0.8, "m01": 0.6}}
    for each in (auto, ranker):
        for reasons in (True, False):
            options = {"top": 5, "models": iter(blocks.model_ids[:9]), "reasons": reasons}
            many = each.recommend_many(["t01", card, "new"], observed=observed, **options)
            assert many["task_id"].tolist() == ["t01"] * 5 + ["described"] * 5 + ["new"] * 5
            assert list(many.columns) == ["task_id", *COLUMNS[: None if reasons else -1]]
            for task, own in many.groupby("task_id", sort=False):
                alone = each.recommend(
                    task,
                    card=card if task == "described" else None,
                    observed=observed.get(task),
                    **{**options, "models": blocks.model_ids[:9]},
                )
                pd.testing.assert_frame_equal(
                    own.drop(columns="task_id").reset_index(drop=True), alone, check_exact=True
                )
                assert many.attrs["nearest_tasks"][task] == alone.attrs["nearest_tasks"]


@pytest.mark.parametrize(
    ("tasks", "observed", "said"),
    [
        ("t01", None, "tasks is 't01' of type str; expected a list of task ids"),
        ([], None, "tasks is empty"),
        ([None], None, "a task in tasks is None"),
        (["t01", "t01"], None, "tasks has 't01' twice"),
        (["t01"], [0.8], r"observed is \[0.8\] of type list; expected outcomes by task id"),
        (
            ["t01"],
            {"m00": 0.8},
            "observed has outcomes of task 'm00', which is not among the tasks",
        ),
    ],
)
def test_what_are_no_tasks(ranker: rms.Ranker, tasks: object, observed: object, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        ranker.recommend_many(tasks, observed=observed)


def test_without_reasons_the_rest_is_the_same(auto: rms.Ranker) -> None:
    with_reasons = auto.recommend("t01", observed={"m00": 0.9})
    without = auto.recommend("t01", observed={"m00": 0.9}, reasons=False)
    pd.testing.assert_frame_equal(without, with_reasons.drop(columns="reasons"), check_exact=True)


def test_observed_models_are_left_out_and_move_the_rest(ranker: rms.Ranker) -> None:
    answer = ranker.recommend(
        "x", observed={"m00": 0.85, "m01": 0.6, "m02": 0.6}, top=None
    ).set_index("model_id")
    assert not {"m00", "m01", "m02"} & set(answer.index)
    # m00 is of block 0 and did well: its block-mates lead.
    assert set(answer.index[:4]) <= {f"m{j:02d}" for j in range(0, 18, 3)}
    assert answer["predicted"].iloc[0] > 0.7


def test_constraints(ranker: rms.Ranker) -> None:
    small = ranker.recommend("x", constraints=rms.Constraints(max_params=3), top=None)
    assert set(small["model_id"]) == {"m00", "m01", "m02", "new-model"}
    # The card of new-model does not say its GMACs: it is left out, not guessed.
    cheap = ranker.recommend("x", constraints=rms.Constraints(max_gmacs=0.35), top=None)
    assert set(cheap["model_id"]) == {"m00", "m01", "m02"}
    open_ = ranker.recommend("x", constraints=rms.Constraints(licences=("APACHE-2.0",)), top=None)
    assert set(open_["model_id"]) == {f"m{j:02d}" for j in range(1, 18, 2)}
    with pytest.raises(DataError, match=r"none of 19 models.*0\.001 million.*widen"):
        ranker.recommend("x", constraints=rms.Constraints(max_params=0.001))
    with pytest.raises(UsageError, match="max_params is -1"):
        rms.Constraints(max_params=-1)


def test_unknown_models_suggest_close_ones(ranker: rms.Ranker) -> None:
    with pytest.raises(UnknownIdError, match=r"'m0' has neither runs nor a card.*did you mean"):
        ranker.recommend("x", observed={"m0": 0.5})
    with pytest.raises(UnknownIdError, match="'nope'"):
        ranker.recommend("x", models=["nope"])
    with pytest.raises(DataError, match="observed outcome of model 'm00' is nan"):
        ranker.recommend("x", observed={"m00": float("nan")})
    with pytest.raises(UsageError, match="top is 0"):
        ranker.recommend("x", top=0)


def test_only_the_asked_models(ranker: rms.Ranker) -> None:
    answer = ranker.recommend("x", models=["m05", "m04"], top=None)
    assert set(answer["model_id"]) == {"m04", "m05"}


def test_a_metric_nobody_used(ranker: rms.Ranker) -> None:
    with pytest.raises(DataError, match="no past task is measured in 'f1'"):
        ranker.recommend("x", metric="f1")


def test_minimised_metrics_come_back_in_their_own_direction() -> None:
    rng = np.random.default_rng(0)
    tasks = [f"t{i}" for i in range(6) for _ in range(5)]
    models = [f"m{j}" for _ in range(6) for j in range(5)]
    loss = [1.0 + 0.2 * j + 0.01 * rng.normal() for _ in range(6) for j in range(5)]
    history = rms.Interactions.from_triplets(tasks, models, loss, metric="loss", direction="min")
    ranker = rms.Ranker(rms.RankerConfig(ranker="popularity")).fit(history)
    answer = ranker.recommend("new", top=None)
    assert answer["model_id"].tolist() == ["m0", "m1", "m2", "m3", "m4"]
    assert answer["predicted"].is_monotonic_increasing
    assert answer["predicted"].iloc[0] == pytest.approx(1.0, abs=0.02)
    assert (answer["low"] <= answer["high"]).all()
    warm = ranker.recommend("new", observed={"m4": 2.8}, top=None)
    assert (warm["predicted"].to_numpy() > answer["predicted"].to_numpy()[:4]).all()


def test_new_models_and_tasks_enter_without_a_refit(
    blocks: rms.Interactions, cards: rms.Catalog
) -> None:
    ranker = rms.Ranker(rms.RankerConfig(ranker="nmf")).fit(blocks, cards)
    ranker.add_models([rms.ModelCard(model_id="another", family="family2")])
    assert "another" in ranker.model_ids
    card = rms.TaskCard(task_id="fresh", domain="domain2", n_samples=1000, n_classes=10)
    ranker.add_task("fresh", card=card)
    table = ranker.recommend("fresh", top=None).set_index("model_id")
    assert table.loc["another", "predicted"] > table.loc["new-model", "predicted"] + 0.05
    ranker.add_task("fresh", observed={"m02": 0.9})
    assert "fresh" in ranker.task_ids
    assert ranker.recommend("fresh", top=None).set_index("model_id").loc["m02", "observed"] == 0.9
    with pytest.raises(UsageError, match="observed outcomes, a card, or both"):
        ranker.add_task("fresh")
    with pytest.raises(UsageError, match="the card is of task 'fresh'"):
        ranker.add_task("other", card=card)


def test_saved_and_loaded_answers_are_equal(auto: rms.Ranker, tmp_path: Path) -> None:
    auto.save(tmp_path / "a", manifest={"note": "kept"})
    loaded = rms.Ranker.load(tmp_path / "a")
    assert loaded.config == auto.config
    assert loaded.manifest["note"] == "kept"
    for task, observed in (("t03", {}), ("new", {}), ("new", {"m00": 0.8, "m04": 0.6, "m07": 0.7})):
        pd.testing.assert_frame_equal(
            auto.recommend(task, observed=observed, top=None),
            loaded.recommend(task, observed=observed, top=None),
            check_exact=True,
        )


def test_the_manifest_says_what_was_learned_from(auto: rms.Ranker, tmp_path: Path) -> None:
    auto.save(tmp_path / "a")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["directions"] == {"accuracy": "max"}
    assert (manifest["n_tasks"], manifest["n_models"]) == (12, 18)
    assert manifest["config"]["seed"] == 0
    assert any(name.startswith("family=") for name in manifest["features"])
    assert "numpy" in manifest["versions"]
    assert set(manifest["files"]) >= {"state.json", "arrays.safetensors"}


def test_a_whole_artifact_that_is_no_ranker(tmp_path: Path) -> None:
    from recsys_ms.core.state import State
    from recsys_ms.serving.artifact import save_artifact

    save_artifact(State(), tmp_path / "a", manifest={"config": {"ranker": "nmf"}})
    with pytest.raises(ArtifactError, match="intact but not a valid ranker"):
        rms.Ranker.load(tmp_path / "a")


def test_loading_and_answering_needs_no_torch_no_history(
    ranker: rms.Ranker, tmp_path: Path
) -> None:
    ranker.save(tmp_path / "a")
    code = f"import recsys_ms as rms; rms.Ranker.load({str(tmp_path / 'a')!r}).recommend('x')"
    assert loaded_by(code, "torch", "timm", "deltalake", "duckdb") == set()


def test_importing_the_package_is_light() -> None:
    heavy = ("torch", "lightgbm", "pandas", "numba", "sklearn")
    assert loaded_by("import recsys_ms", *heavy) == set()


def test_every_public_name_is_importable() -> None:
    for name in dir(rms):
        assert getattr(rms, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rms.nothing  # type: ignore[attr-defined]


def test_config_refuses_invalid_values() -> None:
    with pytest.raises(UsageError, match="no ranker is named 'best'"):
        rms.RankerConfig(ranker="best")
    with pytest.raises(UsageError, match=r"coverage is 1\.5"):
        rms.RankerConfig(coverage=1.5)
    with pytest.raises(UsageError, match="seed is -1, expected a whole number of at least 0"):
        rms.RankerConfig(seed=-1)
    with pytest.raises(UsageError, match="unknown setting 'sed'"):
        rms.RankerConfig.from_mapping({"sed": 1})
    with pytest.raises(NotFittedError):
        rms.Ranker().recommend("x")

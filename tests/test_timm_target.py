"""Issue 2: ImageNet top-1 of held-out timm models from their cards, before archi2vec."""

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "benchmarks" / "timm_imagenet.py"


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.zoo
@pytest.mark.parametrize(("protocol", "wanted"), [("random", 0.955), ("family", 0.88)])
def test_the_blend_reaches_the_target(shared_data, protocol, wanted):
    pytest.importorskip("timm", reason="families are timm's own module names")
    spec = importlib.util.spec_from_file_location("timm_imagenet", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    table = benchmark.correlations(shared_data, protocol, heads=("blend",))
    assert len(table) == 10
    assert table["blend"].mean() >= wanted


@pytest.mark.shared_data
@pytest.mark.zoo
def test_no_model_and_no_family_is_on_both_sides(shared_data):
    pytest.importorskip("timm", reason="families are timm's own module names")
    spec = importlib.util.spec_from_file_location("timm_imagenet", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    catalog, top1 = benchmark.load(shared_data)
    assert len(top1) == 1266
    families = catalog.models.loc[sorted(top1), "family"].to_numpy().astype(str)
    for seed in range(10):
        train, test = benchmark.split(families, "family", seed)
        assert not set(families[train]) & set(families[test])
        assert train.size + test.size == 1266
        train, test = benchmark.split(families, "random", seed)
        assert test.size == 253
        assert not set(train) & set(test)

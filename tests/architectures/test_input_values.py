"""Masks and ids among the inputs have values that code may look at; images have none."""

from typing import Any

import pytest

from recsys_ms.core.errors import DataError

torch: Any = pytest.importorskip("torch", reason="torch is not installed (extra embed)")

from recsys_ms.architectures.graph import architecture_graph  # noqa: E402

nn = torch.nn


def kinds(graph: Any) -> list[str]:
    return [graph.nodes[node]["op"] for node in sorted(graph)]


class Padded(nn.Module):  # type: ignore[misc]
    """Leaves the mask out where it hides nothing, as language models do."""

    def forward(self, x: Any, mask: Any) -> Any:
        seen = mask[:, None].bool()
        if bool(seen.all()):
            return torch.relu(x)
        return torch.relu(x).masked_fill(~seen, 0.0)


def test_a_branch_on_a_mask_is_taken_as_it_runs() -> None:
    x, ones = torch.zeros(1, 3, 4), torch.ones(1, 4, dtype=torch.long)
    padded = ones.clone()
    padded[0, -1] = 0
    whole = architecture_graph(Padded(), (x, ones))
    assert kinds(whole) == ["input", "activation", "output"]
    hidden = kinds(architecture_graph(Padded(), {"x": x, "mask": padded}))
    assert "masked_fill" in hidden
    # What was given is left as it was.
    assert ones.sum() == 4
    assert padded.sum() == 3


def test_numbers_computed_from_whole_numbers_are_known() -> None:
    class Lengths(nn.Module):  # type: ignore[misc]
        def forward(self, x: Any, ids: Any) -> Any:
            last = int((ids != 0).sum(dim=-1).max().item())
            ids.add_(1)
            if ids.view(-1)[0].item() != 8:
                raise RuntimeError("what is written in place is forgotten")
            return torch.relu(x[:, :last])

    ids = torch.tensor([[7, 7, 0, 0]])
    graph = architecture_graph(Lengths(), (torch.zeros(1, 4), ids))
    (shape,) = {d["shape"] for _, d in graph.nodes(data=True) if d["op"] == "activation"}
    assert shape == (1, 2)
    assert ids.tolist() == [[7, 7, 0, 0]]


class Overwrites(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any, ids: Any) -> Any:
        view = ids[0]
        ids.copy_(x)
        return x * view.max().item()


class Looks(nn.Module):  # type: ignore[misc]
    def forward(self, x: Any, ids: Any) -> Any:
        return x if x.sum() > ids.sum() else -x


class Weighs(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 4)

    def forward(self, x: Any, ids: Any) -> Any:
        return x * self.table(ids).sum().item()


@pytest.mark.parametrize("module", [Overwrites(), Looks(), Weighs()])
def test_what_is_computed_from_data_or_weights_is_not_known(module: Any) -> None:
    with pytest.raises(DataError, match="looks at values"):
        architecture_graph(module, (torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.long)))


def test_a_constant_of_the_module_is_not_written_over() -> None:
    class Counts(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.seen = torch.zeros(4, dtype=torch.long)

        def forward(self, x: Any, ids: Any) -> Any:
            self.seen += ids[0]
            return x * self.seen

    module = Counts()
    graph = architecture_graph(module, (torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.long)))
    assert kinds(graph) == ["input", "input", "shift", "mul", "output"]
    assert module.seen.sum() == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", ["Bert", "GPT2", "DistilBert"])
def test_language_models_with_a_mask(name: str) -> None:
    transformers: Any = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes: dict[str, Any] = {
        "Bert": {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2},
        "GPT2": {"n_embd": 16, "n_head": 4, "n_layer": 2, "bos_token_id": 1, "eos_token_id": 2},
        "DistilBert": {"dim": 16, "n_heads": 4, "n_layers": 2, "hidden_dim": 32},
    }
    config = getattr(transformers, f"{name}Config")(vocab_size=50, **sizes[name])
    with torch.device("meta"):
        model = getattr(transformers, f"{name}Model")(config)
    ids = torch.zeros(1, 7, dtype=torch.long)
    masked = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with_mask, without = (architecture_graph(model, g) for g in (masked, {"input_ids": ids}))
    assert kinds(with_mask).count("attention") == 2
    wanted = {"linear", "attention", "norm"}
    layers = [[k for k in kinds(each) if k in wanted] for each in (with_mask, without)]
    assert layers[0] == layers[1]

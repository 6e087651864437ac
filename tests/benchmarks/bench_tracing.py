"""Tracing against ``torch.export``, and embedding against karateclub, in one run on one sample.

Architectures of timm that ``torch.export`` can take, drawn by seed. One thread each, and both
see the same modules without weights. Run by hand::

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/bench_tracing.py [N_MODELS] [SEED]
"""

import sys
import time
import warnings

import numpy as np
import timm
import torch

from recsys_ms.architectures.archi2vec import Archi2Vec, Archi2VecConfig
from recsys_ms.architectures.graph import architecture_graph
from recsys_ms.architectures.timm_models import without_weights
from recsys_ms.core.errors import MissingExtraError


def seconds(function, *arguments):
    """What a call gives, and how long it takes."""
    start = time.perf_counter()
    found = function(*arguments)
    return found, time.perf_counter() - start


def exported(module, image):
    """Graph of ``torch.export``, or ``None`` where it gives up."""
    try:
        return torch.export.export(module.eval(), (image,), strict=False)
    # Whatever it raises of modules that it cannot take.
    except (RuntimeError, ValueError, TypeError, AttributeError, AssertionError) as error:
        print(f"  torch.export: {type(error).__name__}", file=sys.stderr)
        return None


def embedding(graphs):
    """Fit and transform with each encoder."""
    for encoder in ("pv-dbow", "svd", "karateclub"):
        config = Archi2VecConfig(encoder=encoder, n_dims=min(64, len(graphs) - 1))
        try:
            fitted, fit = seconds(Archi2Vec(config).fit, graphs)
        except MissingExtraError as error:
            print(f"{encoder}: {error}")
            continue
        transform = seconds(fitted.transform, graphs)[1]
        print(f"{encoder:10s} {len(graphs)} graphs: fit {fit:.1f} s, transform {transform:.1f} s")


def main():
    """Print the ratios."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    n_models = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    rng = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    names = [str(name) for name in rng.permutation(timm.list_models())]
    # Loading of what both need is nobody's time.
    with without_weights():
        first = timm.create_model("test_vit")
    image = torch.empty(1, *first.pretrained_cfg["input_size"], device="meta")
    architecture_graph(first, image), exported(first, image)
    graphs, ours, theirs = [], [], []
    for name in names:
        if len(ours) == n_models:
            break
        with without_weights():
            module = timm.create_model(name)
        image = torch.empty(1, *module.pretrained_cfg["input_size"], device="meta")
        graph, own = seconds(architecture_graph, module, image)
        graphs.append(graph)
        program, other = seconds(exported, module, image)
        if program is not None:
            ours.append(own)
            theirs.append(other)
    ratio = np.array(theirs) / np.array(ours)
    print(f"{len(ours)} models: ours {np.mean(ours):.3f} s a model, torch.export ", end="")
    print(f"{np.mean(theirs):.3f} s; ratio of sums {sum(theirs) / sum(ours):.1f}, ", end="")
    print(f"median {np.median(ratio):.1f}, least {ratio.min():.1f}")
    for name in names[len(graphs) : 5 * n_models]:
        with without_weights():
            module = timm.create_model(name)
        image = torch.empty(1, *module.pretrained_cfg["input_size"], device="meta")
        graphs.append(architecture_graph(module, image))
    embedding(graphs)


if __name__ == "__main__":
    main()

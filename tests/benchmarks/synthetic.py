"""A large synthetic history with a planted low-rank answer, for speed and memory."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from recsys_ms.core import columns as c
from recsys_ms.history.quarantine import ReadBatch
from recsys_ms.history.store.schema import RUN_SCHEMA

_N_FACTORS = 4
_NOISE = 0.02


def synthetic_batches(
    n_runs: int, n_models: int, n_tasks: int, seed: int = 0, batch_rows: int = 50_000
) -> Iterator[ReadBatch]:
    """Yield ``n_runs`` runs of random (task, model) pairs, made batch by batch.

    The value is the logistic of a rank-4 score of task and model, plus a model effect and noise, so
    rankers have something to learn. Pairs may repeat: such runs have another seed.
    """
    rng = np.random.default_rng(seed)
    models = pa.array([f"arch{i % 97:02d}/model-{i:05d}" for i in range(n_models)])
    tasks = pa.array([f"task-{i:04d}" for i in range(n_tasks)])
    model_factors = rng.normal(size=(n_models, _N_FACTORS)) / np.sqrt(_N_FACTORS)
    task_factors = rng.normal(size=(n_tasks, _N_FACTORS))
    quality = rng.normal(size=n_models)
    settings = pa.array([f'{{"lr":{lr},"optimizer":"{o}"}}' for lr in (0.001, 0.01) for o in "ab"])
    for start in range(0, n_runs, batch_rows):
        n = min(batch_rows, n_runs - start)
        model = rng.integers(n_models, size=n)
        task = rng.integers(n_tasks, size=n)
        score = (model_factors[model] * task_factors[task]).sum(axis=1) + quality[model]
        value = 1.0 / (1.0 + np.exp(-score)) + rng.normal(scale=_NOISE, size=n)
        begin = 1_700_000_000_000_000 + (start + np.arange(n)) * 1_000_000
        cost = rng.uniform(10.0, 1000.0, size=n)
        times = pa.array(begin).cast(RUN_SCHEMA.field(c.STARTED_AT).type)
        known = {
            c.RUN_ID: pa.array([f"synthetic-{i:08d}" for i in range(start, start + n)]),
            c.MODEL_ID: models.take(pa.array(model)),
            c.TASK_ID: tasks.take(pa.array(task)),
            c.METRIC: pa.repeat("accuracy", n),
            c.DIRECTION: pa.repeat("max", n),
            c.VALUE: pa.array(np.clip(value, 0.0, 1.0)),
            c.SEED: pa.array(rng.integers(2**31, size=n)),
            c.HYPERPARAMETERS: settings.take(pa.array(rng.integers(4, size=n))),
            c.STATUS: pa.repeat("finished", n),
            c.COST_GPU_SECONDS: pa.array(cost),
            c.STARTED_AT: times,
            c.SOURCE: pa.repeat("synthetic", n),
            c.TAGS: pa.repeat("{}", n),
        }
        columns = [known.get(f.name, pa.nulls(n, f.type)) for f in RUN_SCHEMA]
        yield ReadBatch(runs=pa.table(columns, schema=RUN_SCHEMA))

"""Names of the columns of runs; no other module spells them out."""

from typing import Final

RUN_ID: Final = "run_id"
MODEL_ID: Final = "model_id"
MODEL_REVISION: Final = "model_revision"
TASK_ID: Final = "task_id"
METRIC: Final = "metric"
DIRECTION: Final = "direction"
VALUE: Final = "value"
VALUE_KIND: Final = "value_kind"
SPLIT: Final = "split"
EPOCH: Final = "epoch"
SEED: Final = "seed"
HYPERPARAMETERS: Final = "hyperparameters"
STATUS: Final = "status"
COST_GPU_SECONDS: Final = "cost_gpu_seconds"
STARTED_AT: Final = "started_at"
FINISHED_AT: Final = "finished_at"
DATASET_FINGERPRINT: Final = "dataset_fingerprint"
SOURCE: Final = "source"
SOURCE_VERSION: Final = "source_version"
INGESTED_AT: Final = "ingested_at"
TAGS: Final = "tags"
#: Of stored runs only: the ingest that brought a run's state, and what retracted it, if anything.
INGEST_ID: Final = "ingest_id"
RETRACTION: Final = "retraction"
#: In curves only: the optimizer step of a value.
STEP: Final = "step"

RUN_COLUMNS: Final = (
    RUN_ID,
    MODEL_ID,
    MODEL_REVISION,
    TASK_ID,
    METRIC,
    DIRECTION,
    VALUE,
    VALUE_KIND,
    SPLIT,
    EPOCH,
    SEED,
    HYPERPARAMETERS,
    STATUS,
    COST_GPU_SECONDS,
    STARTED_AT,
    FINISHED_AT,
    DATASET_FINGERPRINT,
    SOURCE,
    SOURCE_VERSION,
    INGESTED_AT,
    TAGS,
)

#: Must be given for a run; they are never guessed.
REQUIRED_COLUMNS: Final = (MODEL_ID, TASK_ID, METRIC, DIRECTION)

#: These fields identify a run when the log gives no ``run_id``.
IDENTIFYING_COLUMNS: Final = (
    MODEL_ID,
    MODEL_REVISION,
    TASK_ID,
    METRIC,
    VALUE_KIND,
    SPLIT,
    SEED,
    HYPERPARAMETERS,
    DATASET_FINGERPRINT,
    SOURCE,
    STARTED_AT,
)

"""A BERT of a few hundred weights and transformers' Trainer for it: for scripts, without a network.

Imported before torch and transformers, whose settings it makes.
"""

import os
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
warnings.simplefilter("ignore")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainingArguments,
)

torch.set_num_threads(1)


def samples(seed=0, count=8):
    rng = np.random.default_rng(seed)
    return [
        {"input_ids": torch.tensor(rng.integers(0, 16, 4)), "labels": torch.tensor(i % 2)}
        for i in range(count)
    ]


def accuracy(predicted):
    return float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())


def bert_trainer(folder, evaluated, compute_metrics, callbacks=(), **arguments):
    config = BertConfig(
        vocab_size=16,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
        max_position_embeddings=8,
    )
    settings = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=4,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        **arguments,
    )
    return Trainer(
        BertForSequenceClassification(config),
        settings,
        train_dataset=samples(),
        eval_dataset=evaluated,
        compute_metrics=compute_metrics,
        callbacks=list(callbacks),
    )

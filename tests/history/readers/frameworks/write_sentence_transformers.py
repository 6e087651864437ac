"""Evaluates a sentence encoder with random weights: python write_….py FOLDER (no network)."""

import json
import shutil
import sys
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.evaluation import (
    EmbeddingSimilarityEvaluator,
    InformationRetrievalEvaluator,
    TripletEvaluator,
)
from sentence_transformers.models import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

TEXTS = ["a red bird", "a blue bird", "a red car", "blue sky", "a fast car", "the sky"]


def encoder(folder):
    torch.manual_seed(0)
    words = sorted({word for text in TEXTS for word in text.split()})
    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    base = folder / "base"
    fast.save_pretrained(base)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
    )
    BertModel(config).save_pretrained(base)
    transformer = Transformer(str(base))
    return SentenceTransformer(modules=[transformer, Pooling(8)], device="cpu")


def main(folder):
    model = encoder(folder)
    out = folder / "output" / "eval"
    out.mkdir(parents=True)
    similarity = EmbeddingSimilarityEvaluator(
        TEXTS[:4], TEXTS[1:5], [0.9, 0.2, 0.4, 0.1], name="sts-dev"
    )
    for epoch in (0, 1):
        found = similarity(model, str(out), epoch=epoch, steps=10 * (epoch + 1))
    triplet = TripletEvaluator(TEXTS[:3], TEXTS[1:4], TEXTS[2:5], name="nli-dev")
    triplets = triplet(model, str(out), epoch=1, steps=20)
    corpus = {str(at): text for at, text in enumerate(TEXTS)}
    retrieval = InformationRetrievalEvaluator(
        {"q": "red bird"}, corpus, {"q": {"0"}}, name="birds", show_progress_bar=False
    )
    ranked = retrieval(model, str(out), epoch=1, steps=20)
    shutil.rmtree(folder / "base")
    card = "---\nbase_model: someone/tiny-bert\ntags:\n- sentence-transformers\n---\n# Model\n"
    (folder / "output" / "README.md").write_text(card)
    expected = {k: float(v) for found in (found, triplets, ranked) for k, v in found.items()}
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

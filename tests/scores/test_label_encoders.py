"""Text encoders on models that are initialised and saved here: BERT, GPT-2, RoBERTa and CLIP.

The weights are random, the libraries are not: what is tested is pooling, masking, limits, loading
and errors, none of which depends on what the weights have learnt.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from recsys_ms.core.errors import DataError, MissingExtraError, ProbeSetError, UsageError
from recsys_ms.scores.label_cache import CachedEncoder
from recsys_ms.scores.label_embeddings import (
    LabelEmbedding,
    LabelEncoder,
    label_embeddings,
    unit_rows,
)
from recsys_ms.scores.label_encoders import OpenClipEncoder, TransformersEncoder

# transformers, open_clip and torch warn of one another's deprecations.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def needs(module):
    return pytest.mark.skipif(
        importlib.util.find_spec(module) is None, reason=f"{module} is not installed (extra embed)"
    )


needs_transformers = needs("transformers")
needs_open_clip = needs("open_clip")

TEXTS = (
    "a photo of a cat.",
    "dog",
    "a photo of a dog and a cat in a photo of a dog",
    "the cat sat on the mat",
    "cat cat cat",
)
WORDS = ("a", "photo", "of", "cat", "dog", "the", "and", "sat", "on", "mat", "in", ".")
WIDTH = 8
# Float32 sums of a few dozen terms below 1 in another order.
ROUNDING = 2e-6


def save_tokenizer(folder, special, *, framed=True, pad=True):
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=special[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"unk_token": special[0]}
    if framed:
        first, last = special[2], special[3]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{first} $A {last}",
            special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])],
        )
        names |= {"cls_token": first, "sep_token": last}
    else:
        names |= {"eos_token": special[0]}
    if pad:
        names |= {"pad_token": special[1]}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    return len(vocabulary)


def save_model(folder, kind, n_words, seed=0, **settings):
    """Save a model of a kind of transformers, such as "Bert", with random weights."""
    import torch
    import transformers

    torch.manual_seed(seed)
    make_config = getattr(transformers, f"{kind}Config")
    config = make_config(vocab_size=n_words, initializer_range=0.5, **settings)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)
    return folder


BERT = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 16}


def save_bert(folder, seed=0, **settings):
    n_words = save_tokenizer(folder, ("[UNK]", "[PAD]", "[CLS]", "[SEP]"))
    sizes = {"num_hidden_layers": 2, "max_position_embeddings": 16}
    return save_model(folder, "Bert", n_words, seed, **BERT, **sizes, **settings)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-gpt2"
    n_words = save_tokenizer(folder, ("<|endoftext|>",), framed=False, pad=False)
    sizes = {"n_embd": WIDTH, "n_layer": 2, "n_head": 2, "n_positions": 16}
    return save_model(folder, "GPT2", n_words, **sizes, bos_token_id=0, eos_token_id=0)


@pytest.fixture(scope="module")
def roberta(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny-roberta"
    n_words = save_tokenizer(folder, ("<unk>", "<pad>", "<s>", "</s>"))
    # Eight tokens: two positions lie before the first.
    sizes = {"num_hidden_layers": 1, "max_position_embeddings": 10, "pad_token_id": 1}
    return save_model(folder, "Roberta", n_words, **BERT, **sizes)


CLIP_CONFIG = {
    "embed_dim": WIDTH,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 8, "head_width": 8},
    "text_cfg": {
        "context_length": 12,
        "vocab_size": 49408,
        "width": 16,
        "heads": 2,
        "layers": 2,
    },
}


def save_clip(folder):
    """Folder of a CLIP model; beside it the same weights as a file, and other weights."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": {}})
    )
    wider = CLIP_CONFIG | {"text_cfg": CLIP_CONFIG["text_cfg"] | {"width": 24}}
    for name, config in (("tiny-test-clip", CLIP_CONFIG), ("tiny-test-wide", wider)):
        architecture = folder.parent / f"{name}.json"
        architecture.write_text(json.dumps(config))
        open_clip.add_model_config(architecture)
    for seed, path in enumerate((folder.parent / "weights.pt", folder.parent / "other.pt")):
        torch.manual_seed(seed)
        torch.save(open_clip.create_model("tiny-test-clip").state_dict(), path)
    weights = torch.load(folder.parent / "weights.pt")
    save_file(weights, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return save_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


def hidden_states(folder, text):
    """Last layer of a model for one text alone, without padding and without a mask."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    with torch.no_grad():
        output = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids]))
    return output.last_hidden_state[0].double().numpy()


def unit(vector):
    return vector / np.linalg.norm(vector)


@needs_transformers
class TestClosedForms:
    @pytest.mark.parametrize("model", ["bert", "gpt2", "roberta"])
    def test_mean_is_the_mean_of_all_tokens_of_the_text_alone(self, model, request):
        folder = request.getfixturevalue(model)
        short = TEXTS[:2] if model == "roberta" else TEXTS
        expected = [unit(hidden_states(folder, text).mean(axis=0)) for text in short]
        np.testing.assert_allclose(
            TransformersEncoder(folder).encode(short), expected, atol=ROUNDING
        )

    def test_cls_is_the_first_token(self, bert):
        expected = [unit(hidden_states(bert, text)[0]) for text in TEXTS]
        encoded = TransformersEncoder(bert, pooling="cls").encode(TEXTS)
        np.testing.assert_allclose(encoded, expected, atol=ROUNDING)

    @pytest.mark.parametrize("model", ["bert", "gpt2"])
    def test_last_is_the_last_token_of_the_text_not_of_the_batch(self, model, request):
        folder = request.getfixturevalue(model)
        expected = [unit(hidden_states(folder, text)[-1]) for text in TEXTS]
        encoded = TransformersEncoder(folder, pooling="last").encode(TEXTS)
        np.testing.assert_allclose(encoded, expected, atol=ROUNDING)

    def test_gpt2_needs_no_padding_token(self, gpt2):
        from transformers import AutoTokenizer

        assert AutoTokenizer.from_pretrained(gpt2).pad_token is None
        assert TransformersEncoder(gpt2, "last").encode(["cat", "a cat"]).shape == (2, WIDTH)

    @needs_open_clip
    def test_clip_is_the_text_tower(self, clip):
        import open_clip
        import torch

        model = open_clip.create_model(f"local-dir:{clip}").eval()
        tokens = open_clip.get_tokenizer(f"local-dir:{clip}")(list(TEXTS))
        with torch.no_grad():
            expected = model.encode_text(tokens, normalize=True).numpy()
        np.testing.assert_allclose(OpenClipEncoder(clip).encode(TEXTS), expected, atol=ROUNDING)


def encoders_of(request):
    yield TransformersEncoder(request.getfixturevalue("bert"), "mean", batch_size=2)
    yield TransformersEncoder(request.getfixturevalue("bert"), "cls", batch_size=2)
    yield TransformersEncoder(request.getfixturevalue("gpt2"), "last", batch_size=2)
    yield TransformersEncoder(request.getfixturevalue("gpt2"), "mean", batch_size=2)
    if importlib.util.find_spec("open_clip") is not None:
        yield OpenClipEncoder(request.getfixturevalue("clip"), batch_size=2)


@needs_transformers
class TestProperties:
    def test_a_text_does_not_depend_on_its_batch(self, request):
        for encoder in encoders_of(request):
            whole = encoder.encode(TEXTS)
            backwards = encoder.encode(TEXTS[::-1])[::-1]
            alone = np.concatenate([encoder.encode([text]) for text in TEXTS])
            encoder.batch_size = 64
            together = encoder.encode(TEXTS)
            for other in (backwards, alone, together):
                np.testing.assert_allclose(other, whole, atol=ROUNDING, err_msg=encoder.name)

    def test_rows_are_float32_of_length_one_and_tell_texts_apart(self, request):
        for encoder in encoders_of(request):
            vectors = encoder.encode(TEXTS)
            assert vectors.dtype == np.float32
            assert vectors.shape == (len(TEXTS), encoder.width) == (len(TEXTS), WIDTH)
            # A float32 has 24 bits, and a row 8 numbers.
            np.testing.assert_allclose(np.linalg.norm(vectors.astype(float), axis=1), 1, atol=1e-6)
            assert np.unique(vectors.round(3), axis=0).shape[0] == len(TEXTS)

    def test_twice_the_same(self, request):
        for encoder, again in zip(encoders_of(request), encoders_of(request), strict=True):
            first = encoder.encode(TEXTS)
            assert np.array_equal(encoder.encode(TEXTS), first)
            assert np.array_equal(again.encode(TEXTS), first)
            assert again.fingerprint == encoder.fingerprint

    def test_dropout_is_off(self, tmp_path):
        folder = save_bert(tmp_path / "bert", hidden_dropout_prob=0.9)
        encoder = TransformersEncoder(folder)
        assert np.array_equal(encoder.encode(TEXTS), encoder.encode(TEXTS))

    def test_half_precision_weights_are_run_in_float32(self, bert, tmp_path):
        from transformers import AutoModel

        folder = shutil.copytree(bert, tmp_path / "half")
        AutoModel.from_pretrained(bert).half().save_pretrained(folder)
        # Half precision keeps 11 bits of each weight; two layers add up a few of these errors.
        np.testing.assert_allclose(
            TransformersEncoder(folder).encode(TEXTS),
            TransformersEncoder(bert).encode(TEXTS),
            atol=2e-2,
        )

    def test_fingerprints_tell_weights_pooling_and_length_apart(self, bert, tmp_path):
        other = save_bert(tmp_path / "tiny-bert", seed=1)
        encoders = [
            TransformersEncoder(bert),
            TransformersEncoder(other),
            TransformersEncoder(bert, "cls", name="tiny-bert/mean"),
            TransformersEncoder(bert, max_length=4),
            TransformersEncoder(bert, name="x"),
        ]
        assert encoders[0].name == encoders[1].name == encoders[2].name
        assert len({encoder.fingerprint for encoder in encoders}) == len(encoders)

    def test_a_vocabulary_is_part_of_the_fingerprint(self, bert, tmp_path):
        moved = shutil.copytree(bert, tmp_path / "tiny-bert")
        assert TransformersEncoder(moved).fingerprint == TransformersEncoder(bert).fingerprint
        vocabulary = moved / "tokenizer.json"
        vocabulary.write_text(vocabulary.read_text().replace('"cat"', '"cow"'))
        assert TransformersEncoder(moved).fingerprint != TransformersEncoder(bert).fingerprint


@needs_transformers
class TestLimits:
    def test_long_texts_are_cut_where_the_model_ends(self, bert, gpt2, roberta):
        for folder, n_tokens in ((bert, 14), (gpt2, 16), (roberta, 6)):
            encoder = TransformersEncoder(folder)
            filled = " ".join(["cat"] * n_tokens)
            longer = filled + " dog" * 40
            vectors = encoder.encode([filled, longer, "dog"])
            np.testing.assert_allclose(vectors[1], vectors[0], atol=ROUNDING)

    def test_texts_that_are_cut_are_told(self, request, caplog):
        for encoder in encoders_of(request):
            encoder.encode(TEXTS[1:2] * 3)
            assert not caplog.records
            encoder.encode([TEXTS[1], "cat " * 30])
            assert "1 of 2 texts fill the 1" in caplog.text
            caplog.clear()

    def test_max_length(self, gpt2):
        encoder = TransformersEncoder(gpt2, "last", max_length=2)
        vectors = encoder.encode(["a cat", "a cat sat on the mat"])
        np.testing.assert_allclose(vectors[1], vectors[0], atol=ROUNDING)

    @needs_open_clip
    def test_clip_cuts_too(self, clip):
        filled = " ".join(["cat"] * 10)
        vectors = OpenClipEncoder(clip).encode([filled, filled + " dog"])
        np.testing.assert_allclose(vectors[1], vectors[0], atol=ROUNDING)

    def test_a_text_without_tokens(self, gpt2, tmp_path):
        folder = shutil.copytree(gpt2, tmp_path / "gpt2")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "?"}, "content": ""}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(ProbeSetError, match="no token"):
            TransformersEncoder(folder).encode(["cat", "?"])

    @pytest.mark.parametrize("texts", [[], [""], "cat", [None], ["\ud800"]])
    def test_what_is_no_text(self, bert, texts):
        with pytest.raises(ProbeSetError):
            TransformersEncoder(bert).encode(texts)

    def test_cls_of_a_model_without_one(self, gpt2):
        with pytest.raises(UsageError, match="no \\[CLS\\]"):
            TransformersEncoder(gpt2, "cls").encode(["cat"])

    @pytest.mark.parametrize(
        "options", [{"pooling": "max"}, {"batch_size": 0}, {"max_length": 0}], ids=str
    )
    def test_options(self, bert, options):
        with pytest.raises(UsageError):
            TransformersEncoder(bert, **options)


@needs_transformers
class TestLoading:
    def test_nothing_is_read_before_it_is_needed(self, tmp_path):
        encoder = TransformersEncoder(tmp_path / "absent")
        assert encoder.name == "absent/mean"

    @pytest.mark.parametrize("source", ["./absent", "/absent/bert", "~/absent", Path("absent")])
    def test_a_folder_that_is_not_there(self, source):
        with pytest.raises(UsageError, match="is not a folder"):
            TransformersEncoder(source).encode(["cat"])

    def test_a_folder_without_weights(self, bert, tmp_path):
        folder = shutil.copytree(bert, tmp_path / "bert")
        (folder / "model.safetensors").unlink()
        with pytest.raises(UsageError, match="holds no weights"):
            TransformersEncoder(folder).encode(["cat"])

    def test_damaged_weights(self, bert, tmp_path):
        folder = shutil.copytree(bert, tmp_path / "bert")
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DataError, match="cannot be read as a model"):
            TransformersEncoder(folder).encode(["cat"])

    @pytest.mark.parametrize("lost", ["config.json", "tokenizer.json", "tokenizer*"])
    def test_a_folder_that_lacks_a_part(self, bert, tmp_path, lost):
        folder = shutil.copytree(bert, tmp_path / "bert")
        for path in folder.glob(lost):
            path.unlink()
        with pytest.raises(DataError):
            TransformersEncoder(folder).encode(["cat"])

    def test_weights_that_lack_a_layer_are_not_drawn_at_random(self, bert, tmp_path):
        from safetensors.numpy import load_file, save_file

        folder = shutil.copytree(bert, tmp_path / "bert")
        weights = load_file(folder / "model.safetensors")
        poolerless = {key: value for key, value in weights.items() if "pooler" not in key}
        save_file(poolerless, folder / "model.safetensors", metadata={"format": "pt"})
        assert np.array_equal(
            TransformersEncoder(folder).encode(TEXTS), TransformersEncoder(bert).encode(TEXTS)
        )
        partial = {key: value for key, value in poolerless.items() if "layer.1" not in key}
        save_file(partial, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match=r"parameters are missing"):
            TransformersEncoder(folder).encode(["cat"])

    def test_a_tokenizer_of_another_model(self, bert, gpt2, tmp_path):
        folder = shutil.copytree(bert, tmp_path / "bert")
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        tokenizer["model"]["vocab"]["cat"] = 999
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        with pytest.raises(DataError, match="belong together"):
            TransformersEncoder(folder).encode(["a cat"])

    def test_models_of_two_streams_are_refused(self, bert, tmp_path):
        from transformers import T5Config

        folder = shutil.copytree(bert, tmp_path / "t5")
        T5Config(d_model=WIDTH).save_pretrained(folder)
        with pytest.raises(UsageError, match="single stream"):
            TransformersEncoder(folder).encode(["cat"])

    def test_older_weights_format(self, bert, tmp_path):
        import torch
        from safetensors.torch import load_file

        folder = shutil.copytree(bert, tmp_path / "bert")
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert np.array_equal(
            TransformersEncoder(folder).encode(TEXTS), TransformersEncoder(bert).encode(TEXTS)
        )

    @pytest.mark.parametrize("content", ["[]", "{", ""])
    def test_settings_that_are_none(self, bert, tmp_path, content):
        folder = shutil.copytree(bert, tmp_path / "bert")
        (folder / "config.json").write_text(content)
        with pytest.raises(DataError, match=r"config\.json"):
            TransformersEncoder(folder).encode(["cat"])

    def test_a_width_under_another_name(self, bert, tmp_path):
        from transformers import DistilBertConfig, DistilBertModel

        folder = shutil.copytree(bert, tmp_path / "distilbert")
        config = DistilBertConfig(vocab_size=16, dim=WIDTH, n_layers=1, n_heads=2, hidden_dim=8)
        DistilBertModel(config).save_pretrained(folder)
        encoder = TransformersEncoder(folder)
        assert encoder.width == WIDTH
        expected = [unit(hidden_states(folder, text).mean(axis=0)) for text in TEXTS]
        np.testing.assert_allclose(encoder.encode(TEXTS), expected, atol=ROUNDING)

    def test_weights_with_nan(self, bert, tmp_path):
        from safetensors.numpy import load_file, save_file

        folder = shutil.copytree(bert, tmp_path / "bert")
        weights = load_file(folder / "model.safetensors")
        weights["embeddings.word_embeddings.weight"][:] = np.nan
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(DataError, match="squared length nan"):
            TransformersEncoder(folder).encode(["cat"])


@needs_open_clip
class TestOpenClip:
    def test_an_architecture_with_a_file_is_the_folder(self, clip):
        expected = OpenClipEncoder(clip).encode(TEXTS)
        for weights in (clip / "open_clip_model.safetensors", str(clip.parent / "weights.pt")):
            encoder = OpenClipEncoder("tiny-test-clip", weights)
            assert np.array_equal(encoder.encode(TEXTS), expected)
        assert np.array_equal(OpenClipEncoder(f"local-dir:{clip}").encode(TEXTS), expected)
        assert np.array_equal(OpenClipEncoder(str(clip)).encode(TEXTS), expected)

    def test_other_weights_of_the_same_name(self, clip):
        one = OpenClipEncoder("tiny-test-clip", clip.parent / "weights.pt", name="clip")
        other = OpenClipEncoder("tiny-test-clip", clip.parent / "other.pt", name="clip")
        assert one.fingerprint != other.fingerprint
        assert not np.allclose(one.encode(TEXTS), other.encode(TEXTS), atol=0.01)

    def test_names(self, clip):
        assert OpenClipEncoder(clip).name == "tiny-clip"
        assert OpenClipEncoder("ViT-B-32", "laion2b_e16").name == "ViT-B-32/laion2b_e16"
        assert OpenClipEncoder("ViT-B-32", "/w/mine.pt").name == "ViT-B-32/mine"
        assert OpenClipEncoder("hf-hub:owner/clip").name == "owner/clip"

    def test_random_weights_are_not_taken(self, clip):
        with pytest.raises(UsageError, match="random"):
            OpenClipEncoder("ViT-B-32")
        with pytest.raises(UsageError, match="brings its own"):
            OpenClipEncoder(clip, "laion2b_e16")
        with pytest.raises(UsageError, match="brings its own"):
            OpenClipEncoder("hf-hub:owner/clip", "laion2b_e16")

    def test_what_open_clip_does_not_know(self, tmp_path):
        with pytest.raises(UsageError, match="does not know this architecture"):
            OpenClipEncoder("ViT-Z-99", tmp_path / "x.pt").encode(["cat"])
        with pytest.raises(UsageError, match="laion2b_e16"):
            OpenClipEncoder("ViT-B-32", "absent").encode(["cat"])
        with pytest.raises(UsageError, match="neither a file nor a tag"):
            OpenClipEncoder("ViT-B-32", tmp_path / "laion2b_e16").encode(["cat"])
        with pytest.raises(UsageError, match="holds no weights"):
            OpenClipEncoder(tmp_path).encode(["cat"])

    def test_activations_that_do_not_fit_the_tag(self):
        with pytest.raises(UsageError, match=re.escape("with '-quickgelu'")):
            OpenClipEncoder("ViT-B-32", "openai").encode(["cat"])

    def test_damaged_weights(self, clip, tmp_path):
        whole = (clip.parent / "weights.pt").read_bytes()
        for content in (whole[: len(whole) // 2], b"", b"not weights"):
            (tmp_path / "weights.pt").write_bytes(content)
            with pytest.raises(DataError, match="cannot be read as a model"):
                OpenClipEncoder("tiny-test-clip", tmp_path / "weights.pt").encode(["cat"])

    def test_a_vocabulary_of_its_own(self, clip, bert, tmp_path):
        folder = shutil.copytree(clip, tmp_path / "clip")
        text = CLIP_CONFIG["text_cfg"] | {"hf_tokenizer_name": "owner/absent"}
        (folder / "open_clip_config.json").write_text(
            json.dumps({"model_cfg": CLIP_CONFIG | {"text_cfg": text}})
        )
        with pytest.raises(DataError, match="no vocabulary"):
            OpenClipEncoder(folder).encode(TEXTS)
        for path in bert.glob("tokenizer*"):
            shutil.copy(path, folder)
        vectors = OpenClipEncoder(folder).encode(["cat", "dog"])
        assert not np.allclose(vectors[0], vectors[1], atol=0.01)

    def test_settings_without_a_width(self, clip, tmp_path):
        folder = shutil.copytree(clip, tmp_path / "clip")
        for content in ("{}", "[]", '{"model_cfg": {}}', '{"model_cfg": 3}'):
            (folder / "open_clip_config.json").write_text(content)
            with pytest.raises(DataError):
                OpenClipEncoder(folder).encode(TEXTS)

    def test_weights_of_another_architecture(self, clip):
        with pytest.raises(DataError, match="cannot be read as a model"):
            OpenClipEncoder("tiny-test-wide", clip.parent / "weights.pt").encode(["cat"])


def run(script, **environment):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
    )


def hub_cache(folder, name, model):
    """Cache of the hub as a download leaves it."""
    repository = folder / "hub" / ("models--" + name.replace("/", "--"))
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(model, repository / "snapshots" / ("0" * 40))
    return {"HF_HOME": str(folder), "HF_HUB_CACHE": str(folder / "hub")}


@needs_transformers
class TestHub:
    def test_names_in_the_cache_need_no_network_and_others_are_told(self, bert, tmp_path, request):
        cached = hub_cache(tmp_path, "owner/tiny", bert)
        models = {str(bert): ("TransformersEncoder", "owner/tiny")}
        if importlib.util.find_spec("open_clip") is not None:
            clip = request.getfixturevalue("clip")
            hub_cache(tmp_path, "owner/clip", clip)
            models[str(clip)] = ("OpenClipEncoder", "hf-hub:owner/clip")
        names = ["gpt2", "owner/absent", "not//a name"]
        tags = ["laion2b_s34b_b79k"] * (importlib.util.find_spec("open_clip") is not None)
        done = run(
            f"""
            import numpy as np
            from recsys_ms.scores import label_encoders
            for folder, (kind, name) in {models!r}.items():
                encoder = getattr(label_encoders, kind)
                here, there = encoder(folder), encoder(name)
                assert np.array_equal(here.encode(["a cat"]), there.encode(["a cat"])), name

            from recsys_ms.core.errors import UsageError
            from recsys_ms.scores.label_encoders import OpenClipEncoder, TransformersEncoder
            encoders = [TransformersEncoder(name) for name in {names!r}]
            encoders += [OpenClipEncoder("ViT-B-32", tag) for tag in {tags!r}]
            for encoder in encoders:
                try:
                    encoder.encode(["cat"])
                except UsageError as error:
                    assert "no weights in the cache" in str(error), error
                else:
                    raise AssertionError(encoder.name)
            """,
            **cached,
            HF_HUB_OFFLINE="1",
        )
        assert done.returncode == 0, done.stderr


class TestImports:
    def test_modules_import_no_heavy_library(self):
        done = run(
            """
            import sys
            from recsys_ms.scores import label_cache, label_encoders, label_texts
            label_encoders.TransformersEncoder("bert-base-uncased")
            label_encoders.OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k")
            heavy = {"torch", "transformers", "open_clip", "huggingface_hub"} & set(sys.modules)
            assert not heavy, heavy
            """
        )
        assert done.returncode == 0, done.stderr

    def test_a_missing_library_is_named_with_its_extra(self, monkeypatch, tmp_path):
        (tmp_path / "model.safetensors").touch()
        (tmp_path / "config.json").write_text('{"hidden_size": 8}')
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(MissingExtraError, match=re.escape("recsys-ms[embed]")):
            TransformersEncoder(tmp_path).encode(["cat"])
        monkeypatch.setitem(sys.modules, "open_clip", None)
        with pytest.raises(MissingExtraError, match="open_clip"):
            assert OpenClipEncoder("ViT-B-32", "laion2b_s34b_b79k").width


class Hashing(LabelEncoder):
    """Unit vectors from texts without a library."""

    name = "hashing"
    width = 3
    fingerprint = "hashing"

    def __init__(self, name="hashing"):
        self.name = name
        self.asked = []

    def encode(self, texts):
        self.asked.append(tuple(texts))
        rows = np.array([[len(text), ord(text[0]), ord(text[-1])] for text in texts], np.float32)
        return unit_rows(rows, list(texts), self.name)


class TestLabelEmbeddings:
    texts = ("b", "a", "b", "cc")

    def test_each_distinct_text_is_embedded_once(self):
        encoder = Hashing()
        (embedding,) = label_embeddings(self.texts, [encoder])
        assert encoder.asked == [("b", "a", "cc")]
        assert (embedding.n_probe, embedding.n_distinct, embedding.width) == (4, 3, 3)
        assert embedding.codes.dtype == np.int64
        dense = embedding.vectors[embedding.codes]
        assert np.array_equal(dense, Hashing().encode(self.texts))

    def test_one_hot_times_vectors(self):
        (embedding,) = label_embeddings(self.texts, [Hashing()])
        one_hot = np.eye(embedding.n_distinct)[embedding.codes]
        assert np.array_equal(one_hot @ embedding.vectors, embedding.vectors[embedding.codes])

    @needs_transformers
    def test_real_encoders_in_their_order(self, bert, gpt2, tmp_path):
        encoders = [
            CachedEncoder(TransformersEncoder(bert, "cls"), tmp_path),
            TransformersEncoder(gpt2, "last"),
        ]
        embeddings = label_embeddings(TEXTS[:2] + TEXTS[:1], encoders)
        assert [item.name for item in embeddings] == ["tiny-bert/cls", "tiny-gpt2/last"]
        assert embeddings[0].codes.tolist() == [0, 1, 0]
        for item, encoder in zip(embeddings, encoders, strict=True):
            assert np.array_equal(item.vectors, encoder.encode(TEXTS[:2]))

    def test_names_are_told_apart(self):
        with pytest.raises(UsageError, match="no name twice"):
            label_embeddings(self.texts, [Hashing(), Hashing()])
        with pytest.raises(UsageError, match="at least one"):
            label_embeddings(self.texts, [])
        assert len(label_embeddings(self.texts, [Hashing("a"), Hashing("b")])) == 2

    @pytest.mark.parametrize(
        "broken",
        [
            lambda vectors: vectors * 2,
            lambda vectors: vectors.astype(float),
            lambda vectors: vectors[:-1],
            lambda vectors: vectors[:, :2],
            lambda vectors: vectors * np.nan,
            lambda vectors: vectors.tolist(),
        ],
    )
    def test_encoders_that_break_their_word(self, broken):
        class Broken(Hashing):
            def encode(self, texts):
                return broken(super().encode(texts))

        with pytest.raises(DataError):
            label_embeddings(self.texts, [Broken()])

    @pytest.mark.parametrize(
        ("vectors", "codes"),
        [
            (np.ones((2, 3)), [0, 1]),
            (np.ones(3, np.float32), [0]),
            (np.full((1, 3), np.nan, np.float32), [0]),
            (np.ones((2, 3), np.float32), [0, 2]),
            (np.ones((2, 3), np.float32), [-1, 0]),
            (np.ones((2, 3), np.float32), [0.0, 1.0]),
            (np.ones((2, 3), np.float32), [[0, 1]]),
            (np.ones((2, 3), np.float32), np.zeros(0, np.int64)),
        ],
    )
    def test_what_is_no_embedding(self, vectors, codes):
        with pytest.raises(ProbeSetError):
            LabelEmbedding("x", vectors, np.asarray(codes))

    def test_rows_that_have_no_direction(self):
        with pytest.raises(DataError, match="'b'"):
            unit_rows(np.array([[1, 0], [0, 0]], np.float32), ["a", "b"], "x")
        # Squares of these leave float32, not float64.
        tiny = unit_rows(np.array([[3e-30, 4e-30]], np.float32), ["a"], "x")
        np.testing.assert_allclose(tiny, [[0.6, 0.8]], rtol=1e-6)

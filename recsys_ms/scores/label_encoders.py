"""Text towers of foundation models: open_clip, and BERT or GPT-2 through transformers.

The libraries are imported when a model is first used (extra ``embed``). Models run in evaluation
mode, without gradients, in float32.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

from recsys_ms.core.errors import DataError, ProbeSetError, UsageError
from recsys_ms.core.files import sha256_file
from recsys_ms.core.types import JsonDict
from recsys_ms.scores.label_embeddings import LabelEncoder, TorchEncoder
from recsys_ms.scores.label_weights import (
    FOLDER,
    HUB,
    check_vocabulary,
    fingerprint,
    folder_digest,
    model_folder,
    read_settings,
    reading,
    short_name,
)

__all__ = ["LabelEncoder", "OpenClipEncoder", "Pooling", "TransformersEncoder"]

Pooling = Literal["mean", "cls", "last"]


class TransformersEncoder(TorchEncoder):
    """A model of ``transformers`` with one stream of tokens: BERT, RoBERTa, GPT-2 and the like.

    Parameters
    ----------
    source : str or Path
        Folder that ``save_pretrained`` wrote (model and tokenizer), or a name on the Hugging Face
        hub. A folder is read without network.
    pooling : {"mean", "cls", "last"}
        How tokens become the embedding: the mean of the last layer over all tokens of the text,
        special tokens included and padding left out (the published EMMS averages padding too, so
        that its embeddings depend on the batch); the first token, where it is a [CLS] (BERT); the
        last token, the only one that has read the whole text in a causal model (GPT-2).
    name : str, optional
        Default: the source's name and the pooling, such as ``"gpt2/last"``.
    max_length : int, optional
        Tokens that are read, if fewer than the model can; later ones are cut off.
    batch_size : int
        Texts in a batch. Padding is masked: a result depends on the batch by the rounding of
        float32 alone.
    device : str
        A torch device.
    """

    def __init__(
        self,
        source: str | Path,
        pooling: Pooling = "mean",
        *,
        name: str | None = None,
        max_length: int | None = None,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        if pooling not in get_args(Pooling):
            raise UsageError(f"pooling={pooling!r}: expected one of {', '.join(get_args(Pooling))}")
        if max_length is not None and max_length < 1:
            raise UsageError(f"max_length={max_length}: expected at least 1")
        super().__init__(name or f"{short_name(source)}/{pooling}", batch_size, device)
        self.source = source
        self.pooling: Pooling = pooling
        self.max_length = max_length

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding; known without torch and the weights."""
        settings = read_settings(self._folder, "config.json")
        width = settings.get("hidden_size", settings.get("n_embd"))
        if width is None:
            # Some kinds of models have a name of their own for it.
            width = getattr(self._config, "hidden_size", None)
        if not isinstance(width, int) or settings.get("is_encoder_decoder", False):
            raise UsageError(
                f"{self.source}: a model of type {settings.get('model_type')!r} has no single "
                "stream of tokens; pass an encoder such as BERT, or a decoder such as GPT-2"
            )
        return width

    @cached_property
    def fingerprint(self) -> str:
        """Digest of weights, vocabulary, pooling and length; computed without loading the model."""
        return fingerprint(
            type(self).__name__,
            self.name,
            pooling=self.pooling,
            max_length=self.max_length,
            weights=folder_digest(self._folder),
        )

    @cached_property
    def _folder(self) -> Path:
        return model_folder(self.source)

    def _read(self, kind: str, **options: Any) -> Any:
        with reading(str(self.source)):
            reader = getattr(self._require("transformers"), kind)
            return reader.from_pretrained(self._folder, local_files_only=True, **options)

    @cached_property
    def _config(self) -> Any:
        return self._read("AutoConfig")

    @cached_property
    def _tokenizer(self) -> Any:
        check_vocabulary(self._folder)
        return self._read("AutoTokenizer")

    @cached_property
    def _model(self) -> Any:
        model, info = self._read("AutoModel", output_loading_info=True)
        # transformers draws missing weights at random and goes on. Poolers are not used here, and
        # many checkpoints have none.
        missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
        if missing:
            raise DataError(
                f"{self.source}: {len(missing)} parameters are missing from its weights, such as "
                f"{missing[0]}; pass the checkpoint that belongs to the configuration"
            )
        return model.float().to(self.device).eval()

    @cached_property
    def _limit(self) -> int | None:
        """Tokens that the model can read."""
        limits = [self._tokenizer.model_max_length, self.max_length]
        positions = getattr(self._config, "max_position_embeddings", None)
        if positions is not None:
            # RoBERTa counts positions from behind its padding index.
            skipped = [
                padding + 1
                for path, module in self._model.named_modules()
                if path.endswith("position_embeddings")
                and (padding := getattr(module, "padding_idx", None)) is not None
            ]
            limits.append(positions - max(skipped, default=0))
        # A tokenizer without a limit says so with an absurd one.
        known = [limit for limit in limits if limit is not None and limit < 10**9]
        return int(min(known)) if known else None

    def _tokens(self, texts: tuple[str, ...]) -> list[list[int]]:
        listed: list[list[int]] = self._tokenizer(
            list(texts),
            padding=False,
            truncation=self._limit is not None,
            max_length=self._limit,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]
        first = self._tokenizer.cls_token_id
        for text, tokens in zip(texts, listed, strict=True):
            if not tokens:
                raise ProbeSetError(
                    f"{self.name}: {text!r} has no token in its vocabulary; drop the example, or "
                    "write the label in other words"
                )
            if self.pooling == "cls" and (first is None or tokens[0] != first):
                raise UsageError(
                    f"pooling='cls': {self.source} puts no [CLS] before a text; pass 'mean', or "
                    "'last' for a causal model"
                )
        if self._limit is not None:
            n_full = sum(len(tokens) == self._limit for tokens in listed)
            self._tell_full(n_full, len(listed), self._limit)
        return listed

    def _forward(self, torch: Any, tokens: list[list[int]]) -> Any:
        n_known = self._model.get_input_embeddings().num_embeddings
        if max(map(max, tokens)) >= n_known:
            raise DataError(
                f"{self.source}: its tokenizer has more than the {n_known} tokens of the model; "
                "save the two that belong together"
            )
        lengths = torch.tensor([len(row) for row in tokens], device=self.device)
        longest = int(lengths.max())
        # GPT-2 has no padding token. Any will do behind the text: it is masked, and never pooled.
        filler = self._tokenizer.pad_token_id or 0
        ids = [row + [filler] * (longest - len(row)) for row in tokens]
        mask = torch.arange(longest, device=self.device) < lengths[:, None]
        hidden = self._model(
            input_ids=torch.tensor(ids, device=self.device), attention_mask=mask.long()
        ).last_hidden_state
        if self.pooling == "cls":
            return hidden[:, 0]
        if self.pooling == "last":
            return hidden[torch.arange(len(tokens), device=self.device), lengths - 1]
        return torch.where(mask[:, :, None], hidden, 0.0).sum(dim=1) / lengths[:, None]


class OpenClipEncoder(TorchEncoder):
    """Text tower of a CLIP model of ``open_clip``; the image tower is dropped after loading.

    It reads as many tokens as it has positions, usually 77; later ones are cut off.

    Parameters
    ----------
    model : str or Path
        An architecture that open_clip knows (``"ViT-B-32"``), a folder with
        ``open_clip_config.json`` and weights, or ``"hf-hub:owner/name"``.
    pretrained : str or Path, optional
        Weights of an architecture: a file, or a tag of open_clip (``"laion2b_s34b_b79k"``), which
        is fetched unless it is in the cache. Left out for a folder or a name on the hub.
    name : str, optional
        Default: the model's name, and the tag or the file's stem.
    batch_size : int
        Texts in a batch.
    device : str
        A torch device.
    """

    def __init__(
        self,
        model: str | Path,
        pretrained: str | Path | None = None,
        *,
        name: str | None = None,
        batch_size: int = 64,
        device: str = "cpu",
    ) -> None:
        self._in_folder = (
            isinstance(model, Path)
            or model.startswith((HUB, FOLDER, "/", ".", "~"))
            or Path(model).is_dir()
        )
        if self._in_folder == (pretrained is not None):
            raise UsageError(
                f"model={str(model)!r}, pretrained={pretrained!r}: a folder or name on the hub "
                "brings its own weights, an architecture needs pretrained= a file or tag; without "
                "weights the embeddings would be random"
            )
        parts = [short_name(model)] + ([] if pretrained is None else [Path(pretrained).stem])
        super().__init__(name or "/".join(parts), batch_size, device)
        self.model = model
        self.pretrained = pretrained

    @cached_property
    def width(self) -> int:
        """Numbers in an embedding; known without the weights, of a folder without torch."""
        with reading(str(self.model)):
            return int(self._settings["embed_dim"])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of architecture and weights; computed without loading the model."""
        kind = type(self).__name__
        architecture = None if self._in_folder else self._model_name
        weights = (
            folder_digest(self._folder) if architecture is None else sha256_file(self._checkpoint)
        )
        return fingerprint(kind, self.name, architecture=architecture, weights=weights)

    @cached_property
    def _folder(self) -> Path:
        source = str(self.model)
        if source.startswith(HUB):
            return model_folder(source.removeprefix(HUB))
        return model_folder(Path(source.removeprefix(FOLDER)))

    @cached_property
    def _settings(self) -> JsonDict:
        if self._in_folder:
            settings = read_settings(self._folder, "open_clip_config.json")
            return dict(settings.get("model_cfg", settings))
        return dict(self._require("open_clip").get_model_config(self._model_name))

    @cached_property
    def _model_name(self) -> str:
        if self._in_folder:
            return f"{FOLDER}{self._folder}"
        name = str(self.model).replace("/", "-")
        if self._require("open_clip").get_model_config(name) is None:
            raise UsageError(
                f"model={str(self.model)!r}: open_clip does not know this architecture, see "
                "open_clip.list_models(); write hf-hub:owner/name for a name on the hub"
            )
        return name

    @cached_property
    def _checkpoint(self) -> Path:
        """File of an architecture's weights."""
        path = Path(str(self.pretrained)).expanduser()
        if path.is_file():
            return path
        tags = self._require("open_clip").list_pretrained_tags_by_model(self._model_name)
        tag = self._require("open_clip").get_pretrained_cfg(self._model_name, str(self.pretrained))
        if isinstance(self.pretrained, Path) or not tag:
            raise UsageError(
                f"pretrained={str(self.pretrained)!r}: is neither a file nor a tag of "
                f"{self._model_name} ({', '.join(tags) or 'it has none'})"
            )
        quick = bool(tag.get("quick_gelu", False))
        if quick != bool(self._settings.get("quick_gelu", False)):
            raise UsageError(
                f"pretrained={self.pretrained!r}: was trained {'with' if quick else 'without'} "
                f"QuickGELU, unlike {self._model_name}; pass the model "
                f"{'with' if quick else 'without'} '-quickgelu' in its name"
            )
        try:
            return Path(self._require("open_clip").download_pretrained(tag))
        except (OSError, RuntimeError, ValueError) as error:
            raise UsageError(
                f"{self.name}: no weights in the cache, and the download failed "
                f"({type(error).__name__}); pass pretrained= a file, or run once with a network"
            ) from error

    @cached_property
    def _tokenizer(self) -> Any:
        with reading(str(self.model)):
            if self._in_folder and self._settings["text_cfg"].get("hf_tokenizer_name"):
                check_vocabulary(self._folder)
            return self._require("open_clip").get_tokenizer(self._model_name)

    @cached_property
    def _model(self) -> Any:
        model = self._created()
        # The image tower is not needed, and half of the memory or more.
        model.visual = None
        return model.eval()

    def _created(self) -> Any:
        """Both towers."""
        weights = None if self._in_folder else str(self._checkpoint)
        with reading(str(self.model)):
            return self._require("open_clip").create_model(
                self._model_name,
                pretrained=weights,
                precision="fp32",
                device=self.device,
                require_pretrained=True,
                pretrained_text=False,
            )

    def _tokens(self, texts: tuple[str, ...]) -> Any:
        tokens = self._tokenizer(list(texts))
        padding = getattr(getattr(self._tokenizer, "tokenizer", None), "pad_token_id", 0)
        self._tell_full(int((tokens[:, -1] != padding).sum()), *tokens.shape)
        return tokens

    def _forward(self, torch: Any, tokens: list[Any]) -> Any:
        return self._model.encode_text(torch.stack(tokens).to(self.device))

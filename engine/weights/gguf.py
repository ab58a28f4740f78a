"""From a GGUF file to a folder as Hugging Face's libraries write it: config, weights, tokenizer.

llama.cpp keeps models in GGUF. Weights, shape and vocabulary are all there, under other names; the
rows of a Llama's query and key projections stand in another order, because its rotary embedding
turns neighbouring rows where transformers turns the two halves of a head. What the file leaves to
llama.cpp's code, how text is cut into words, is known here for the tokenizers in `_WORDS` only.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, TokenType, dequantize
from gguf.gguf_reader import ReaderTensor
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from engine.backbones.linear import cores
from engine.errors import ModelError

_COMPARED, _ROUNDING = 512, 0.15
"""So many rows tell whether head and embedding are one, and so far apart rounding may take them."""

Progress = Callable[[float], None]
"""Called with how much is done, from 0 to 1."""

_CLASSES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"

_TOP = {
    _EMBEDDING: "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    _HEAD: "lm_head.weight",
}
_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_MORE = {
    "llama": {},
    "qwen2": {f"attn_{x}.bias": f"self_attn.{x}_proj.bias" for x in "qkv"},
    "qwen3": {f"attn_{x}_norm.weight": f"self_attn.{x}_norm.weight" for x in "qk"},
}

# The same words as in transformers' Qwen2Tokenizer.
_QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS: dict[str, Callable[[], Any]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    ),
    "qwen2": lambda: pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    ),
}


def convert(
    source: Path,
    folder: Path,
    progress: Progress | None = None,
    finish: Callable[[Path], None] | None = None,
) -> None:
    """Makes a folder of the GGUF file: config.json, model.safetensors in bfloat16, tokenizer.json,
    tokenizer_config.json and, if it has one, chat_template.jinja.

    It is written beside its place and moved there when it is whole; what was there is replaced.
    finish: is given the folder before it is moved, to put in what else belongs there.
    Raises ModelError if the file is of another architecture or broken, or can't be written.
    """
    model = _Gguf(source)
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        (part / "config.json").write_text(_json(model.config()), encoding="utf-8")
        model.tokenizer().save(str(part / "tokenizer.json"))
        (part / "tokenizer_config.json").write_text(_json(model.tokens()), encoding="utf-8")
        template = model.get("tokenizer.chat_template")
        if template:
            (part / "chat_template.jinja").write_text(template, encoding="utf-8")
        weights = part / "model.safetensors"
        save_file(model.state(progress), weights, {"format": "pt"})
        # The library lets nobody else read it, the other files follow the user's mask.
        weights.chmod((part / "config.json").stat().st_mode & 0o777)
        if finish:
            finish(part)
        _settle(part)
        _replace(part, folder)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error).strip().partition("\n")[0]
        raise ModelError(
            f"can't write to {folder.parent} ({reason}): make room, or choose another folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def spare(source: Path) -> range:
    """Bytes of a GGUF file that `convert` does not read: most of an embedding that the head stands
    for. Raises ModelError if the file can't be read."""
    return _Gguf(source).spare


class _Reader(GGUFReader):
    """The library's, several times as fast with large vocabularies: it cuts every token out of the
    mapped file as an array of its own, and arrays that know of the mapping are slow to make."""

    @property
    def data(self) -> NDArray[np.uint8]:
        return self._data

    @data.setter
    def data(self, mapped: NDArray[np.uint8]) -> None:
        self._data = np.asarray(mapped)


class _Gguf:
    """A GGUF file whose architecture is one of those known here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._reader = _Reader(path)
        except (OSError, ValueError, IndexError, KeyError, UnicodeDecodeError) as error:
            raise ModelError(f"{path.name} is not a whole GGUF file: {error}") from error
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self._architecture: str = self.get("general.architecture") or "nothing"
        if self._architecture not in _CLASSES:
            raise self._no(f"{self._architecture} is not one of {', '.join(_CLASSES)}")
        if self._own("expert_count"):
            raise self._no("mixtures of experts are not known here")
        scaling = self._own("rope.scaling.type", "none")
        if scaling != "none" or "rope_freqs.weight" in self._tensors:
            raise self._no("scaled rotary embeddings are not known here")
        self._heads: int = self._need("attention.head_count")
        self._kv_heads: int = self._own("attention.head_count_kv", self._heads)
        self._hidden: int = self._need("embedding_length")
        self._head_dim: int = self._own("attention.key_length", self._hidden // self._heads)
        if self._own("rope.dimension_count", self._head_dim) != self._head_dim:
            raise self._no("heads that are rotated in part are not known here")

    def get(self, key: str, default: Any = None) -> Any:
        """What the file says under `key`."""
        field = self._reader.fields.get(key)
        return default if field is None else field.contents()

    def config(self) -> dict[str, Any]:
        """config.json, as transformers reads it."""
        return {
            "architectures": [_CLASSES[self._architecture]],
            "model_type": self._architecture,
            "vocab_size": len(self._need_any("tokenizer.ggml.tokens")),
            "hidden_size": self._hidden,
            "intermediate_size": self._need("feed_forward_length"),
            "num_hidden_layers": self._need("block_count"),
            "num_attention_heads": self._heads,
            "num_key_value_heads": self._kv_heads,
            "head_dim": self._head_dim,
            "hidden_act": "silu",
            "rope_theta": _short(self._own("rope.freq_base", 10_000.0)),
            "rms_norm_eps": _short(self._need("attention.layer_norm_rms_epsilon")),
            "max_position_embeddings": self._need("context_length"),
            "tie_word_embeddings": self._tied,
            "bos_token_id": self.get("tokenizer.ggml.bos_token_id"),
            "eos_token_id": self.get("tokenizer.ggml.eos_token_id"),
            "dtype": "bfloat16",
        }

    def state(self, progress: Progress | None) -> dict[str, Tensor]:
        """The weights in bfloat16, under transformers' names."""
        names = {
            f"blk.{layer}.{theirs}": f"model.layers.{layer}.{ours}"
            for layer in range(self._need("block_count"))
            for theirs, ours in (_LAYER | _MORE[self._architecture]).items()
        } | {name: ours for name, ours in _TOP.items() if name in self._tensors}
        odd = sorted(names.keys() ^ self._tensors.keys())
        if odd:
            verb = "lacks" if odd[0] in names else "has, and should not,"
            raise self._no(f"it {verb} {odd[0]}")
        if self._twice:
            del names[_EMBEDDING]
            names[_HEAD] = _TOP[_EMBEDDING]
        state: dict[str, Tensor] = {}
        with ThreadPoolExecutor(cores()) as pool:
            read = pool.map(self._weights, [self._tensors[name] for name in names])
            for done, (ours, weights) in enumerate(zip(names.values(), read, strict=True), start=1):
                state[ours] = weights
                if progress:
                    progress(done / len(names))
        return state

    @property
    def spare(self) -> range:
        """See the function."""
        if not self._twice:
            return range(0)
        embedding = self._tensors[_EMBEDDING]
        begin, row = int(embedding.data_offset), embedding.data.strides[0]
        return range(begin + min(_COMPARED * row, embedding.n_bytes), begin + embedding.n_bytes)

    @property
    def _twice(self) -> bool:
        return self._tied and _HEAD in self._tensors

    @cached_property
    def _tied(self) -> bool:
        """Whether the head is the embedding. A file may have it twice, rounded in two ways; the
        head's is the better one."""
        if _HEAD not in self._tensors:
            return True
        read = [self._tensors[name] for name in (_HEAD, _EMBEDDING)]
        few = [dequantize(each.data[:_COMPARED], each.tensor_type) for each in read]
        off = float(abs(few[0] - few[1]).mean() / abs(few[0]).mean())
        return off < _ROUNDING

    def _weights(self, tensor: ReaderTensor) -> Tensor:
        try:
            values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        except NotImplementedError as error:
            raise self._no(f"{tensor.tensor_type.name} can't be read here") from error
        kind = tensor.name.rpartition(".")[0].rpartition(".")[2]
        if self._architecture == "llama" and kind in ("attn_q", "attn_k"):
            heads = self._heads if kind == "attn_q" else self._kv_heads
            # (pair, half) of a head, as rows, become (half, pair).
            pairs = values.reshape(heads, self._head_dim // 2, 2, *values.shape[1:])
            values = pairs.transpose(1, 2).reshape(values.shape)
        return values.to(torch.bfloat16).contiguous()

    def tokenizer(self) -> Tokenizer:
        """Byte pairs on bytes. Control tokens are special, and so are unused ones, which pad the
        vocabulary."""
        kind, words = self.get("tokenizer.ggml.model"), self.get("tokenizer.ggml.pre")
        if kind != "gpt2" or words not in _WORDS:
            raise self._no(f"its tokenizer ({kind}, {words}) is not one of {', '.join(_WORDS)}")
        tokens: list[str] = self._need_any("tokenizer.ggml.tokens")
        types: list[int] = self._need_any("tokenizer.ggml.token_type")
        # A merge is two tokens with a space between them.
        merges = [tuple(line.split(" ", 1)) for line in self._need_any("tokenizer.ggml.merges")]
        try:
            made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
        except Exception as error:  # the library raises bare Exceptions
            raise self._no(f"its merges don't fit its tokens ({error})") from error
        made.pre_tokenizer = _WORDS[words]()
        made.decoder = decoders.ByteLevel()
        if words == "qwen2":
            made.normalizer = normalizers.NFC()
        added: dict[int, bool] = {
            TokenType.CONTROL: True,
            TokenType.UNUSED: True,
            TokenType.USER_DEFINED: False,
        }
        made.add_tokens(
            [
                AddedToken(token, special=added[kind], normalized=False)
                for token, kind in zip(tokens, types, strict=True)
                if kind in added
            ]
        )
        return made

    def tokens(self) -> dict[str, Any]:
        """tokenizer_config.json: tokenizer.json is to be taken as it is, and what ends a text."""
        tokens: list[str] = self._need_any("tokenizer.ggml.tokens")
        named = {"bos": "bos", "eos": "eos", "pad": "padding"}
        ids = {short: self.get(f"tokenizer.ggml.{long}_token_id") for short, long in named.items()}
        return {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": self._need("context_length"),
            **{f"{short}_token": tokens[i] for short, i in ids.items() if i is not None},
        }

    def _own(self, key: str, default: Any = None) -> Any:
        return self.get(f"{self._architecture}.{key}", default)

    def _need(self, key: str) -> Any:
        return self._need_any(f"{self._architecture}.{key}")

    def _need_any(self, key: str) -> Any:
        value = self.get(key)
        if value is None:
            raise self._no(f"it does not say {key}")
        return value

    def _no(self, why: str) -> ModelError:
        return ModelError(f"{self._path.name} can't be used: {why}")


def _short(value: float) -> float:
    """A float32 as the shortest decimal number that means it: 1e-05, not 9.99999974e-06."""
    return float(f"{value:.7g}")


def _json(data: dict[str, Any]) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _settle(folder: Path) -> None:
    """Waits until the files are on the disk: the folder's name says that they are."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _replace(part: Path, folder: Path) -> None:
    """Moves `part` to `folder`. A kill in between leaves none of them, never a half one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    part.rename(folder)
    shutil.rmtree(old, ignore_errors=True)

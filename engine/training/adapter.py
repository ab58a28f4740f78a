"""A dense model whose decoder's adapter is trained: the same forward pass as in serving, with the
low-rank matrices beside the frozen weights instead of in them.

Shapes: B batch, T rows, d hidden size, V vocabulary of the checkpoint, r rank, e extra tokens, h of
which have a row in the head.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.attention.lead import Marks
from engine.backbones.dense import PROJECTIONS, Adapter, Block, Dense
from engine.backbones.dense_config import DenseConfig, parse_dense
from engine.errors import ModelError, TrainingError
from engine.text.tokenizer import TextTokenizer
from engine.weights.dense import ADAPTER, StoredWeights, read_adapter
from engine.weights.families import FAMILIES, config_folder, model_type, read_json
from engine.weights.profile import Profile, load_profile

Trained = dict[str, Tensor]
"""What is learned, float32, by the names of an adapter's file: `embeddings` [e, d], `head` [h, d],
`layers.3.mlp.up_proj.down` [r, in] and `.up` [out, r]."""

EXTRAS = ("embeddings", "head")


def has_adapter(folder: Path) -> bool:
    """Whether what is trained of the model in `folder` is an adapter: its family is a dense one.

    Raises ModelError if its base is not here.
    """
    return "dense" in FAMILIES.get(model_type(config_folder(folder)) or "", "")


class AdapterModel(Dense):
    """A frozen backbone and what is trained of its decoder.

    The encoder is the checkpoint's; gradients reach `trained` and nothing else.
    """

    def __init__(
        self, config: DenseConfig, state: Mapping[str, Tensor], trained: Trained, scale: float
    ) -> None:
        super().__init__(config, state)
        self.trained, self.scale = trained, scale
        self._known = config.vocab_size
        self.config = replace(config, vocab_size=config.vocab_size + len(trained["head"]))
        for tensor in trained.values():
            tensor.requires_grad_()
        self._layers = [
            replace(
                block,
                adapter={
                    name: self._adapter(block, index, parts) for name, parts in PROJECTIONS.items()
                },
            )
            for index, block in enumerate(self._layers)
        ]

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids [...] -> embeddings [..., d]; those from V on are trained."""
        assert isinstance(self._embeddings, Tensor)
        extra = self.trained["embeddings"].to(self._embeddings)
        if not len(extra):
            return super().embed(ids)
        known = F.embedding(ids.clamp(max=self._known - 1), self._embeddings)
        own = F.embedding((ids - self._known).clamp(min=0), extra)
        return torch.where((ids < self._known).unsqueeze(-1), known, own)

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden rows [..., d] -> logits [..., V + h] in float32."""
        known, head = super().logits(hidden), self.trained["head"].to(hidden)
        return torch.cat((known, F.linear(hidden, head).float()), dim=-1) if len(head) else known

    def adapter(self, tensors: Mapping[str, Tensor]) -> Adapter:
        """An adapter of these values of `trained`, as serving has it."""
        names = [name.removesuffix(".down") for name in tensors if name.endswith(".down")]
        pairs = {
            name.removeprefix("layers."): (tensors[f"{name}.down"], tensors[f"{name}.up"])
            for name in names
        }
        return Adapter(pairs, self.scale, tensors["embeddings"], tensors["head"])

    def _adapter(self, block: Block, index: int, parts: tuple[str, ...]) -> _Trained:
        names = [f"layers.{index}.{part}" for part in parts]
        downs = [self.trained[f"{one}.down"] for one in names]
        ups = [self.trained[f"{one}.up"] for one in names]
        # Queries come scaled from the checkpoint's product (or, with a norm, from that).
        scales = [self.scale] * len(names)
        if parts[0] == "self_attn.q_proj" and block.q_norm is None:
            scales[0] *= self.config.head_dim**-0.5
        return _Trained(downs, ups, scales)


class _Trained:
    """engine.backbones.linear.LowRank of matrices that change."""

    def __init__(self, downs: list[Tensor], ups: list[Tensor], scales: list[float]) -> None:
        self._downs, self._ups, self._scales = downs, ups, scales

    def __call__(self, x: Tensor) -> Tensor:
        narrow = F.linear(x, torch.cat(self._downs).to(x.dtype))
        parts = narrow.split([len(down) for down in self._downs], dim=-1)
        own = [
            F.linear(part, up.to(x.dtype)) * scale
            for part, up, scale in zip(parts, self._ups, self._scales, strict=True)
        ]
        return torch.cat(own, dim=-1)


def load_adapter_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    rank: int,
    scale: float,
    seed: int,
    fresh: bool = False,
) -> AdapterModel:
    """The model in `folder` with its adapter, which is gone on with; or with a new one of this rank
    and scale, if it has none or shall have a `fresh` one.

    Raises ModelError if it can't be read, TrainingError if it can't be trained so.
    """
    base = config_folder(folder)
    config = parse_dense(read_json(base / "config.json"), str(base / "config.json"))
    state = StoredWeights(base, device, dtype)
    path = folder / ADAPTER
    try:
        if path.is_file() and not fresh:
            trained, scale = _there(read_adapter(path, device))
            there = {len(t) for name, t in trained.items() if name.endswith(".down")}
            if rank and there != {rank}:
                raise TrainingError(
                    f"the adapter of {folder.name} has rank {max(there)}, and is gone on with: "
                    "leave the rank out, or ask for a fresh one ([model] fresh)"
                )
        else:
            trained = _new(folder, config, state, rank, seed)
        return AdapterModel(config, state, trained, scale)
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(f"{path} is not an adapter of this model: {error}") from error


def _there(adapter: Adapter) -> tuple[Trained, float]:
    trained = {"embeddings": adapter.embeddings.clone(), "head": adapter.head.clone()}
    for name, (down, up) in adapter.low_rank.items():
        trained[f"layers.{name}.down"], trained[f"layers.{name}.up"] = down.clone(), up.clone()
    return trained, adapter.scale


def _new(
    folder: Path, config: DenseConfig, state: Mapping[str, Tensor], rank: int, seed: int
) -> Trained:
    """`down` at random and `up` at zero. A new end begins as the token that ends a text, a new mask
    as what is seldom, so that neither is out of the range that the model knows."""
    if not rank:
        raise TrainingError("a new adapter needs a rank: say it in [lora]")
    mask = serving(folder).tokens.mask - config.vocab_size
    known = state["model.embed_tokens.weight"].float()
    trained = {"embeddings": known[:0].clone(), "head": known[:0].clone()}
    if mask >= 0:
        ends = known[config.eos_ids[0] if config.eos_ids else 0]
        embeddings = known.new_zeros(mask + 1, known.shape[1])
        embeddings[mask] = known[min(16, len(known) - 1)]
        trained = {"embeddings": embeddings, "head": ends.expand(1, -1).clone()}
    generator = torch.Generator().manual_seed(seed)
    for index in range(len(config.layers)):
        for name in (part for parts in PROJECTIONS.values() for part in parts):
            rows, columns = state[f"model.layers.{index}.{name}.weight"].shape
            down = torch.randn(rank, columns, generator=generator) * columns**-0.5
            trained[f"layers.{index}.{name}.down"] = down.to(known.device)
            trained[f"layers.{index}.{name}.up"] = known.new_zeros(rows, rank)
    return trained


@dataclass(frozen=True, slots=True)
class Tokens:
    """Those that are no text: what ends a hole, what stands in a slot that is not decided, and the
    marks around the text behind a hole, if there are any."""

    end: int
    mask: int
    marks: Marks | None = None


@dataclass(frozen=True, slots=True)
class Serving:
    """How a model is served. start: what a text begins with."""

    profile: Profile
    tokenizer: TextTokenizer
    tokens: Tokens
    start: int | None


def serving(folder: Path) -> Serving:
    """The same for the model in `folder`. Raises TrainingError if its infill.json names no end and
    no mask, or they are new and the end is not the first behind the vocabulary, which has a row in
    the head.
    """
    config = parse_dense(read_json(config_folder(folder) / "config.json"))
    profile = load_profile(folder, config)
    tokenizer = TextTokenizer.load(config_folder(folder), profile.extra)
    end = tokenizer.id_of(profile.slack) if profile.slack else None
    mask = tokenizer.id_of(profile.mask) if profile.mask else None
    known = end is not None and mask is not None and max(end, mask) < config.vocab_size
    if end is None or mask is None or not (known or (end == config.vocab_size and mask > end)):
        raise TrainingError(
            f'{folder / "infill.json"} must name a "slack" and a "mask" that the tokenizer knows, '
            'or that are its "extra", in this order, with the ids behind the vocabulary'
        )
    start = tokenizer.id_of(profile.start) if profile.start else None
    start = config.bos_id if start is None else start
    return Serving(profile, tokenizer, Tokens(end, mask, tokenizer.marks(profile.marks)), start)

"""A new family is a file and a line: this module is one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.attention.sdpa import read
from engine.backbones.base import Attend, Backbone
from engine.backbones.quantized import Format
from engine.engine import InfillEngine
from engine.errors import ModelError
from engine.profile import Profile
from engine.types import InfillRequest, fill_in_the_middle
from engine.weights import families
from engine.weights.loader import Progress
from tests.engine.tiny import BOS, END, save_tokenizer

CPU = torch.device("cpu")


@dataclass(frozen=True)
class ToyConfig:
    """The shape of a toy."""

    vocab_size: int
    hidden_size: int = 16
    canvas_length: int = 32
    max_positions: int = 512
    bos_id: int | None = BOS
    eos_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class ToyLayer:
    """What a toy keeps of a row."""

    sliding: bool = False
    head_dim: int = 8
    kv_heads: int = 1


class Toy:
    """One layer of attention without weights, between embeddings and the same as a head."""

    kv = (ToyLayer(),)
    sliding_window = 1 << 30

    def __init__(self, config: ToyConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        draw = torch.Generator().manual_seed(config.vocab_size)
        rows = torch.randn(config.vocab_size + 1, config.hidden_size, generator=draw)
        self._embeddings = rows.to(device=device, dtype=dtype)
        self.decoded = 0
        self.format: Format = "plain"
        self.count = self._embeddings.numel()

    def embed(self, ids: Tensor) -> Tensor:
        return self._embeddings[ids]

    def soft_embed(self, probs: Tensor) -> Tensor:
        return probs.to(self.dtype) @ self._embeddings[: self.config.vocab_size]

    def encode(self, ids: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        return self._layer(self.embed(ids), positions, attend)

    def decode(
        self, ids: Tensor, positions: Tensor, attend: Attend, soft: Tensor | None = None
    ) -> Tensor:
        self.decoded += 1
        x = self.embed(ids)
        return self._layer(x if soft is None else x + soft, positions, attend)

    def run(
        self, canvas: Tensor, soft: Tensor | None, ids: Tensor, positions: Tensor, attend: Attend
    ) -> tuple[Tensor, Tensor]:
        self.decoded += 1
        x = self.embed(canvas)
        x = torch.cat((x if soft is None else x + soft, self.embed(ids)), dim=1)
        rows = self._layer(x, positions, attend)
        return rows[:, : canvas.shape[1]], rows[:, canvas.shape[1] :]

    def logits(self, hidden: Tensor) -> Tensor:
        return (hidden @ self._embeddings[: self.config.vocab_size].T).float()

    def _layer(self, x: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        turned = x + positions.unsqueeze(-1).to(x.dtype).mul(0.1).sin()
        q = turned.unflatten(-1, (2, 8))
        return x + attend(0, q, turned[..., None, :8], x[..., None, 8:]).flatten(-2)


def read_config(folder: Path) -> ToyConfig:
    """This module is what reads the family's folders (engine.weights.families.Family)."""
    data: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return ToyConfig(data["vocab_size"])


def check_weights(folder: Path, config: ToyConfig) -> None:
    """A toy has no files of weights."""


def load_model(
    folder: Path,
    device: torch.device,
    dtype: torch.dtype,
    progress: Progress | None = None,
    format: Format | None = None,
) -> Backbone:
    return Toy(read_config(folder), device, dtype)


def default_profile(folder: Path, config: ToyConfig) -> Profile:
    return Profile(folder.name)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(families.FAMILIES, "toy", __name__)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "toy", "vocab_size": END}))
    save_tokenizer(tmp_path)
    return tmp_path


@pytest.mark.parametrize("masked", [False, True], ids=["a canvas", "from the left"])
def test_a_family_of_a_file_and_a_line_fills_a_hole(folder: Path, masked: bool) -> None:
    profile: dict[str, Any] = {"name": "toy", "slack": "<slack>", "canvas": 24, "hole": 8}
    profile |= {"longest": 16, "suffix": 6, "prefill": 16, "context": 128}
    if masked:
        profile |= {"mask": "<mask>", "extra": ["<mask>"], "blanks": True}
    (folder / "infill.json").write_text(json.dumps(profile))
    engine = InfillEngine.load(str(folder), "cpu", dtype=torch.float32)
    assert engine.info.model == "toy"
    assert engine.mask_id == (END if masked else None)
    assert isinstance(engine.model, Toy)
    before = engine.model.decoded
    request = InfillRequest(fill_in_the_middle("def f(x):\n    ret", "\nprint(f(1))\n", 6))
    infill = engine.fill(request)
    assert infill.steps > 0
    assert engine.model.decoded > before
    assert "<slack>" not in infill.text
    assert engine.fill(request).text == infill.text


def test_what_was_added_is_named_where_another_one_is_not_known(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard of"}))
    with pytest.raises(ModelError, match=r"known are .*toy"):
        families.family_of(folder)


def test_what_stands_around_a_toys_row_changes_what_it_says() -> None:
    toy = Toy(ToyConfig(END), CPU, torch.float32)
    ids = torch.arange(4, 10)[None]
    rows = toy.encode(ids, torch.zeros(6), lambda layer, q, k, v: read(q, k, v))
    one = toy.encode(ids[:, :1], torch.zeros(1), lambda layer, q, k, v: read(q, k, v))
    assert float((rows[:, :1] - one).abs().max()) > 1e-3

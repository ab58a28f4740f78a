"""The whole of a pass at the full shape of the 26B model, on a device that has no data.

Nothing can be read back from torch's "meta" device: whatever waits for it, or makes a shape of what
it holds, raises. So a fill's passes run here with all 30 layers, 128 experts and 262,144 tokens, in
no memory, and what they ask of a device is what they would ask of a card. The one copy out is
replaced by one that is counted.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from engine.attention.kv import KVBuffer
from engine.attention.prefix_cache import PrefixCache, canvas_span
from engine.attention.static_pass import Seats, StaticPass, is_canvas
from engine.backbones import experts
from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma
from engine.diffusion.denoiser import CanvasDenoiser
from engine.diffusion.loop import Schedule, denoise
from engine.diffusion.process import Uniform
from engine.diffusion.rng import Draws
from engine.profile import Sampling
from engine.text.canvas import Canvas
from tests.engine import gemma_folder
from tests.engine.test_operators import tensors

META = torch.device("meta")
PREFIX, CHUNK, SLOTS, FREE, PASSES = 4096, 512, 256, 64, 5
VOCAB, SLACK = gemma_folder.VOCAB, gemma_folder.TURN_END

Made = tuple[str, tuple[tuple[int, ...], ...]]
"""An operator, and the shapes of what it made."""


class Shapes(TorchDispatchMode):
    """Records each operator with the shapes of what it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Made] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        shapes = tuple(tuple(one.shape) for one in tensors(out))
        self.seen.append((func.overloadpacket.__name__, shapes))
        return out


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> DiffusionGemma:
    """The 26B model, with its experts multiplied as on CUDA."""
    config = gemma_folder.config()
    config["text_config"] |= {"hidden_size": 2816, "intermediate_size": 2112}
    config["text_config"]["moe_intermediate_size"] = 704

    def grouped_mm(x: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
        assert offs.shape == weight.shape[:1]
        return x.new_empty(x.shape[0], weight.shape[2])

    monkeypatch.setattr(experts, "_has_grouped_mm", lambda x: True)
    monkeypatch.setattr(F, "grouped_mm", grouped_mm)
    with META:
        made = DiffusionGemma(parse_config(config)).bfloat16().requires_grad_(False)
    assert made.count == pytest.approx(25.25e9, rel=1e-3)
    return made


def canvas() -> Canvas:
    free, held = torch.zeros(SLOTS, dtype=torch.bool), torch.zeros(SLOTS, dtype=torch.bool)
    free[:FREE] = True
    ids, strength = torch.zeros(SLOTS, dtype=torch.int64), torch.ones(SLOTS)
    there = (one.to(META) for one in (ids, free, held, strength, torch.zeros(VOCAB)))
    ids, free, held, strength, banned = there
    return Canvas(ids, free, [slice(0, FREE)], held, strength, banned, SLACK)


@torch.inference_mode()
def test_a_pass_waits_for_the_device_once(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited = Counter[str]()

    def copied(tensor: Tensor) -> Tensor:
        waited["copy"] += 1
        return torch.zeros(tensor.shape, dtype=tensor.dtype)

    def any_draft(tensor: Tensor) -> bool:
        waited["bool"] += 1
        return False

    monkeypatch.setattr(Tensor, "cpu", copied)
    cache = PrefixCache(model)
    for start in range(0, PREFIX, CHUNK):
        cache.extend(range(start, start + CHUNK))
    assert waited == Counter()
    sampling = Sampling(max_steps=PASSES, confidence=0.0)  # it never settles
    passes = denoise(
        CanvasDenoiser(cache), Uniform(VOCAB), canvas(), Schedule(sampling, PASSES), Draws(0, META)
    )
    with monkeypatch.context() as start:
        start.setattr(Tensor, "__bool__", any_draft)
        assert next(passes) is None
    assert waited == Counter({"bool": 1}), "whether there is a draft, once a canvas"
    shapes: list[list[Made]] = []
    for number in range(1, PASSES + 1):
        with Shapes() as watch:
            event = next(passes)
            following = next(passes, None)
        assert event is not None
        assert following is None
        assert (event.step, waited["copy"]) == (number, number)
        shapes.append(watch.seen)
    assert event.settled == "steps"
    # All have the same shapes: a graph of the second is one of those behind it. The first has no
    # belief of a pass before it, the last makes none.
    assert len(shapes[1]) > 1_400
    assert shapes[1:-1] == [shapes[1]] * (PASSES - 2)


@torch.inference_mode()
def test_a_pass_of_fixed_shapes_waits_for_nothing(model: DiffusionGemma) -> None:
    seats = Seats(model, canvases=2, prefix=PREFIX, rows=256)
    work = StaticPass(model, seats, rows=128, conditioned=True)
    made: list[list[Made]] = []
    for prefix, rows in ((PREFIX, 112), (700, 128)):
        cache = PrefixCache(model)
        cache.extend(range(prefix))
        own = KVBuffer(model.kv, model.dtype, META, growth=1)
        ids = torch.zeros(rows, dtype=torch.int64, device=META)
        soft = torch.zeros(rows, model.config.hidden_size, dtype=model.dtype, device=META)
        span = canvas_span(cache, prefix, own, ids, soft)
        assert is_canvas(span)
        work.load([span], seats.take([span]))
        with Shapes() as watch:
            work.run()
        made.append(watch.seen)
    assert made[0] == made[1], "a graph of the one is a graph of the other"
    assert len(made[0]) > 1_400


@torch.inference_mode()
def test_what_waits_is_noticed(model: DiffusionGemma) -> None:
    hidden = torch.zeros(3, model.config.hidden_size, device=META, dtype=model.dtype)
    logits = model.logits(hidden)
    for waits in (logits.max().item, logits.nonzero, logits[0].tolist, logits[0].cpu):
        with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
            waits()

"""What one canvas pass asks of a device: how many operators, and how often the host waits for it.

There is no device here, so the pass runs on the CPU on the way that it takes on CUDA, and is
watched. On a card each operator that is not a view is a kernel that has to be started, which takes
the host longer than most of them take the device; and each value that the host wants to see stops
it until the device is done with everything.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.backbones import experts
from engine.backbones.config import parse_config
from engine.backbones.diffusion_gemma import DiffusionGemma, Experts
from tests.engine.tiny import random_model, tiny_config

SYNCS = {"item", "_local_scalar_dense", "is_nonzero", "nonzero", "bincount", "equal"}
SYNCS |= {"masked_select", "unique_dim", "_unique2", "repeat_interleave"}

CANVAS, PREFIX = 32, 24


class Watch(TorchDispatchMode):
    """Counts operators that make something (not views of what is there), and host syncs."""

    def __init__(self) -> None:
        super().__init__()
        self.operators, self.syncs = Counter[str](), Counter[str]()
        self.resting = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.resting:
            return out
        name: str = func.overloadpacket.__name__
        given = tensors((args, kwargs))
        masked = name.startswith("index") and any(t.dtype == torch.bool for t in given)
        if name in SYNCS or masked:
            self.syncs[name] += 1
        places = {t.untyped_storage().data_ptr() for t in given}
        writes = name.endswith("_") or func._schema.is_mutable
        if writes or any(t.untyped_storage().data_ptr() not in places for t in tensors(out)):
            self.operators[name] += 1
        return out

    @contextlib.contextmanager
    def rest(self) -> Iterator[None]:
        """While it does not look."""
        self.resting = True
        yield
        self.resting = False


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """Watches passes whose experts go the way of CUDA: one kernel for all groups, which gets to
    know their sizes on the device."""
    watching = Watch()

    def grouped_mm(x: Tensor, weight: Tensor, offs: Tensor) -> Tensor:
        watching.operators["grouped_mm"] += 1
        assert offs.dtype == torch.int32
        with watching.rest():
            last = offs.tolist()
            groups = enumerate(zip([0, *last], last, strict=False))
            return torch.cat([x[a:b] @ weight[e] for e, (a, b) in groups])

    monkeypatch.setattr(experts, "_has_grouped_mm", lambda x: True)
    monkeypatch.setattr(F, "grouped_mm", grouped_mm)
    return watching


def large(dtype: torch.dtype) -> DiffusionGemma:
    """30 layers, 128 experts of which 8 are chosen: the published pattern, with small widths."""
    config = tiny_config(
        num_hidden_layers=30,
        layer_types=(["sliding_attention"] * 5 + ["full_attention"]) * 5,
        global_head_dim=32,
        num_global_key_value_heads=1,
        num_experts=128,
        top_k_experts=8,
    )
    return random_model(parse_config(config), seed=0).to(dtype)


@torch.inference_mode()
def test_the_operators_and_syncs_of_a_canvas_pass(watch: Watch) -> None:
    """What they are now; with casts around each norm, counts on the host and an `index_add_` they
    were 2,772 and 30."""
    model = large(torch.bfloat16)
    ids = torch.randint(0, 99, (1, CANVAS))
    soft = torch.randn(1, CANVAS, model.config.hidden_size, dtype=torch.bfloat16)
    positions = torch.arange(PREFIX, PREFIX + CANVAS)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return q  # attention itself is somebody else's

    model.decode(ids, positions, attend, soft)  # makes what is made once
    watch.operators.clear()
    with watch:
        model.decode(ids, positions, attend, soft)
    layers = len(model.config.layers)
    assert watch.syncs == Counter()
    assert watch.operators["rms_norm"] == 11 * layers + 3
    assert watch.operators["grouped_mm"] == 2 * layers
    # 46 a layer, of which full ones have no v_proj; conditioning, rotary tables, the last norm.
    assert watch.operators.total() == 1398, watch.operators

    with watch:
        model.logits(model.decode(ids, positions, attend, soft))
    assert watch.syncs == Counter()


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_experts_say_is_summed_in_their_order_in_float32(
    watch: Watch, dtype: torch.dtype
) -> None:
    """Held to the last bit against the sum written out; added up in bfloat16 it was another."""
    model = large(dtype)
    block = model.layers[0].experts
    assert isinstance(block, Experts)
    rows = torch.randn(40, model.config.hidden_size, dtype=dtype)
    weights, chosen = model.layers[0].router(rows)
    assert weights.dtype == torch.float32
    alone = [block.grouped(rows, torch.ones(40, 1), chosen[:, k : k + 1]) for k in range(8)]
    total = sum(one.float() * weights[:, k : k + 1] for k, one in enumerate(alone))
    assert isinstance(total, Tensor)
    said = block.grouped(rows, weights, chosen)
    assert said.dtype == dtype
    assert float(said.float().std()) > 0.1
    ours, exact = said.float(), total.to(dtype).float()
    if dtype == torch.bfloat16:
        assert torch.equal(ours, exact)
    else:  # nothing is rounded, and the order of eight additions shows in the last bits
        assert torch.allclose(ours, exact, rtol=1e-5, atol=1e-6)
    assert torch.equal(said, block.grouped(rows, weights, chosen))


@torch.inference_mode()
def test_the_router_chooses_as_the_reference_writes_it() -> None:
    """Softmax over the chosen ones is the softmax over all, made to sum to one."""
    router = large(torch.float32).layers[3].router
    rows = torch.randn(64, 32)
    weights, chosen = router(rows)
    scores = router.proj(router.norm(rows) * router.scale * router.root)
    best, theirs = scores.softmax(-1).topk(router.top_k, dim=-1)
    expected = best / best.sum(-1, keepdim=True) * router.per_expert_scale[theirs]
    assert torch.equal(chosen, theirs)
    assert torch.allclose(weights, expected, rtol=1e-5, atol=1e-7)

"""The dense backbone holds to transformers' own classes; adapters reach the decoder only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from engine.attention.kv import KVBuffer
from engine.attention.span import Span, forward
from engine.backbones.dense import Adapter, Dense
from engine.backbones.dense_config import parse_dense
from engine.errors import ModelError

FAMILIES = ("llama", "qwen2", "qwen3")


def random_config(family: str, seed: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(seed)

    def pick(*options: Any) -> Any:
        return options[int(torch.randint(len(options), (), generator=draw))]

    kv_heads = pick(1, 2, 3)
    heads, head_dim = kv_heads * pick(1, 2, 3), pick(8, 16, 32)
    return {
        "model_type": family,
        "vocab_size": pick(50, 131),
        "hidden_size": heads * head_dim if family != "qwen3" else pick(48, 64),
        "intermediate_size": pick(40, 96),
        "num_hidden_layers": pick(1, 2, 5),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "rope_theta": pick(1e4, 1e5, 1e6),
        "rms_norm_eps": pick(1e-5, 1e-6),
        "tie_word_embeddings": pick(True, False),
        "max_position_embeddings": 512,
    }


def reference(config: dict[str, Any], seed: int) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    values = {name: value for name, value in config.items() if name != "model_type"}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(config["model_type"], **values))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3) if parameter.ndim > 1 else parameter.uniform_(0.5, 1.5)
    return model.eval().float()


def read_all(model: Dense, ids: Tensor, role: Any = "encoder", pieces: int = 1) -> Tensor:
    """Logits [T, V] of tokens read causally, in so many pieces."""
    own = KVBuffer(model.kv, model.dtype, model.device, growth=1)
    rows: list[Tensor] = []
    at = 0
    for piece in ids.tensor_split(pieces):
        positions = torch.arange(at, at + len(piece))
        rows += forward(model, [Span(role, piece, positions, own, at)])
        at += len(piece)
    return model.logits(torch.cat(rows))


@torch.inference_mode()
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(20))
def test_logits_are_those_of_transformers(family: str, seed: int) -> None:
    config = random_config(family, seed)
    theirs = reference(config, seed)
    # What transformers would write, as the config that we read.
    written = theirs.config.to_dict()
    ours = Dense(parse_dense(written), theirs.state_dict())
    ids = torch.randint(config["vocab_size"], (23,), generator=torch.Generator().manual_seed(seed))
    expected = theirs(ids.unsqueeze(0)).logits[0]
    assert float((read_all(ours, ids) - expected).abs().max()) < 1e-4
    assert float((read_all(ours, ids, pieces=4) - expected).abs().max()) < 1e-4


@torch.inference_mode()
def test_only_the_decoder_goes_through_the_adapter() -> None:
    config = random_config("llama", 3)
    theirs = reference(config, 3)
    state, size = theirs.state_dict(), theirs.config.hidden_size
    name = "model.layers.0.mlp.down_proj.weight"
    down, up = torch.randn(2, state[name].shape[1]), torch.randn(size, 2)
    extra = torch.randn(2, size)
    adapter = Adapter({"0.mlp.down_proj": (down, up)}, 0.5, extra, extra[:1])
    ours = Dense(parse_dense(theirs.config.to_dict()), state, adapter)
    ids = torch.arange(20)
    plain = theirs(ids.unsqueeze(0)).logits[0]
    changed = reference(config, 3)
    changed.state_dict()[name].add_(0.5 * up @ down)
    encoded, decoded = read_all(ours, ids), read_all(ours, ids, "decoder")
    vocab = config["vocab_size"]
    assert float((encoded[:, :vocab] - plain).abs().max()) < 1e-4
    assert float((decoded[:, :vocab] - changed(ids.unsqueeze(0)).logits[0]).abs().max()) < 1e-4
    assert encoded.shape[1] == vocab + 1
    assert torch.equal(ours.embed(torch.tensor([vocab + 1])), extra[1:])


@torch.inference_mode()
def test_decoder_and_encoder_rows_of_one_pass_are_those_that_each_has_alone() -> None:
    config = random_config("qwen3", 5)
    theirs = reference(config, 5)
    state, size = theirs.state_dict(), theirs.config.hidden_size
    width = state["model.layers.0.mlp.down_proj.weight"].shape[1]
    low = {"0.mlp.down_proj": (torch.randn(2, width), torch.randn(size, 2))}
    adapter = Adapter(low, 1.0, torch.randn(1, size), torch.randn(0, size))
    ours = Dense(parse_dense(theirs.config.to_dict()), state, adapter)
    ids = [torch.arange(9), torch.arange(5, 18)]

    def spans() -> list[Span]:
        return [
            Span(
                role,  # type: ignore[arg-type]
                one,
                torch.arange(len(one)),
                KVBuffer(ours.kv, ours.dtype, ours.device, growth=1),
                0,
            )
            for role, one in zip(("encoder", "decoder"), ids, strict=True)
        ]

    together = forward(ours, spans())
    alone = [forward(ours, [span])[0] for span in spans()]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_without_spans_nothing_runs() -> None:
    theirs = reference(random_config("llama", 4), 4)
    assert forward(Dense(parse_dense(theirs.config.to_dict()), theirs.state_dict()), []) == []


@torch.inference_mode()
def test_int8_products_stay_close() -> None:
    theirs = reference(random_config("llama", 4), 4)
    config = parse_dense(theirs.config.to_dict())
    ids = torch.arange(30)
    plain = read_all(Dense(config, theirs.state_dict()), ids)
    int8 = read_all(Dense(config, theirs.state_dict(), format="int8"), ids)
    error = float((plain - int8).norm() / plain.norm())
    assert 0 < error < 0.2  # small random layers are the worst case: weights are far from smooth


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "yarn", "factor": 4.0}},
        {"num_attention_heads": 0},
        {"quantization_config": {"quant_method": "gptq"}},
        {"use_sliding_window": True},
    ],
)
def test_what_is_not_supported_is_refused_in_one_line(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as error:
        parse_dense({**random_config("qwen2", 1), **change})
    assert len(str(error.value).splitlines()) == 1

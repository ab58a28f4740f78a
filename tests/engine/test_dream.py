"""Dream's family: folders as published, logits of transformers' Qwen2 in which everything sees
everything, the published loop, lengths."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.attention.batch import Batch
from engine.backbones.dense import Dense
from engine.backbones.dense_config import parse_dense
from engine.diffusion.denoiser import WindowDenoiser
from engine.diffusion.rng import Draws
from engine.diffusion.samplers import entropies, nucleus, sample
from engine.engine import InfillEngine
from engine.profile import Calibration
from engine.types import Fixed, Frame, Hole, Infill, InfillRequest, fill_in_the_middle, rewrite
from engine.window_run import WindowRun
from tests.engine import dream_folders
from tests.engine.dream_folders import END, KINDS, MASK, OPEN_MASK, VOCAB

PREFIX, SUFFIX = "def f(x):\n    ret", "\nprint(f(1))\n"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("dream")
    return {kind: dream_folders.write(place / kind, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def engine_of(folders: dict[str, Path]) -> Callable[[str], InfillEngine]:
    made: dict[str, InfillEngine] = {}

    def get(kind: str) -> InfillEngine:
        if kind not in made:
            made[kind] = InfillEngine.load(str(folders[kind]), "cpu", dtype=torch.float32)
        return made[kind]

    return get


def reference(kind: str) -> Any:
    """transformers' Qwen2 with the same weights, in float32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    left_out = ("auto_map", "architectures", "model_type", "torch_dtype", "use_mrope")
    shape = {k: v for k, v in dream_folders.config(kind).items() if k not in left_out}
    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    state = {name: tensor.float() for name, tensor in dream_folders.state(kind).items()}
    if shape["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    return model.eval()


@torch.inference_mode()
def seen_by_all(model: Any, ids: list[int]) -> Tensor:
    """Logits [T, V] of a Qwen2 in which every token sees every other, shifted as Dream's code does:
    slot i from row i - 1, the first from its own."""
    mask = torch.zeros(1, 1, len(ids), len(ids))
    logits = model(torch.tensor([ids]), attention_mask=mask).logits[0]
    return torch.cat((logits[:1], logits[:-1]))


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_logits_are_those_of_transformers(
    kind: str, engine_of: Callable[[str], InfillEngine]
) -> None:
    engine, theirs = engine_of(kind), reference(kind)
    mask = engine.mask_id
    assert mask == (OPEN_MASK if kind == "open-dcoder" else MASK)
    draw = torch.Generator().manual_seed(3)
    for front, length in ((20, 30), (0, 9)):
        ids = torch.randint(VOCAB, (front + length,), generator=draw)
        chosen = torch.rand(length, generator=draw) < 0.5
        chosen[0] = True
        slots = chosen.nonzero()[:, 0]
        ids[front:][slots] = mask
        model = WindowDenoiser(engine.model, Batch(engine.model), ids[:front].tolist(), None, True)
        ours, causal = model.ask(ids[front:], None, slots, None)()
        assert causal is None
        expected = seen_by_all(theirs, ids.tolist())[front:][slots]
        assert float((ours - expected).abs().max()) < 1e-4


@torch.inference_mode()
def test_logits_at_the_real_head_dimension() -> None:
    """Head dimension 128, 7 query heads for each of 4 key heads, as in the models of 7B."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    shape = dream_folders.config("dreamon")
    shape |= {"hidden_size": 3584, "num_attention_heads": 28, "num_key_value_heads": 4}
    shape |= {"intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 96}
    shape |= {name: None for name in shape if name.endswith("_token_id")}
    kept = {k: v for k, v in shape.items() if k not in ("auto_map", "model_type", "architectures")}
    theirs = Qwen2ForCausalLM(Qwen2Config(**{**kept, "torch_dtype": "float32"})).eval().float()
    ours = Dense(parse_dense(shape), theirs.state_dict())
    ids = torch.randint(96, (40,))
    model = WindowDenoiser(ours, Batch(ours), [], None, True)
    logits, _ = model.ask(ids, None, torch.arange(40), None)()
    assert float((logits - seen_by_all(theirs, ids.tolist())).abs().max()) < 1e-4


def published(
    model: Any, engine: InfillEngine, front: list[int], behind: list[int], n: int
) -> list[int]:
    """DreamOn's loop as its evaluation has it: one token a pass, by lowest entropy; a deletion
    takes all masks to its right with it. It draws by our counters, for slots by their number."""
    span, draws, sampling = (
        [(slot, MASK) for slot in range(n)],
        Draws(0, CPU),
        engine.profile.sampling,
    )
    for step in itertools.count(1):
        open_slots = [i for i, (_, token) in enumerate(span) if token == MASK]
        if not open_slots:
            return [token for _, token in span]
        logits = seen_by_all(model, [*front, *(token for _, token in span), *behind])
        logits = logits[len(front) :][open_slots] + engine.banned
        probs = nucleus((logits / sampling.t_max).softmax(-1), sampling.top_p)
        slots = [span[i][0] for i in open_slots]
        drawn = sample(probs, draws.uniform(step, slots, Draws.TOKEN)).tolist()
        doubt = entropies(probs)  # of equals, which there often are, the first one
        best = int((doubt == doubt.min()).nonzero()[0])
        chosen, token = open_slots[best], drawn[best]
        if token == END:
            span = [one for i, one in enumerate(span) if i < chosen or one[1] != MASK]
        else:
            span[chosen] = (span[chosen][0], token)
    raise AssertionError


def test_dreamon_decides_as_its_published_loop(engine_of: Callable[[str], InfillEngine]) -> None:
    """Line ends and healing are ours and stay out: the text breaks between lines."""
    engine, theirs = engine_of("dreamon"), reference("dreamon")
    encode, slots = engine.tokenizer.encode, 12
    before, lengths = engine.banned, set[int]()
    for seed, push in enumerate((0.0, 8.0, 9.5, 11.0)):
        prefix, suffix = f"x{seed} = {seed}\n", f"print({seed})\n"
        # A random model hardly ever deletes: its mind is made up for it, the same for both.
        engine.banned = before.clone()
        engine.banned[END] = push
        try:
            ours = engine.fill(InfillRequest(fill_in_the_middle(prefix, suffix, slots)))
            front, behind = [151_665, *encode(prefix)], [*encode(suffix), END]
            expected = published(theirs, engine, front, behind, slots)
        finally:
            engine.banned = before
        assert ours.text == engine.tokenizer.text_of(expected)
        assert ours.stop_reason == ("settled" if len(expected) < slots else "max_tokens")
        assert len(expected) <= ours.steps <= slots
        lengths.add(len(expected))
    assert slots in lengths
    assert len(lengths) > 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_hole_is_filled_and_nothing_else_changes(
    kind: str, engine_of: Callable[[str], InfillEngine]
) -> None:
    engine = engine_of(kind)
    events = list(engine.stream(InfillRequest(fill_in_the_middle(PREFIX, SUFFIX, 8), seed=5)))
    frames = [event for event in events if isinstance(event, Frame)]
    infill = events[-1]
    assert isinstance(infill, Infill)
    assert infill.holes == (infill.text,)
    assert len(frames) == infill.steps >= 1
    assert frames[-1].texts == infill.holes
    assert all(0 <= piece.certainty <= 1 for frame in frames for piece in frame.holes[0])
    assert infill.confidence is None, "nobody has measured how sure it is"
    for name in ("<|", "<M>"):
        assert name not in infill.text
    again = engine.fill(InfillRequest(fill_in_the_middle(PREFIX, SUFFIX, 8), seed=5))
    assert again.text == infill.text
    assert sum(len(cache.ids) for cache in engine.store.caches) == 0, "a window is never kept"


def test_a_calibration_makes_a_confidence(folders: dict[str, Path]) -> None:
    engine = InfillEngine.load(str(folders["open-dcoder"]), "cpu", dtype=torch.float32)
    engine.profile = replace(engine.profile, calibration=Calibration(1.0, 0.0))
    infill = engine.fill(InfillRequest(fill_in_the_middle(PREFIX, SUFFIX, 8), seed=5))
    assert infill.confidence is not None
    assert 0 < infill.confidence < 1


def test_a_line_is_filled_with_its_end(engine_of: Callable[[str], InfillEngine]) -> None:
    """DreamOn was trained on whole lines, whose ends are tokens with what stands before them."""
    engine = engine_of("dreamon")
    for newline in ("\n", "\r\n"):
        run = WindowRun(
            engine,
            InfillRequest(fill_in_the_middle(f"x{newline}y = ", f"{newline}z{newline}", 6)),
            lambda: False,
            None,
        )
        (gap,) = run.sheet.gaps
        assert gap.closes
        assert run.sheet.after(9) == [*engine.tokenizer.encode("z\n"), END]
        ids = engine.tokenizer.encode(" 1\n")
        assert run.sheet.text_of(gap, ids).removeprefix(" ") == "1"
        assert "".join(piece.text for piece in run.sheet.pieces(gap, ids, [])).strip() == "1"
        run.close(True)
    inside = WindowRun(
        engine, InfillRequest(fill_in_the_middle("y = ", ")\nz\n", 6)), lambda: False, None
    )
    assert not inside.sheet.gaps[0].closes
    inside.close(True)


def test_what_is_decided_is_as_sure_as_it_was_then(
    engine_of: Callable[[str], InfillEngine],
) -> None:
    engine = engine_of("dreamon")
    request = InfillRequest(fill_in_the_middle("a\n", "b\n", 5))
    frames = [one for one in engine.stream(request) if isinstance(one, Frame)]
    last = {piece.text: piece.certainty for piece in frames[-1].holes[0]}
    assert any(certainty < 0.999 for certainty in last.values())


def test_a_deadline_ends_a_fill_with_what_there_is(
    engine_of: Callable[[str], InfillEngine],
) -> None:
    engine = engine_of("dreamon")
    before = engine.pass_seconds
    engine.pass_seconds = 100.0
    try:
        infill = engine.fill(InfillRequest(fill_in_the_middle("a\n", "b\n", 6), budget_s=150.0))
    finally:
        engine.pass_seconds = before
    assert (infill.steps, infill.stop_reason) == (1, "max_tokens")
    assert infill.text


def test_a_draft_stays_by_its_strength(engine_of: Callable[[str], InfillEngine]) -> None:
    engine = engine_of("dream-coder")
    kept = engine.fill(InfillRequest(rewrite("a = ", "print(self)", "\nb\n", 0.0)))
    assert (kept.text, kept.steps) == ("print(self)", 0)
    partly = engine.fill(InfillRequest(rewrite("a = ", "print(self)", "\nb\n", 0.5)))
    assert any(part in partly.text for part in ("print", "(", "self", ")"))


def test_the_length_is_that_at_which_the_text_around_says_most(
    engine_of: Callable[[str], InfillEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of("dream-coder")
    seen: list[int] = []

    def mean_entropy(run: WindowRun, window: Tensor, hidden: Tensor) -> float:
        assert len(window) == len(hidden)
        count = int((window == MASK).sum())
        bare = len(window) == count + 1
        seen.append(-count if bare else count)
        return 5.0 if bare else 5.0 - (count == 4) - 0.5 * (count == 2)

    monkeypatch.setattr(WindowRun, "_mean_entropy", mean_entropy)
    engine.bare_entropy.clear()
    infill = engine.fill(InfillRequest(fill_in_the_middle("a = ", "\nb\n", 12)))
    assert seen == [1, 2, 4, 8, 12, -1, -2, -4, -8, -12]
    assert infill.forward_passes == infill.steps + 1
    assert infill.steps == 4
    seen.clear()
    engine.fill(InfillRequest(fill_in_the_middle("a = ", "\nb\n", 12)))
    assert seen == [1, 2, 4, 8, 12]
    engine.bare_entropy.clear()
    assert engine.profile.hole == 16
    engine.fill(InfillRequest(fill_in_the_middle("a = ", "\nb\n", 40)))
    assert 16 in seen


def test_a_named_length_is_kept(engine_of: Callable[[str], InfillEngine]) -> None:
    engine = engine_of("open-dcoder")
    hole = Hole(max_tokens=3, fixed_length=True)
    infill = engine.fill(InfillRequest((Fixed("a\n"), hole, Fixed("b\n"))))
    assert infill.steps == infill.forward_passes == 3

"""How sure a result is, and what a calibration makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from engine.backbones.config import parse_config
from engine.errors import ModelError
from engine.profile import Calibration
from engine.types import (
    InfillRequest,
    fill_in_the_middle,
)
from engine.weights.profile import load_profile
from tests.engine.asking import (
    TINY,
    drain,
)
from tests.engine.tiny import (
    SLACK,
    fake_engine,
    random_script,
    tiny_config,
)


def test_a_calibration_maps_what_results_and_frames_report_and_nothing_else() -> None:
    calibration = Calibration(scale=0.5, shift=-1.0)
    request = InfillRequest(fill_in_the_middle("x = ", "\n"))
    plain, mapped = (
        fake_engine(random_script(len(TINY), 5), **profile)[0].stream(request)
        for profile in ({}, {"calibration": calibration})
    )
    frames, result = drain(plain)
    mapped_frames, mapped_result = drain(mapped)
    assert mapped_result.text == result.text
    assert mapped_result.confidence == pytest.approx(calibration(result.confidence))
    assert mapped_result.confidence != pytest.approx(result.confidence, abs=1e-3)
    for frame, other in zip(frames, mapped_frames, strict=True):
        assert other.holes == frame.holes
        assert other.confidence == (frame.confidence and calibration(frame.confidence))


def test_the_last_frame_is_as_sure_as_the_result() -> None:
    word = TINY.encode("x")[0]
    ends = dict.fromkeys(range(5, 99), SLACK)

    def script(call: int, ids: Tensor, slots: Tensor) -> Tensor:
        logits = torch.zeros(len(slots), len(TINY))
        for row, slot in enumerate(slots.tolist()):
            logits[row, ends.get(slot, word)] = 6.0 + call
        return logits

    engine, _ = fake_engine(script)
    # The space before the cursor belongs to the first token, and counts on both sides.
    frames, result = drain(engine.stream(InfillRequest(fill_in_the_middle("x = ", "\n"))))
    assert frames[-1].confidence == pytest.approx(result.confidence)
    assert result.confidence < 0.9


def test_a_calibration_is_monotone_and_stays_between_0_and_1() -> None:
    calibration = Calibration(scale=1.5, shift=-0.7)
    values = [calibration(share / 100) for share in range(101)]
    assert values == sorted(values)
    assert 0 <= values[0] < values[-1] <= 1
    assert Calibration(1.0, 0.0)(0.3) == pytest.approx(0.3)


@pytest.mark.parametrize("broken", [{"scale": 0, "shift": 0}, {"scale": 1}, 3, {"shift": "x"}])
def test_a_broken_calibration_is_named(tmp_path: Path, broken: object) -> None:
    profile = {"name": "m", "calibration": broken}
    (tmp_path / "infill.json").write_text(json.dumps(profile))
    with pytest.raises(ModelError, match=r"infill\.json is broken"):
        load_profile(tmp_path, parse_config(tiny_config()))
    (tmp_path / "infill.json").write_text(
        json.dumps({"name": "m", "calibration": {"scale": 2.0, "shift": -1.0}})
    )
    loaded = load_profile(tmp_path, parse_config(tiny_config()))
    assert loaded.calibration == Calibration(2.0, -1.0)

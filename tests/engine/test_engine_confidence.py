"""How sure a result is, and what a calibration makes of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.backbones.config import parse_config
from engine.errors import ModelError
from engine.profile import Calibration
from engine.types import Fixed, Hole, InfillRequest, Template, fill_in_the_middle, rewrite
from engine.weights.profile import load_profile
from tests.engine.asking import (
    TINY,
    drain,
)
from tests.engine.tiny import (
    always,
    fake_engine,
    random_script,
    tiny_config,
)


def test_a_calibration_maps_what_results_report_and_nothing_else() -> None:
    calibration = Calibration(scale=0.5, shift=-1.0)
    request = InfillRequest(fill_in_the_middle("x = ", "\n"))
    plain, mapped, unknown = (
        drain(fake_engine(random_script(len(TINY), 5), calibration=one)[0].stream(request))
        for one in (Calibration(1.0, 0.0), calibration, None)
    )
    assert plain[0] == mapped[0] == unknown[0]
    assert plain[1].text == mapped[1].text == unknown[1].text
    assert plain[1].confidence is not None
    assert 0.01 < plain[1].confidence < 0.9
    assert mapped[1].confidence == pytest.approx(calibration(plain[1].confidence))
    assert unknown[1].confidence is None, "what nobody has measured is not told"


@pytest.mark.parametrize(
    "template",
    [
        rewrite("x = ", "y", "\n", 0.5),
        (Fixed("x = "), Hole(), Fixed("y = "), Hole(), Fixed("\n")),
        (Fixed("x = "), Hole(max_tokens=4, fixed_length=True), Fixed("\n")),
    ],
    ids=["a draft", "two holes", "a fixed length"],
)
def test_what_no_calibration_was_measured_on_has_no_confidence(template: Template) -> None:
    """A mean over their tokens called what was wrong 99% sure."""
    sure = always(len(TINY), TINY.encode("x")[0])
    assert fake_engine(sure)[0].fill(InfillRequest(template)).confidence is None
    one = InfillRequest(fill_in_the_middle("x = ", "\n"))
    assert fake_engine(sure)[0].fill(one).confidence is not None


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

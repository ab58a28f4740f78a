"""The program by which `make` sets everything up."""

from __future__ import annotations

import importlib.util
import io
import urllib.request
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def setup() -> ModuleType:
    """The program that `make` runs."""
    spec = importlib.util.spec_from_file_location("setup_program", ROOT / ".ci" / "setup.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_setup_goes_on_without_the_base(
    setup: ModuleType, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    python = tmp_path / "python"
    for script, said in (
        ("echo loading; echo 'diffgemma-lsp: no network: try again' >&2; exit 2", "no network"),
        ("echo it is here", None),
    ):
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        setup.pull(str(python))
        out, err = capfd.readouterr()
        assert err == ""
        assert out.splitlines()[1:] == (
            [f"nano serves instead of mini, whose base is not here: {said}: try again"]
            if said
            else []
        )
    python.write_text("#!/bin/sh\nexit 130\n")
    with pytest.raises(KeyboardInterrupt):
        setup.pull(str(python))


def is_reached(*_: object, **__: object) -> io.BytesIO:
    return io.BytesIO()


def is_not_reached(*_: object, **__: object) -> io.BytesIO:
    raise TimeoutError("timed out")


@pytest.mark.parametrize(
    ("system", "driver", "configured", "answer", "is_asked"),
    [
        ("Linux", False, "global.timeout='60'", is_reached, True),
        ("Darwin", False, "", is_reached, False),
        ("Linux", True, "", is_reached, False),
        ("Linux", False, "global.index-url='https://mirror.example'", is_reached, False),
        ("Linux", False, "", is_not_reached, False),
    ],
)
def test_cuda_is_not_loaded_where_it_serves_nobody(
    setup: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    system: str,
    driver: bool,
    configured: str,
    answer: object,
    is_asked: bool,
) -> None:
    if driver:
        (tmp_path / "version").touch()
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setattr(setup.platform, "system", lambda: system)
    monkeypatch.setattr(setup, "NVIDIA", (str(tmp_path / "version"),))
    monkeypatch.setattr(setup, "follow", lambda _: (0, configured))
    monkeypatch.setattr(urllib.request, "urlopen", answer)
    expected = ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    assert setup.builds("python") == (expected if is_asked else [])

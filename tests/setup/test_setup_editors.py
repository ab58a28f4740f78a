"""What each editor's files become, in an empty home and in one that holds something else."""

from __future__ import annotations

import json
import plistlib
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from serving import configured

from diffgemma_lsp.setup import place as place_module
from diffgemma_lsp.setup.change import change
from diffgemma_lsp.setup.editors import BY_NAME, EDITORS
from diffgemma_lsp.setup.edits import Refused
from diffgemma_lsp.setup.place import SERVED, Place, here, plugin, program

ROOT = Path(__file__).resolve().parents[2]
LSP_OF_NEOVIM = ROOT / "editors" / "neovim" / "lsp" / "diffgemma.lua"
PROGRAM = '/opt/a "b"/diffgemma-lsp'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    """An empty home, on a machine without editors."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("NVIM_APPNAME", raising=False)
    config = tmp_path / ".config"
    return Place(tmp_path, config, tmp_path / ".local" / "share", config, PROGRAM)


def done(place: Place, name: str) -> dict[str, str]:
    """Sets an editor up and returns its files; a second time nothing changes."""
    for path, edit in BY_NAME[name].setup(place).files.items():
        change(path, edit).write()
        assert not change(path, edit).is_needed
    files = BY_NAME[name].setup(place).files
    return {str(path.relative_to(place.home)): path.read_text() for path in files}


def taken_back(place: Place, name: str) -> None:
    for path, edit in BY_NAME[name].setup(place).files.items():
        change(path, edit, remove=True).write()
        assert not change(path, edit, remove=True).is_needed


@pytest.mark.parametrize("model", [None, "mini", "nano"])
@pytest.mark.parametrize("name", BY_NAME)
def test_a_home_is_as_before_when_it_is_taken_back(
    place: Place, name: str, model: str | None
) -> None:
    done(replace(place, model=model), name)
    taken_back(place, name)
    assert [path for path in place.home.rglob("*") if path.is_file()] == []


def test_neovim(place: Place) -> None:
    ((name, text),) = done(place, "neovim").items()
    assert name == ".config/nvim/after/plugin/diffgemma.lua"
    assert f'local plugin = "{ROOT}/editors/neovim"\n' in text
    cmd = 'cmd = { "/opt/a \\"b\\"/diffgemma-lsp" }'
    assert f'vim.lsp.config("diffgemma", {{ {cmd} }})\n' in text
    ((_, text),) = done(replace(place, model="nano"), "neovim").items()
    assert f'{{ {cmd}, init_options = {{ model = "nano" }} }}' in text


def test_neovim_under_another_name(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIM_APPNAME", "nvim-new")
    assert list(done(place, "neovim")) == [".config/nvim-new/after/plugin/diffgemma.lua"]


def test_a_file_for_neovim_by_someone_else_is_left_alone(place: Place) -> None:
    path = place.config / "nvim" / "after" / "plugin" / "diffgemma.lua"
    path.parent.mkdir(parents=True)
    path.write_text("-- mine\n")
    with pytest.raises(Refused):
        done(place, "neovim")
    assert path.read_text() == "-- mine\n"


def test_vscode(place: Place) -> None:
    ((name, text),) = done(place, "vscode").items()
    assert name == ".config/Code/User/settings.json"
    assert json.loads(text) == {"diffgemma.server.path": PROGRAM}
    path = place.home / name
    path.write_text(f'{{\n    // mine\n    "diffgemma.model": "nano",\n    {text.strip()[1:]}\n')
    before = path.read_text()
    done(place, "vscode")
    assert path.read_text() == before, "what was said of the model holds"
    done(replace(place, model="mini"), "vscode")
    assert path.read_text() == before.replace('    "diffgemma.model": "nano",\n', "")
    done(replace(place, model="dreamon"), "vscode")
    assert '"diffgemma.model": "dreamon"' in path.read_text()
    taken_back(place, "vscode")
    assert path.read_text().split() == ["{", "//", "mine", "}"]


def test_vscode_and_what_is_made_of_it(place: Place) -> None:
    for folder in ("Code - Insiders", "VSCodium"):
        (place.config / folder).mkdir(parents=True)
    (place.data / "code-server").mkdir(parents=True)
    assert list(done(place, "vscode")) == [
        ".config/Code - Insiders/User/settings.json",
        ".config/VSCodium/User/settings.json",
        ".local/share/code-server/Machine/settings.json",
    ]


def test_vscode_that_was_never_started(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def files() -> list[str]:
        return [str(path.relative_to(place.home)) for path in BY_NAME["vscode"].setup(place).files]

    monkeypatch.delenv("WSL_DISTRO_NAME", raising=False)
    fake_program(place, "code", "")
    fake_program(place, "codium", "")
    assert files() == [f".config/{name}/User/settings.json" for name in ("Code", "VSCodium")]
    (place.home / ".vscode-server").mkdir()
    remote = ".vscode-server/data/Machine/settings.json"
    assert files() == [remote, ".config/VSCodium/User/settings.json"]
    (place.home / ".vscode-server").rmdir()
    monkeypatch.setenv("WSL_DISTRO_NAME", "Debian")
    assert files()[0] == remote


def fake_program(place: Place, name: str, prints: str) -> None:
    (place.home / "bin").mkdir(exist_ok=True)
    path = place.home / "bin" / name
    path.write_text(f"#!/bin/sh\necho '{prints}'\n")
    path.chmod(0o755)


def packaged(folder: Path, version: str) -> Path:
    import zipfile

    path = folder / "it.vsix"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("extension/package.json", json.dumps({"version": version}))
    return path


def test_the_extension_is_installed_once(place: Place, tmp_path: Path) -> None:
    vscode = BY_NAME["vscode"].setup
    vsix = packaged(tmp_path, "0.2.0")
    place = replace(place, extension=vsix)
    assert vscode(place).install == ()
    assert vscode(place).then[0].startswith(f"Install {vsix} by Extensions")
    fake_program(place, "code", "diffgemma.diffgemma-lsp@0.1.0")
    assert vscode(place).install == (("code", "--install-extension", str(vsix)),)
    assert vscode(place).uninstall == (
        ("code", "--uninstall-extension", "diffgemma.diffgemma-lsp"),
    )
    fake_program(place, "code", "diffgemma.diffgemma-lsp@0.2.0")
    assert vscode(place).install == ()
    assert vscode(place).then[0] == "code has version 0.2.0 of the extension already."
    fake_program(place, "code", "other.thing@0.2.0")
    assert vscode(place).uninstall == ()
    assert "make vsix" in vscode(replace(place, extension=None)).then[0]


def helix(place: Place) -> dict[str, Any]:
    ((name, text),) = done(place, "helix").items()
    assert name == ".config/helix/languages.toml"
    return tomllib.loads(text)


def test_helix(place: Place) -> None:
    found = helix(replace(place, model="nano"))
    assert found["language-server"] == {
        "diffgemma": {"command": PROGRAM, "config": {"model": "nano"}}
    }
    servers = {one["name"]: one["language-servers"] for one in found["language"]}
    assert all(own and last == "diffgemma" for *own, last in servers.values())
    assert servers["rust"] == ["rust-analyzer", "diffgemma"]
    assert len(servers) == len(found["language"])


def test_helix_and_emacs_have_the_languages_of_the_other_editors(place: Place) -> None:
    listed = re.search(r"filetypes = \{(.*?)\}", LSP_OF_NEOVIM.read_text(), re.DOTALL)
    assert listed is not None
    wanted = re.findall(r"'(\w+)'", listed[1])
    short = {"javascriptreact": "jsx", "typescriptreact": "tsx"}
    names = [one["name"] for one in helix(place)["language"]]
    assert sorted(names) == sorted(short.get(name, name) for name in wanted)
    ((_, emacs),) = done(place, "emacs").items()
    (active,) = re.findall(r"lsp-activate-on\s([^)]*)\)", emacs)
    assert re.findall(r'"(\w+)"', active) == wanted


OWN_LANGUAGES = """\
# mine
[[language]]
name = "python"
auto-format = true
language-servers = [{ name = "ty", except-features = ["completion"] }, "ruff"]

[[language]]
name = "go"
language-servers = ["gopls"]

[[language]]
name = "elm"
language-servers = []

[language-server.ty]
command = "ty" # as it comes
"""


def test_helix_goes_on_with_the_servers_that_it_had(place: Place) -> None:
    path = place.config / "helix" / "languages.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN_LANGUAGES)
    mine, go, elm, *all_of_ours = helix(place)["language"]
    assert (go["language-servers"], elm) == (["gopls"], {"name": "elm", "language-servers": []})
    assert {"name": "go", "language-servers": ["gopls", "diffgemma"]} in all_of_ours
    (ours,) = (one for one in all_of_ours if one["name"] == "python")
    ty = {"name": "ty", "except-features": ["completion"]}
    assert mine["language-servers"] == [ty, "ruff"]
    assert ours == {"name": "python", "language-servers": [ty, "ruff", "diffgemma"]}
    assert path.read_text().startswith(OWN_LANGUAGES)
    taken_back(place, "helix")
    assert path.read_text() == OWN_LANGUAGES


@pytest.mark.parametrize(
    "text",
    [
        "[language-server.diffgemma]\ncommand = 'mine'\n",
        "language = [{ name = 'go' }]\n",
        "language-server = { ty = { command = 'ty' } }\n",
        "nothing like it\n",
        "language = 3\n",
    ],
)
def test_what_can_not_be_added_to_is_left_alone(place: Place, text: str) -> None:
    path = place.config / "helix" / "languages.toml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(Refused):
        done(place, "helix")
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ([], ".emacs.d/init.el"),
        ([".emacs", ".emacs.d/init.el"], ".emacs"),
        ([".config/emacs/init.el"], ".config/emacs/init.el"),
        ([".config/emacs/early-init.el"], ".config/emacs/init.el"),
    ],
)
def test_emacs(place: Place, there: list[str], chosen: str) -> None:
    for name in there:
        (place.home / name).parent.mkdir(parents=True, exist_ok=True)
        (place.home / name).write_text("(mine)\n")
    ((name, text),) = done(replace(place, model="nano"), "emacs").items()
    assert name == chosen
    assert text.startswith("(mine)\n" if chosen in there else ";; >>>")
    quoted = '"/opt/a \\"b\\"/diffgemma-lsp"'
    assert f'({quoted} :initializationOptions (:model "nano"))' in text
    assert f"(lsp-stdio-connection '({quoted}))" in text
    assert text.count("(") == text.count(")")


def test_zed(place: Place) -> None:
    path = place.config / "zed" / "settings.json"
    path.parent.mkdir(parents=True)
    mine = '// Zed\n{\n  "edit_predictions": { "mode": "subtle" },\n  "theme": "One"\n}\n'
    path.write_text(mine)
    ((_, text),) = done(place, "zed").items()
    assert text.startswith('// Zed\n{\n  "edit_predictions": {')
    found = json.loads(text.removeprefix("// Zed"))["edit_predictions"]
    said = json.loads("{" + configured("Zed", SERVED) + "}")["edit_predictions"]
    assert found == {"mode": "subtle", **said}
    taken_back(place, "zed")
    assert path.read_text() == mine


def test_continue(place: Place) -> None:
    ((name, text),) = done(place, "continue").items()
    assert name == ".continue/models/diffgemma-lsp.yaml"
    (model,) = yaml.safe_load(text)["models"]
    (said,) = yaml.safe_load(configured("Continue", SERVED))
    assert model == {**said, "name": "diffgemma"}


def test_a_service_of_systemd(place: Place) -> None:
    place = replace(place, model="nano", program="/opt/100%/diffgemma-lsp")
    ((name, text),) = done(place, "service").items()
    assert name == ".config/systemd/user/diffgemma-lsp.service"
    assert '\nExecStart="/opt/100%%/diffgemma-lsp" serve --model nano\n' in text
    assert "--host" not in text, "loopback only"
    (said,) = BY_NAME["service"].setup(place).then
    assert said.endswith("systemctl --user enable --now diffgemma-lsp.service")


def test_a_service_of_launchd(place: Place) -> None:
    ((name, text),) = done(replace(place, on_mac=True), "service").items()
    assert name == "Library/LaunchAgents/org.diffgemma.lsp.plist"
    found = plistlib.loads(text.encode())
    assert found["ProgramArguments"] == [PROGRAM, "serve"]
    (said,) = BY_NAME["service"].setup(replace(place, on_mac=True)).then
    assert f'launchctl bootstrap gui/$UID "{place.home / name}"' in said


def test_those_in_use_are_found(place: Place) -> None:
    assert [editor.name for editor in EDITORS if editor.is_here(place)] == []
    for name in ("nvim", "hx", "emacs", "codium"):
        fake_program(place, name, "")
    (place.config / "zed").mkdir(parents=True)
    (place.home / ".continue").mkdir()
    (place.data / "nvim" / "lazy" / "llama.vim").mkdir(parents=True)
    found = [editor.name for editor in EDITORS if editor.is_here(place)]
    assert found == ["vscode", "neovim", "helix", "emacs", "llama.vim", "zed", "continue"]


def test_where_configuration_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(place_module.sys, "platform", "linux")
    found = here()
    assert found.settings == found.config == tmp_path / ".config"
    assert found.data == tmp_path / ".local" / "share"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "own"))
    assert here().settings == here().config == tmp_path / "own"
    monkeypatch.setattr(place_module.sys, "platform", "darwin")
    assert here().settings == tmp_path / "Library" / "Application Support"
    assert here().on_mac


def test_the_program_is_the_one_that_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "diffgemma-lsp"
    real.write_text("")
    real.chmod(0o755)
    link.symlink_to(real)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(place_module.sys, "argv", ["./diffgemma-lsp", "setup"])
    assert program() == str(link)
    real.chmod(0o600)
    monkeypatch.setattr(place_module.sys, "argv", ["/x/__main__.py", "setup"])
    monkeypatch.setattr(place_module.sys, "executable", str(tmp_path / "none" / "python"))
    with pytest.raises(FileNotFoundError, match=r"there is no program .*none/diffgemma-lsp"):
        program()


def test_the_plugin_is_found_in_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (plugin() / "plugin" / "diffgemma.lua").is_file()
    (tmp_path / "neovim").mkdir()
    monkeypatch.setattr(place_module, "_PACKAGE", tmp_path)
    assert plugin() == tmp_path / "neovim"


def test_pages_name_the_command() -> None:
    for editor in ("vscode", "neovim", "helix", "emacs"):
        page = (ROOT / "editors" / editor / "README.md").read_text(encoding="utf-8")
        assert re.search(rf"diffgemma-lsp setup {editor}\b", page)


def test_the_page_of_the_extension_leads_nowhere_else() -> None:
    """It is shown by VS Code, where the repository is not; vsce refuses to package such a link."""
    page = (ROOT / "editors" / "vscode" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\]\((?!https://)[^)]*\)", page) == []

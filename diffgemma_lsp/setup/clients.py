"""Clients of `diffgemma-lsp serve`: Zed, Continue, llama.vim."""

from __future__ import annotations

from diffgemma_lsp.setup.edits import OwnFile, signature
from diffgemma_lsp.setup.json_members import Members
from diffgemma_lsp.setup.place import SERVED, Place, Setup, on_path

_SERVE = (
    "It asks `diffgemma-lsp serve`, which has to run: `diffgemma-lsp setup service` keeps it so."
)
_CONTINUE = signature("continue", "#")
# A file that Continue adds to the models of config.yaml, which stays as it is.
_BLOCK = f"""\
name: diffgemma-lsp
version: 1.0.0
schema: v1
models:
  - name: diffgemma
    provider: mistral
    model: mini
    apiBase: {SERVED}/v1/
    apiKey: none
    roles:
      - autocomplete
"""


def zed_is_here(place: Place) -> bool:
    return on_path("zed", "zeditor") or (place.config / "zed").is_dir()


def zed(place: Place) -> Setup:
    """Edit predictions, from another provider than before if there was one."""
    own = {
        "api_url": f"{SERVED}/v1/completions",
        "model": "zeta2",  # a name for Zed: with this prompt it says what was edited last
        "prompt_format": "zeta2",
        "max_output_tokens": 64,
    }
    edit = Members(
        {
            ("edit_predictions", "provider"): "open_ai_compatible_api",
            ("edit_predictions", "open_ai_compatible_api"): own,
        }
    )
    return Setup({place.config / "zed" / "settings.json": edit}, then=(_SERVE,))


def continue_is_here(place: Place) -> bool:
    return (place.home / ".continue").is_dir()


def continue_dev(place: Place) -> Setup:
    path = place.home / ".continue" / "models" / "diffgemma-lsp.yaml"
    return Setup(
        {path: OwnFile(_CONTINUE + _BLOCK, _CONTINUE)},
        then=("Choose diffgemma as Continue's model for autocomplete.", _SERVE),
    )


def llama_vim_is_here(place: Place) -> bool:
    folders = (place.data / "nvim", place.data / "nvim" / "site", place.home / ".vim")
    shapes = ("lazy/llama.vim", "plugged/llama.vim", "pack/*/*/llama.vim")
    return any(any(folder.glob(shape)) for folder in folders for shape in shapes)


def llama_vim(place: Place) -> Setup:
    """Nothing is written: 8012 is where it asks by itself."""
    known = "llama.vim needs no configuration, once your plugin manager has it."
    return Setup({}, then=(known, _SERVE))

"""Whether a folder can become an engine, told before its weights are read: 50 GB take a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.backbones.base import BackboneConfig
from engine.errors import ModelError
from engine.profile import Profile
from engine.text.chat import Chat
from engine.text.tokenizer import TextTokenizer
from engine.weights.families import config_folder, family_of
from engine.weights.profile import load_profile


@dataclass(frozen=True, slots=True)
class Checked:
    """All of a checkpoint but its weights.

    chat: None if the model follows no instructions; no_chat: why, if that is not as it should be.
    """

    config: BackboneConfig
    profile: Profile
    tokenizer: TextTokenizer
    chat: Chat | None
    no_chat: str | None


def check(folder: Path) -> Checked:
    """Reads everything beside the weights in `folder`, and the headers of their files.

    Raises ModelError, with one line, for whatever would keep the engine from loading; a chat
    template that can't be used is not among that.
    """
    family = family_of(folder)
    config = family.read_config(folder)
    profile = load_profile(folder, config, family.default_profile)
    tokenizer = TextTokenizer.load(config_folder(folder), profile.extra)
    known = len(tokenizer) - len(profile.extra)
    if known > config.vocab_size:
        raise ModelError(
            f"the tokenizer of {profile.name} has {known} tokens, its model "
            f"{config.vocab_size}; download the model again"
        )
    chat = Chat.open(folder, tokenizer) if "instruct" in profile.can else None
    family.check_weights(folder, config)
    if isinstance(chat, str):
        return Checked(config, profile, tokenizer, None, chat)
    return Checked(config, profile, tokenizer, chat, None)

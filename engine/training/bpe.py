"""The tokenizer of the embedded model: a byte-level BPE whose pre-tokens break where cursors do.

    python -m engine.training.bpe --data DIR --out engine/weights/nano

Ids 0 to 3 are special tokens, the 256 bytes and the merges follow, 4096 in all. There is no
normalizer and no post-processor: text goes in and comes out bit for bit, and the caller puts
``<bos>`` in front itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

VOCAB_SIZE = 4096
PAD, EOS, BOS, SLACK = 0, 1, 2, 3
SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<slack>")

# In order: one newline; the indentation (also at the start of a text, but there one space
# belongs to the word behind it, since such a text is mostly cut out of a line); blanks that end
# a line; blanks in front of a run's last one; operators with the spaces on both sides (so that a
# cursor behind "x = " or "f(a, " is at a boundary); a word with its space; digits in threes;
# triple quotes; short runs of brackets, quotes and stops, which take the space behind "," or ":"
# along; other punctuation; whatever is left.
_STOPS = r"()\[\]{}\"'`,:.;"
_TRIPLE = r"(?:\"{3}|'{3})"
_RUN = f"(?:(?!{_TRIPLE})[{_STOPS}])"
PATTERN = "|".join(
    (
        r"\r\n|\n|\r",
        r"(?<=[\r\n])[ \t]+|\A(?:[ \t]{2,}|\t)",
        r"[ \t]+(?=[\r\n])",
        r"[ \t]+(?=[ \t])",
        r" [=+\-*/%<>!&|^@~]{1,3} (?![ \t\r\n])",
        r" ?[\p{L}\p{M}_]+",
        r" ?\p{N}{1,3}",
        rf" ?{_TRIPLE}",
        rf" ?{_RUN}{{0,2}}[,:] (?![ \t\r\n])",
        rf" ?{_RUN}{{1,3}}",
        rf" ?[^\s\p{{L}}\p{{M}}\p{{N}}_{_STOPS}]{{1,8}}",
        r"\s",
    )
)


def build_tokenizer() -> Tokenizer:
    """An untrained tokenizer: the model, the pre-tokenizer and the decoder."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def train_tokenizer(
    texts: Iterator[str], *, vocab_size: int = VOCAB_SIZE, progress: bool = False
) -> Tokenizer:
    """Train on the texts; special tokens get ids 0 to 3, bytes and merges the others."""
    tokenizer = build_tokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=progress,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, out: Path) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>",
        "eos_token": "<eos>",
        "bos_token": "<bos>",
        "additional_special_tokens": ["<slack>"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": 2048,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def load(path: Path) -> Tokenizer:
    """The tokenizer of a folder, set so that text which spells a special token stays text."""
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return tokenizer


def sample_texts(store: Path, limit: int) -> Iterator[str]:
    """About ``limit`` bytes of a text store, spread evenly over it; some with CRLF line ends."""
    step = max(1, round(store.stat().st_size / limit))
    with store.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if number % step == 0:
                text: str = json.loads(line)["text"]
                yield text.replace("\n", "\r\n") if number % (64 * step) == 0 else text


def main(argv: list[str] | None = None) -> None:
    """Train on a corpus' text store and write the tokenizer's files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="a corpus made by corpus.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the tokenizer files")
    parser.add_argument("--sample-mb", type=int, default=40)
    options = parser.parse_args(argv)
    store: Path = options.data / "texts.jsonl"
    limit: int = options.sample_mb * 1_000_000
    tokenizer = train_tokenizer(sample_texts(store, limit), progress=True)
    save(tokenizer, options.out)
    tokenizer.encode_special_tokens = True
    texts = list(sample_texts(store, limit // 20))
    tokens = sum(len(e.ids) for e in tokenizer.encode_batch(texts, add_special_tokens=False))
    size = sum(len(t.encode("utf-8")) for t in texts)
    print(f"{tokenizer.get_vocab_size()} tokens; {size / tokens:.3f} bytes per token")


if __name__ == "__main__":
    main()

"""The pool of chunks: its bounds, what it takes for the same, and what it ranks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from diffgemma_lsp.context.chunks import (
    CHARS,
    LINES,
    MOST_CHUNKS,
    PER_SOURCE,
    Chunk,
    ChunkPool,
    chunked,
    words_of,
)
from tests.cases import cases

lines = st.lists(st.text("abcd_ (\n", max_size=30).map(lambda s: s.replace("\n", "") + "\n"))


def chunk(source: str, words: str) -> Chunk:
    return Chunk(source, source, words + "\n", words_of(words))


def numbered(source: str, count: int) -> list[Chunk]:
    return [chunk(source, f"{source}{n}_a {source}{n}_b") for n in range(count)]


@cases(200)
@given(lines.map(lambda some: some * 20))
def test_chunks_are_pieces_of_the_text(some: list[str]) -> None:
    text = "".join(some)
    for each in chunked("u", "p", some):
        assert each.text.rstrip("\n") in text
        assert each.text.count("\n") <= LINES
        assert len(each.text) <= CHARS
        assert each.words == words_of(each.text)


def test_a_chunk_ends_where_a_definition_does() -> None:
    function = ["def f():\n", *(f"    call_{n}(alpha, beta)\n" for n in range(22)), "\n"]
    chunks = chunked("u", "p", function * 6)
    assert [each.text.count("\n") for each in chunks] == [47, 47, 47]
    assert all(each.text.startswith("def f") for each in chunks)


def test_data_is_not_chunked() -> None:
    assert chunked("u", "p", ["x" * (CHARS + 1) + "\n"]) == []
    assert chunked("u", "p", ["1, 2, 3\n"] * 500) == []


class Bounds(RuleBasedStateMachine):
    """Whatever is put in, there is never more than there may be, and the latest is there."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = ChunkPool()

    @rule(source=st.integers(0, 40), words=st.lists(st.text("abc", min_size=3), max_size=30))
    def put(self, source: int, words: list[str]) -> None:
        chunks = [chunk(str(source), f"{source}_{word} {word} {word}x") for word in words]
        generation = self.pool.generation
        self.pool.put(str(source), chunks)
        assert (str(source) in self.pool.sources) == bool(chunks)
        assert self.pool.generation > generation

    @rule(source=st.integers(0, 40))
    def put_many(self, source: int) -> None:
        self.pool.put(str(source), numbered(f"s{source}", 30))

    @rule(source=st.integers(0, 40))
    def drop(self, source: int) -> None:
        self.pool.drop(str(source))
        assert str(source) not in self.pool.sources

    @invariant()
    def bounded(self) -> None:
        pool = self.pool
        assert len(pool) <= MOST_CHUNKS
        held = pool._sources
        assert all(0 < len(chunks) <= PER_SOURCE for chunks in held.values())
        counted = {word: n for word, n in pool._holders.items() if n}
        found: dict[str, int] = {}
        for chunks in held.values():
            for each in chunks:
                for word in each.words:
                    found[word] = found.get(word, 0) + 1
        assert counted == found == dict(pool._holders)


TestBounds = Bounds.TestCase
TestBounds.settings = cases(30, stateful_step_count=30)


def test_the_oldest_sources_leave_first() -> None:
    pool = ChunkPool()
    names = [f"file{n}" for n in range(MOST_CHUNKS // PER_SOURCE + 3)]
    for name in names:
        pool.put(name, numbered(name, PER_SOURCE))
    assert pool.sources == frozenset(names[3:])
    pool.put(names[3], numbered(names[3], PER_SOURCE))
    pool.put("new", numbered("new", 1))
    assert names[3] in pool.sources
    assert names[4] not in pool.sources


def test_of_two_that_are_nearly_the_same_the_newer_stays() -> None:
    words = " ".join(f"name_{n}" for n in range(40))
    pool = ChunkPool()
    pool.put("old", [chunk("old", words), chunk("old", "something other here")])
    pool.put("new", [chunk("new", words + " one_more"), chunk("new", words)])
    texts = [each.text for _, each in pool.ranked(words_of(words + " other"), without="")]
    assert texts == [words + " one_more\n", "something other here\n"]


def test_rare_words_say_more_than_common_ones() -> None:
    pool = ChunkPool()
    for n in range(10):
        pool.put(f"c{n}", [chunk(f"c{n}", f"common return value_{n}")])
    pool.put("rare", [chunk("rare", "solitary thing")])
    ranked = pool.ranked(words_of("common solitary"), without="")
    assert ranked[0][1].source == "rare"
    assert all(0 < score <= 1 for score, _ in ranked)


@given(st.sets(st.sampled_from([f"file{n}" for n in range(9)])), st.sampled_from(range(9)))
def test_a_source_can_be_left_out(there: set[str], own: int) -> None:
    pool = ChunkPool()
    for name in there:
        pool.put(name, [chunk(name, f"shared words {name}")])
    sources = {each.source for _, each in pool.ranked(words_of("shared"), without=f"file{own}")}
    assert sources == there - {f"file{own}"}

"""What a renamed name means in each language: its uses follow, and no others.

In each text `width` is renamed in the line with `<<`; the uses that must follow stand in lines with
`<`. Every other `width` means something else.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffgemma_lsp.next_edit.parts import Region
from diffgemma_lsp.next_edit.places import places
from diffgemma_lsp.next_edit.source import Source
from diffgemma_lsp.syntax.languages import language_of
from diffgemma_lsp.syntax.naming import NAMING
from diffgemma_lsp.syntax.scopes import scopes_of
from tests.cases import cases

CASES = {
    "python method": """\
class Box:
    def area(self, width):  #<<
        print(f"{width}")  #<
        inner = lambda width: width
        rows = [width for width in inner]
        self.width = self.grow(width=1)
        return [width for row in rows]  #<

    def grow(self, width):
        return width
""",
    "python attribute": """\
class Box:
    def __init__(self):
        self.width = 1  #<<

    def area(self, width):
        return self.width * width  #< self


class Small(Box):
    def area(self, width):
        return self.width + width  #< self


class Other:
    def area(self, width):
        self.width = width
""",
    "python nested": """\
def area(rows):
    width = 0  #<<
    def add(row):
        nonlocal width  #<
        width += row  #<
    def other(width):
        return width
    return width  #<


width = 1
""",
    "python class": """\
class Box:
    width = 1  #<<
    height = width  #<

    def area(self):
        return width * self.width  #< self


class Other:
    width = 2

    def area(self):
        return self.width
""",
    "javascript method": """\
class Box {
  area(width, { height }) {  //<<
    const { depth = width } = this;  //<
    log(`${width}`, { width });  //< shorthand
    rows.map((width) => width * 2);
    rows.map(row => row * width);  //<
    this.width = { width: 1, ...width };  //<
  }
  grow(width) {
    return width;
  }
}
const width = 3;
""",
    "javascript arrow": """\
const area = (width, height) => {  //<<
  if (height) {
    const width = 2;
    return width;
  }
  return width * height;  //<
};
const other = (width) => width;
""",
    "javascript one parameter": """\
const area = width => width * 2;  //<<<
const other = width => width * 3;
""",
    "javascript block": """\
function area(rows) {
  for (const width of rows) {  //<<
    log(width);  //<
  }
  for (const width of rows) {
    log(width);
  }
  try { go(); } catch (width) { log(width); }
}
""",
    "javascript var": """\
function area(rows) {
  if (rows) {
    var width = rows.length;  //<<
  }
  return width;  //<
}
function other(width) { return width; }
""",
    "javascript destructured": """\
class Box {
  area([width, height]) {  //<<
    function inner() { return width; }  //<
    return height;
  }
  set size(width) { this.w = width; }
}
""",
    "javascriptreact": """\
function Box({ rows }) {
  const width = rows.length;  //<<
  return <div width={width} onClick={(width) => go(width)}>{width}</div>;  //< jsx
}
function Other({ width }) { return <b>{width}</b>; }
""",
    "typescript method": """\
class Box implements Sized {
  private width: number = 1;
  area<T>(width: number, height?: number): number {  //<<
    const rest = (width: T): T => width;
    return width * (height ?? 1) + this.width;  //<
  }
  grow(width: number): void {
    this.go(width);
  }
}
interface Sized { grow(width: number): void; }
""",
    "typescript field": """\
class Box {
  private width: number = 1;  //<<
  area(width: number): number {
    return width * this.width;  //< this
  }
}
class Other {
  private width = 2;
  area() { return this.width; }
}
""",
    "typescriptreact": """\
const Box = ({ rows }: Props) => {
  const [width, setWidth] = useState<number>(0);  //<<
  useEffect(() => { setWidth(width + 1); }, [width]);  //<
  return <Row width={width} />;  //< jsx
};
const Other = ({ width }: Props) => <Row width={width} />;
""",
    "java method": """\
class Box {
    private int width = 1;
    int area(int width, int height) {  //<<
        Runnable go = () -> log(width);  //<
        for (int i = 0; i < width; i++) { log(i); }  //<
        return this.width * width;  //< local
    }
    int grow(int width) {
        return width + width;
    }
    int own() { return width; }
}
""",
    "java field": """\
class Box {
    private int width = 1;  //<<
    Box(int width) {
        this.width = width;  //< this
    }
    int own() { return width; }  //<
}
class Other {
    int width;
    int own() { return this.width + width; }
}
""",
    "java lambda": """\
class Box {
    void area(List<Row> rows) {
        rows.map(width -> width + 1);  //<<<
        rows.map((width, height) -> width + height);
        try { go(); } catch (Bad width) { log(width); }
    }
}
""",
    "go method": """\
package main

func (b *Box) Area(width int, height int) (n int) {  //<<
	b.width = width  //< b.
	add := func(width int) int { return width }
	if height > width {  //<
		width := 2
		return width
	}
	return add(width)  //<
}

func (b *Box) Grow(width int) int {
	return width
}
""",
    "go variable": """\
package main

func area(rows []int) int {
	for _, width := range rows {  //<<
		log(width, Box{width: 1})  //<
	}
	for width := range rows {
		log(width)
	}
	width, err := read()
	return width
}
""",
    "rust method": """\
impl Box {
    fn area(&self, width: u32, height: u32) -> u32 {  //<<
        let add = |width: u32| width + 1;
        let b = Box { width: 1, height };
        match height {
            0 => width,  //<
            width if width > 1 => width,
            _ => add(width) + self.width,  //< self.
        }
    }
    fn grow(&mut self, width: u32) {
        self.width = width;
    }
}
""",
    "rust variable": """\
fn area(rows: &[u32]) -> u32 {
    if let Some(width) = rows.first() {  //<<
        println!("{}", width);  //<
    }
    for width in rows {
        println!("{}", width);
    }
    0
}
""",
    "rust shorthand": """\
fn area(width: u32) -> Box {  //<<
    Box { width, height: 1 }  //< shorthand
}
""",
    "c function": """\
struct box { int width; };
int grow(int width);
static int area(struct box *b, int width, int *rows) {  //<<
    for (int i = 0; i < width; i++) {  //<
        int width = rows[i];
        log(width);
    }
    return b->width * width;  //< ->
}
int other(int width) { return width; }
""",
    "c pointer": """\
char *area(const char *width, int n) {  //<<
    return width + n;  //<
}
char *other(char width[8]) { return width; }
""",
    "cpp method": """\
class Box {
 public:
  int area(int width, const Row& row) {  //<<
    auto add = [&](int width) { return width; };
    for (auto& one : row) { one.go(width); }  //<
    return this->width + add(width);  //< this->
  }
  int grow(int width) { return width; }
};
int Box::other(int width) { return width; }
""",
    "cpp out of its class": """\
int Box::area(int width, int height) {  //<<
  auto add = [width](int x) { return x; };  //<
  return width * height;  //<
}
int Box::grow(int width) { return width; }
""",
    "csharp method": """\
class Box {
    private int width = 1;
    public int Area(int width, int height) {  //<<
        Func<int, int> add = x => x + width;  //<
        var rest = rows.Select((width) => width);
        return this.width + Grow(width: width);  //< label
    }
    public int Grow(int width) {
        return width;
    }
}
""",
    "csharp variable": """\
class Box {
    void Area(int[] rows) {
        foreach (var width in rows) {  //<<
            Log(width);  //<
        }
        foreach (var width in rows) { Log(width); }
    }
}
""",
    "kotlin method": """\
class Box(val size: Int) {
    private val width = 1
    fun area(width: Int, height: Int): Int {  //<<
        val add = { width: Int -> width + 1 }
        for (i in 0..width) { log(i) }  //<
        return this.width + grow(width = add(width))  //< label
    }
    fun grow(width: Int): Int = width
}
""",
    "kotlin lambda": """\
fun area(rows: List<Int>) {
    rows.map { width -> width + 1 }  //<<<
    rows.map { width -> width + 2 }
}
""",
    "swift method": """\
class Box {
    private var width = 1
    func area(of width: Int, _ height: Int) -> Int {  //<<
        let add = { (width: Int) in width + 1 }
        for i in 0..<width { log(i) }  //<
        return self.width + grow(width: add(width))  //< label
    }
    func grow(width: Int) -> Int { return width }
}
""",
    "swift bound": """\
func area(rows: [Int]) {
    if let width = rows.first {  //<<
        log(width)  //<
    }
    guard let width = rows.last else { return }
    log(width)
}
""",
}

FOLLOWED = {
    "self": lambda line: line.replace("self.width", "self.w"),
    "this": lambda line: line.replace("this.width", "this.w"),
    "shorthand": lambda line: line.replace("{ width", "{ width: w"),
    "jsx": lambda line: line.replace("{width}", "{w}"),
}
"""What a line becomes where not each `width` in it follows."""

KEPT = ("this.width", "b.width", "self.width", "b->width", "this->width", "width:", "width =")
"""What does not follow in the line of another that does."""


def followed(line: str, how: str) -> str:
    if how == "shorthand":
        return line.replace("${width}", "${w}").replace("{ width", "{ width: w")
    if how in FOLLOWED:
        return FOLLOWED[how](line)
    for number, kept in enumerate(KEPT):
        line = line.replace(kept, f"@{number}@")
    line = line.replace("width", "w")
    for number, kept in enumerate(KEPT):
        line = line.replace(f"@{number}@", kept)
    return line


def renamed_in(case: str) -> tuple[Source, Region, dict[int, tuple[str, ...]]]:
    """The text with its edit, and what must follow."""
    language, text = case.split()[0], CASES[case]
    mark = "#<" if language == "python" else "//<"
    lines: list[str] = []
    wanted: dict[int, tuple[str, ...]] = {}
    edit: tuple[str, int] | None = None
    for number, marked in enumerate(text.split("\n")):
        line, _, how = marked.partition(f"  {mark}")
        if how.startswith("<"):
            edit = line, number
            line = line.replace("width", "w", 1)
        if how == "<<":
            wanted[number] = (line.replace("width", "w"),)
        elif marked != line and not how.startswith("<"):
            wanted[number] = (followed(line, how.strip()),)
        lines.append(line)
    assert edit is not None
    old, number = edit
    return (
        Source("\n".join(lines), language_of(language)),
        Region(old + "\n", number, number),
        wanted,
    )


@pytest.mark.parametrize("case", CASES)
def test_the_uses_of_a_renamed_name_follow_and_no_others(case: str) -> None:
    source, edit, wanted = renamed_in(case)
    assert source.scopes is not None
    assert {one.line: one.choices for one in places(source, edit, edit.first)} == wanted


@pytest.mark.parametrize("language", NAMING)
def test_every_language_with_a_grammar_has_cases(language: str) -> None:
    assert any(case.split()[0] == language for case in CASES)


METHODS = {
    "javascript": """\
class Box {
  area(size) {
    return size ? this.area(size - 1) : 0;
  }
}
class Other {
  area(size) { return this.area(size); }
}
class Small extends Box {
  area(size) { return super.area(size) + this.area(0); }
}
let area = 1;
""",
    "typescript": """\
interface Box { area(size: number): number; }
class Wide implements Box {
  area(size: number): number { return this.area(size); }
}
const area = (box: Box) => box.area(1);
""",
    "go": """\
package main

type Box interface {
	area(size int) int
}

func (w *Wide) area(size int) int {
	return w.area(size)
}

var area = 1
""",
    "rust": """\
trait Box { fn area(&self, size: u32) -> u32; }
impl Box for Wide {
    fn area(&self, size: u32) -> u32 { Self::area(self, size) + self.area(1) }
}
impl Other { fn area(&self) -> u32 { let area = 1; area } }
""",
    "java": """\
interface Box { int area(int size); }
class Wide implements Box {
    public int area(int size) { return area(size) + this.area(size); }
}
class Other {
    int area(int size) { return this.area(size); }
}
""",
    "cpp": """\
class Box {
  int area(int size);
  int own() { return area(1) + this->area(2); }
};
int Box::area(int size) { int area = size; return area; }
""",
    "csharp": """\
interface Box { int Area(int size); }
class Wide : Box {
    public int Area(int size) { return Area(size) + this.Area(size); }
}
""",
}


@pytest.mark.parametrize(
    ("language", "old", "lines"),
    [
        ("javascript", "  area(size) {", {2: 1, 9: 3}),
        ("typescript", "interface Box { area(size: number): number; }", {2: 2, 4: 1}),
        ("go", "\tarea(size int) int", {6: 1, 7: 1}),
        ("rust", "trait Box { fn area(&self, size: u32) -> u32; }", {2: 3}),
        ("java", "interface Box { int area(int size); }", {2: 3}),
        ("cpp", "  int area(int size);", {2: 2, 4: 1}),
        ("csharp", "interface Box { int Area(int size); }", {2: 3}),
    ],
)
def test_what_follows_a_method_is_of_its_kin(
    language: str, old: str, lines: dict[int, int]
) -> None:
    """lines: how many uses follow in each."""
    found = after(
        language, METHODS[language], old, old.replace("area", "surface").replace("Area", "Surface")
    )
    assert {n: line.lower().count("surface") for n, (line,) in found.items()} == lines


def after(language: str, text: str, old: str, new: str) -> dict[int, tuple[str, ...]]:
    """What may follow once `new` stands in the place of the line `old`."""
    lines = text.split("\n")
    number = lines.index(old)
    lines[number] = new
    found = places(
        Source("\n".join(lines), language_of(language)), Region(old + "\n", number, number), number
    )
    return {one.line: one.choices for one in found}


@pytest.mark.parametrize(
    ("language", "text", "new", "wanted"),
    [
        (
            "javascript",
            "class Box {\n  area(width) {\n  }\n  go() { this.area(1); }\n}\n",
            "  area(width, depth) {",
            {3: ("  go() { this.area(1, depth); }",)},
        ),
        (
            "typescript",
            "class Box {\n  area(width: number) {\n  }\n  go() { this.area(1); }\n}\n",
            "  area(width: number, depth: pkg.Depth) {",
            {3: ("  go() { this.area(1, depth); }",)},
        ),
        (
            "typescript",
            "class Box {\n  area(width: number) {\n  }\n  go() { this.area(1); }\n}\n",
            "  area(width: number, depth?: number) {",
            {},
        ),
        (
            "java",
            "class Box {\n  int area(int width) {\n  }\n  int go() { return area(1); }\n}\n",
            "  int area(int width, int depth) {",
            {3: ("  int go() { return area(1, depth); }",)},
        ),
        (
            "java",
            "class Box {\n  int area(int width) {\n  }\n  int go() { return area(1); }\n}\n",
            "  int area(int width, int... depth) {",
            {},
        ),
        (
            "go",
            "package a\nfunc area(width int) {\n}\nfunc go() { area(1) }\n",
            "func area(width int, depth *pkg.Depth) {",
            {3: ("func go() { area(1, depth) }",)},
        ),
        (
            "rust",
            "impl Box {\n  fn area(width: u32) {\n  }\n  fn go() { Self::area(1) }\n}\n",
            "  fn area(width: u32, depth: &u32) {",
            {3: ("  fn go() { Self::area(1, depth) }",)},
        ),
        (
            "c",
            "int a;\nint area(int width) {\n}\nint go() { return area(1); }\n",
            "int area(int width, char *depth) {",
            {3: ("int go() { return area(1, depth); }",)},
        ),
    ],
)
def test_calls_follow_a_parameter_that_they_must_give(
    language: str, text: str, new: str, wanted: dict[int, tuple[str, ...]]
) -> None:
    assert after(language, text, text.split("\n")[1], new) == wanted


PIECES = (
    r"a|b|{|}|(|)|[|]|=>|->|:|;|,|.|=|class|function|fn|func|let|var|for|def|if|return|<|>|\"|'"
)


@cases(200)
@given(
    st.lists(st.sampled_from([*PIECES.split("|"), "|", "\n"])).map(" ".join),
    st.sampled_from(list(NAMING)),
)
def test_whatever_stands_there_a_use_is_the_name_itself(text: str, language: str) -> None:
    scopes = scopes_of(text, language_of(language))
    assert scopes is not None
    for start in range(len(text)):
        if (name := scopes.at(start)) is not None:
            assert text.startswith(name.text, start)
            for other in "ab":
                for use in scopes.uses(name, other, name.text):
                    assert use.text == other
                    assert text.startswith(other, use.start)
                    assert use.start != start

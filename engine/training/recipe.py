"""A training run, as one TOML file describes it; engine/training/nano.toml is nano's.

Every table is a frozen dataclass below, every key a field of it. A path is relative to the file
that names it. What is wrong is named in one line: a key that is not known, a value of another type
or out of its range.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from engine.errors import TrainingError
from engine.training.data import FROM_LEFT, KINDS, LATER_SLACK, Data, kind_of_data

Table = dict[str, Any]


def _positive(table: Any, *names: str) -> None:
    for name in names:
        value = getattr(table, name)
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")


@dataclass(frozen=True, slots=True)
class Length:
    """`[run]`: where it works, and for how long.

    minutes and steps are counted over all resumptions; minutes are those of training, not of the
    clock on the wall. With both, what is reached first ends the run. save_every: minutes.
    validation: batches of held-back data that are looked at before each save.
    processes: each step's windows are shared among so many. compile: fuses what stands beside
    attention, which pays after some minutes. average_every: seconds; each process makes steps of
    its own, and weights are averaged so often, not gradients at each step (of adapters only).
    workers: processes that make batches ahead of the steps, for a GPU that would wait for them.
    """

    out: Path
    minutes: float | None = None
    steps: int | None = None
    save_every: float = 5.0
    validation: int = 8
    seed: int = 1
    device: str | None = None
    processes: int = 1
    compile: bool = False
    average_every: float | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        if self.minutes is None and self.steps is None:
            raise ValueError("minutes or steps must say how long it trains")
        _positive(self, "minutes", "steps", "save_every", "validation", "processes")
        _positive(self, "average_every")
        if self.workers < 0:
            raise ValueError(f"workers must be 0 or more, not {self.workers}")


@dataclass(frozen=True, slots=True)
class Origin:
    """`[model]`: the weights that it begins with.

    start_from: a checkpoint's folder; without one the weights are new and their shape is that of
    `config` (a config.json), or what fits the data. tokenizer: a folder with tokenizer.json, if it
    is not the checkpoint's own. fresh: its adapter is not gone on with, but made anew.
    """

    start_from: Path | None = None
    config: Path | None = None
    tokenizer: Path | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """`[step]`: windows of `context` prefix tokens, each with `canvases` of `canvas` tokens."""

    windows: int = 4
    context: int = 1024
    canvases: int = 16
    canvas: int = 64

    def __post_init__(self) -> None:
        _positive(self, "windows", "context", "canvases", "canvas")


@dataclass(frozen=True, slots=True)
class Rates:
    """`[rates]`: how fast it learns.

    muon, adam: the full rates of matrices and of all else; an adapter has adam's only. The rate
    warms up over so many steps, and at least over warm_up_share of the run, and falls to nothing
    over the last decay_share of the run: long, since batches are small. average_over: steps over
    which weights are averaged (the running average's time constant).
    """

    muon: float = 0.02
    adam: float = 0.004
    warm_up_steps: int = 60
    warm_up_share: float = 0.0
    decay_share: float = 0.8
    average_over: int = 100

    def __post_init__(self) -> None:
        _positive(self, "muon", "adam", "warm_up_steps", "average_over")
        if self.warm_up_share < 0:
            raise ValueError(
                f"warm_up_share must be at least 0 and below 1, not {self.warm_up_share}"
            )
        if not 0 < self.decay_share <= 1:
            raise ValueError(f"decay_share must be above 0 and at most 1, not {self.decay_share}")


@dataclass(frozen=True, slots=True)
class Objective:
    """`[objective]`: what a step asks of the model. Other values than these are for ablations.

    clamps: what conditions the slots of a canvas that are clamped: the token itself, what the model
    believed of it, or nothing. loss_on: all free slots, or only those that are noise. later_slack:
    what a slack token behind the first of its hole counts. own_passes: from the share own_from of
    the run on, canvases in the middle of a fill are what so many passes of the model made, instead
    of clean text with noise. from_left: of the canvases in the middle of a fill, the share that is
    settled from the left; with 0 all are settled anywhere, and no slot counts more for being next.
    """

    clamps: Literal["token", "own", "zero"] = "token"
    loss_on: Literal["free", "corrupted"] = "free"
    later_slack: float = LATER_SLACK
    own_passes: int = 0
    own_from: float = 0.8
    from_left: float = FROM_LEFT

    def __post_init__(self) -> None:
        if self.later_slack < 0 or self.own_passes < 0:
            raise ValueError("later_slack and own_passes must be 0 or more")
        if not 0 <= self.own_from <= 1:
            raise ValueError(f"own_from must be from 0 to 1, not {self.own_from}")
        if not 0 <= self.from_left <= 1:
            raise ValueError(f"from_left must be from 0 to 1, not {self.from_left}")


PLAIN = Objective()


@dataclass(frozen=True, slots=True)
class Lora:
    """`[lora]`: low-rank adapters in the place of all weights, merged into the model at the end.

    rank: 0 trains all weights, or is that of the adapter that is gone on with. scale: what an
    adapter counts beside its weight.
    """

    rank: int = 0
    scale: float = 2.0

    def __post_init__(self) -> None:
        _positive(self, "scale")
        if self.rank < 0:
            raise ValueError(f"rank must be 0 or more, not {self.rank}")


@dataclass(frozen=True, slots=True)
class Recipe:
    """All of it. data: of the kind that `[data] kind` names (see engine.training.data)."""

    run: Length
    data: Data
    model: Origin = Origin()
    step: Shape = Shape()
    rates: Rates = Rates()
    lora: Lora = Lora()
    objective: Objective = PLAIN

    def __post_init__(self) -> None:
        if self.lora.rank and self.model.start_from is None:
            raise ValueError("[lora] is for a checkpoint: [model] start_from is missing")
        if self.lora.rank and self.run.compile:
            raise ValueError("[run] compile and [lora] do not go together")
        if self.step.windows % self.run.processes and self.run.average_every is None:
            raise ValueError(
                f"[step] windows ({self.step.windows}) must be a multiple of "
                f"[run] processes ({self.run.processes})"
            )


def read_recipe(path: Path | None, overrides: Mapping[str, Table]) -> Recipe:
    """The recipe in a TOML file (None: of overrides alone), with `overrides` by table and key.

    Raises TrainingError, in one line that says what is wrong where.
    """
    origin = "the command line" if path is None else str(path)
    tables: dict[str, Any] = {}
    if path is not None:
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise TrainingError(f"can't read {path}: {error.strerror or error}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TrainingError(f"{path} is not TOML: {error}") from error
    try:
        base = Path() if path is None else path.parent
        tables = {name: _placed(name, table, base) for name, table in tables.items()}
        for name, table in overrides.items():
            tables[name] = {**tables.get(name, {}), **table}
        return _recipe(tables)
    except (ValueError, TypeError) as error:
        raise TrainingError(f"{origin}: {error}") from error


def _recipe(tables: dict[str, Table]) -> Recipe:
    hints = get_type_hints(Recipe)
    _known(tables, hints, "table")
    for name in ("run", "data"):
        if name not in tables:
            raise ValueError(f"the table [{name}] is missing")
    parts = {
        name: _filled(_class_of(name, hints[name], table), name, table)
        for name, table in tables.items()
    }
    return Recipe(**parts)


def _class_of(name: str, hint: Any, table: Table) -> Any:
    """The dataclass of a table."""
    if name != "data":
        return hint
    kind = table.get("kind", "code")
    if kind not in KINDS:
        raise ValueError(f"[data] kind must be one of {', '.join(KINDS)}, not {kind!r}")
    return kind_of_data(kind)


def _filled(cls: Any, name: str, table: Table) -> Any:
    """An instance of a table's dataclass."""
    hints = get_type_hints(cls)
    given = {key: value for key, value in table.items() if (name, key) != ("data", "kind")}
    _known(given, hints, f"[{name}] key")
    for field in fields(cls):
        has_default = field.default is not MISSING or field.default_factory is not MISSING
        if field.name not in given and not has_default:
            raise ValueError(f"[{name}] {field.name} is missing")
    try:
        values = {key: _value(hints[key], value, key) for key, value in given.items()}
        return cls(**values)
    except ValueError as error:
        raise ValueError(f"[{name}] {error}") from error


def _known(given: Mapping[str, Any], known: Mapping[str, Any], what: str) -> None:
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise ValueError(f"{what} {key} is not known; {hint}")


def _value(hint: Any, value: Any, key: str) -> Any:
    """A value of TOML as its field wants it. Raises ValueError."""
    wanted = _choices(hint)
    if type(value) is int and float in wanted and int not in wanted:
        value = float(value)
    for each in wanted:
        if get_origin(each) is Literal and value in get_args(each):
            return value
        if each is Path and isinstance(value, str | Path):
            return Path(value)
        if get_origin(each) is dict and isinstance(value, dict):
            item = get_args(each)[1]
            return {name: _value(item, one, f"{key}.{name}") for name, one in value.items()}
        if isinstance(each, type) and type(value) is each:
            return value
    raise ValueError(f"{key} must be {' or '.join(_named(each) for each in wanted)}, not {value!r}")


def _choices(hint: Any) -> tuple[Any, ...]:
    """What a field may be; a value that is left out is not written down in TOML."""
    if isinstance(hint, UnionType):
        return tuple(each for each in get_args(hint) if each is not NoneType)
    return (hint,)


def _named(hint: Any) -> str:
    """A type as people call it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(map(str, get_args(hint)))
    names: dict[Any, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "a string",
        Path: "a path",
    }
    return names.get(hint, "a table")


def _placed(name: str, table: Any, base: Path) -> Table:
    """A table of a file, its relative paths taken from the file's folder."""
    if not isinstance(table, dict):
        raise ValueError(f"{name} must be a table, [{name}]")
    cls = get_type_hints(Recipe).get(name)
    if name == "data" and table.get("kind", "code") in KINDS:
        cls = kind_of_data(table.get("kind", "code"))
    hints = get_type_hints(cls) if is_dataclass(cls) else {}
    return {
        key: base / Path(value).expanduser()
        if isinstance(value, str) and Path in _choices(hints.get(key))
        else value
        for key, value in table.items()
    }

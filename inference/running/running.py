"""Frame of every script: parse, run, and end in one clear line where the user's input is wrong."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pyrovae import starting
from pyrovae.comparing import Table, rich_table
from pyrovae.comparing.rendering import WIDTH
from pyrovae.distributed import Elsewhere, RankLost, is_first
from pyrovae.inference.options.helping import parse
from pyrovae.inference.options.ranges import check_ranges, check_text
from pyrovae.inference.running.streams import patient_streams
from pyrovae.inference.running.telling import in_users_code, one_line, show_warnings, told
from pyrovae.precision import tf32
from pyrovae.progress import silenced
from pyrovae.text import visible
from pyrovae.training.interrupts import Terminated, terminable

Options = TypeVar("Options")
# Sizes that no machine has: what torch says of them.
_ENOUGH = re.compile(
    r"can.t allocate memory|out of memory|not enough memory|Storage size calculation overflowed|Unable to allocate|"
    r"Overflow when unpacking|numel: integer multiplication overflow|int too large|invalid shape dimension"
)
# Into a file or a pipe, tables keep their columns whole instead of being cut to 80 characters.
# Names of folders are shown as they are: brackets and colons in them are no markup.
_AS_IT_IS: dict[str, Any] = {"markup": False, "emoji": False, "highlight": False}


class Screen(Console):
    """A console on which text is seen and does not act: names of folders may hold escape sequences."""

    def print(self, *objects: Any, **how: Any) -> None:
        """Prints as rich's console does."""
        super().print(*(visible(o, "\n") if isinstance(o, str) else o for o in objects), **how)


console = Screen(**_AS_IT_IS) if Console().is_terminal else Screen(width=140, **_AS_IT_IS)


def print_table(table: Table, title: str) -> None:
    """Prints a table and its notes."""
    # In a terminal cells fold to fit; in a file or a pipe rows stay whole.
    wide = Console(width=WIDTH, markup=False, emoji=False)
    (console if console.is_terminal else wide).print(rich_table(table, title))
    for note in table.all_notes:
        console.print(f"· {note}", highlight=False)


# Errors that say what is wrong with the input; anything else is a defect of ours.
USER_ERRORS = (
    ValueError,
    TypeError,
    FileNotFoundError,
    FileExistsError,
    OSError,
    ImportError,
    FloatingPointError,
)


def run_script(
    run: Callable[[Any], None], options: type, argv: Sequence[str] | None, prog: str, description: str
) -> int:
    """Parses `argv` into `options` and runs; returns the exit code (2 for wrong input).

    Of processes that torchrun started, the first alone prints; another one only a defect of its own.
    """
    with patient_streams(), nullcontext() if is_first() else _silent():
        return _run_script(run, options, argv, prog, description)


@contextmanager
def _silent() -> Iterator[None]:
    with (
        open(os.devnull, "w") as nothing,
        contextlib.redirect_stdout(nothing),
        contextlib.redirect_stderr(nothing),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        yield


def _run_script(
    run: Callable[[Any], None], options: type, argv: Sequence[str] | None, prog: str, description: str
) -> int:
    parsed: Any = parse(options, argv, prog, description)
    machine = getattr(parsed, "machine", None)
    debug = getattr(machine, "debug", False) or getattr(parsed, "debug", False)
    try:
        starting.done()  # now that options are parsed, which takes its time, too
        # Processes of torchrun are ended by it, all together.
        alone = nullcontext() if "TORCHELASTIC_RUN_ID" in os.environ else terminable()
        with alone, warnings.catch_warnings(), tf32() if getattr(machine, "tf32", False) else nullcontext():
            warnings.simplefilter("ignore", FutureWarning)
            show_warnings(prog)
            check_text(parsed)
            check_ranges(parsed, getattr(parsed, "RANGES", None))
            quiet = getattr(machine, "quiet", False) or getattr(parsed, "quiet", False)
            with silenced() if quiet else nullcontext():
                run(parsed)
    except KeyboardInterrupt as error:
        stopped = isinstance(error, Terminated)
        words = "terminated" if stopped else "interrupted"
        if _continues(parsed, prog):
            again = shlex.join(["pyrovae", prog, *(sys.argv[1:] if argv is None else argv)])
            words += f"; what is finished is kept; to continue: {again}"
        print(words, file=sys.stderr)
        return 143 if stopped else 130
    except Elsewhere:
        return 2
    except Exception as error:
        if debug:
            traceback.print_exc(file=_heard())
        if isinstance(error, MemoryError) or _ENOUGH.search(str(error)):
            print(
                f"{prog}: error: expected sizes that fit into memory, got {one_line(error)}", file=sys.stderr
            )
            return 2
        place = in_users_code(error)
        if place is not None:
            print(f"{prog}: error in {told(error, place)}", file=sys.stderr)
            return 1
        if isinstance(error, USER_ERRORS):
            print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
            return 2
        if isinstance(error, RankLost | NotKept | NothingTrained):
            print(f"{prog}: error: {one_line(error)}", file=sys.stderr)
            return 1
        print(
            f"{prog}: internal error: {type(error).__name__}: {one_line(error)} (--debug shows where)",
            file=_heard(),
        )
        return 1
    return 0


def _continues(options: Any, prog: str) -> bool:
    """Whether the same command goes on where it was; train has a command of its own for that."""
    resumes = getattr(options, "resume", False) or getattr(options, "shared", False)
    return prog in ("compare", "ising") or bool(resumes)


class NotKept(Exception):
    """Results that have been shown, but could not be written."""


class NothingTrained(Exception):
    """All cells of a comparison have failed."""


def refuse_unwritten(errors: Sequence[OSError]) -> None:
    """Raises NotKept where a file could not be written after its figures were shown."""
    if errors:
        lines = "; ".join(one_line(e) for e in errors)
        raise NotKept(
            f"the figures above are not all kept: {lines}; try again with more room, or another place"
        )


def write_all(writers: Sequence[Callable[[], None]], failed: Sequence[OSError] = ()) -> None:
    """Writes files one by one, each as far as it can be; `failed` are those that could not be written before.

    Raises:
        NotKept: naming those that could not be written.
    """
    errors = list(failed)
    for write in writers:
        try:
            write()
        except OSError as error:
            errors.append(error)
    refuse_unwritten(errors)


def _heard() -> Any:
    """Stream in which a defect is told, by a process that is otherwise silent too."""
    return sys.stderr if is_first() else sys.__stderr__


@contextmanager
def progress(quiet: bool, description: str, total: float) -> Iterator[Callable[..., None]]:
    """A bar with rate and ETA; yields `update(advance=..., completed=..., note=...)`.

    It shows from the first update on, so that an error of the options comes without one.
    """
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    bar = Progress(*columns, console=console, disable=quiet)
    task = bar.add_task(visible(description), total=total, note="", rate="")

    def update(**change: Any) -> None:
        bar.start()  # of no effect when it runs
        speed = bar.tasks[0].speed
        bar.update(task, rate="" if speed is None else f"{speed:.3g}/s", **change)

    try:
        with silenced():
            yield update
    finally:
        if bar.live.is_started:
            bar.stop()

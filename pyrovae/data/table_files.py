"""Tables from files: .csv with a header row, and .parquet."""

from __future__ import annotations

import codecs
import re
import warnings
from pathlib import Path
from typing import Any

from .tables.values import Written, word_of

SUFFIXES = (".csv", ".parquet")
# Cells that are no longer what was written once they are numbers: zeros before them, more digits than a float has.
_CODES = re.compile(rb"""(?:^|[,"\s+-])(?:0[0-9]|[0-9]{16})""")


def read_table(path: Path) -> Any:
    """Data frame of pandas; a first column without a name, as pandas writes it, names the rows.

    Raises:
        ImportError: for a .parquet file without pyarrow.
        ValueError: for a file that is no table, without a header row, with names that are missing or occur twice,
            or with a blank line in its only column.
    """
    import pandas as pd

    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    codes = _has_codes(path)
    try:
        # Two rows, so that one value more than there are names is an error, and no name of a row.
        header = pd.read_csv(path, header=None, nrows=2, dtype=str, keep_default_na=False)
        names = header.iloc[0].str.strip().tolist()
        _check_header(names, path)
        if len(names) == 1:
            _refuse_blank_lines(path)
        index = 0 if names[0] == "" and len(names) > 1 else None
        # Not in parts, each of which has types of its own.
        frame = pd.read_csv(path, index_col=index, skipinitialspace=True, low_memory=False)
        frame.columns = names if index is None else names[1:]
        for i, name in enumerate(frame.columns):  # blanks after a word are none of it, as those before it
            if frame[name].dtype.kind not in "buif":
                frame.isetitem(i, frame[name].map(lambda v: v.rstrip() if isinstance(v, str) else v))
        _warn_words(frame, path, 0 if index is None else 1)
        if codes:
            _keep_codes(frame, path, 0 if index is None else 1)
        return frame
    except pd.errors.EmptyDataError as error:
        raise ValueError(f"expected a table in {path}, got an empty file") from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected text in UTF-8 in {path}, got other bytes ({error.reason} at byte {error.start}), as of an older "
            "spreadsheet; try load(pandas.read_csv(path, encoding='latin-1'))"
        ) from error
    except pd.errors.ParserError as error:
        with path.open(
            encoding="utf-8-sig"
        ) as lines:  # a decimal comma is an error before names are looked at
            first = next((line.strip() for line in lines if line.strip()), "")
        if "," not in first and first:
            _check_header([first], path)
        raise ValueError(
            f"expected a table of comma-separated values in {path}, got: {' '.join(str(error).split())}; try "
            "load(pandas.read_csv(path, sep=...)) for other separators"
        ) from error


def _has_codes(path: Path) -> bool:
    """Whether some cell may be a code.

    Raises:
        ValueError: for what is not text of single bytes, of which pandas names no place, or a wrong one.
    """
    found = False
    with path.open("rb") as file:
        if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise ValueError(
                f"expected text in UTF-8 in {path}, got UTF-16, as of a spreadsheet's Unicode text; try "
                "load(pandas.read_csv(path, encoding='utf-16', sep=...))"
            )
        file.seek(0)
        for number, line in enumerate(file, 1):
            if b"\0" in line:
                raise ValueError(
                    f"expected text in {path}, got a NUL byte in line {number}: it is damaged, or no text; try to "
                    "remove the byte"
                )
            found = found or _CODES.search(line) is not None
    return found


def _keep_codes(frame: Any, path: Path, shift: int) -> None:
    """Keeps what was written beside the numbers that it was read as, where it is another word."""
    import pandas as pd

    places = [i for i, c in enumerate(frame.columns) if frame[c].dtype.kind in "uif"]
    wanted = [i + shift for i in places]
    text = pd.read_csv(path, usecols=wanted, dtype=str, keep_default_na=False, skipinitialspace=True)
    for k, i in enumerate(places):
        numbers = frame[frame.columns[i]].tolist()
        words = [word_of(t) for t in text.iloc[:, k].str.strip()]
        kept = [
            Written(v, w) if v == v and w != word_of(v) else v for w, v in zip(words, numbers, strict=True)
        ]
        if any(isinstance(v, Written) for v in kept):
            frame.isetitem(i, pd.Series(kept, index=frame.index, dtype=object))


def _warn_words(frame: Any, path: Path, shift: int) -> None:
    """Warns of words such as "None" in columns of words, which are read as missing: there they may be words."""
    import pandas as pd

    places = [
        i for i, c in enumerate(frame.columns) if frame[c].dtype.kind not in "buif" and frame[c].isna().any()
    ]
    if not places:
        return
    text = pd.read_csv(
        path, usecols=[i + shift for i in places], dtype=str, keep_default_na=False, skipinitialspace=True
    )
    for k, i in enumerate(places):
        name = frame.columns[i]
        words = text.iloc[:, k][frame[name].isna().to_numpy()].str.strip()
        found = sorted(set(words) - {""})
        if found:
            warnings.warn(
                f"{path.name} has {', '.join(map(repr, found))} in the column {name!r} of words, in "
                f"{int((words != '').sum())} rows, which is taken for a missing value; where it is a word of its own, "
                "try load(pandas.read_csv(path, keep_default_na=False, na_values=['']))",
                stacklevel=2,
            )


def _check_header(names: list[str], path: Path) -> None:
    if len(names) == 1 and any(mark in names[0] for mark in ";\t"):
        raise ValueError(
            f"expected commas between the columns of {path}, got {names[0]!r}; try "
            "load(pandas.read_csv(path, sep=..., decimal=...))"
        )
    if all(_is_number(name) for name in names):
        raise ValueError(
            f"expected a header row of names in {path}, got numbers ({', '.join(names[:3])} ...), which would be lost "
            "as data; try to write one, or load(numpy.loadtxt(path, delimiter=','))"
        )
    empty = [i for i, name in enumerate(names) if name == "" and i > 0]
    if empty or names == [""]:
        raise ValueError(
            f"expected a name for every column of {path}, got none in place {[*empty, 0][0]} (from 0)"
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"expected each column of {path} once, got {twice[0]!r} twice; try to rename it")


def _refuse_blank_lines(path: Path) -> None:
    """Refuses a table of one column with blank lines: missing values, which pandas passes over in silence."""
    header = False
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if header and not line.strip():
                raise ValueError(
                    f"expected a number in every line of {path}, which has one column, got a blank line {number}, "
                    "where the value is missing; try to drop the line or impute the value"
                )
            header = header or bool(line.strip())


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def _read_parquet(path: Path) -> Any:
    import pandas as pd

    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"expected the library pyarrow to read {path}, found none; try pip install pyarrow, or the table as "
            ".csv or .npz"
        ) from error
    try:
        return pd.read_parquet(path, engine="pyarrow")
    except (ValueError, OSError) as error:
        raise ValueError(f"expected a readable .parquet file, got {path} ({type(error).__name__})") from error

"""The data of a run: what of them is kept in its folder, and how they come back."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import data as sources
from ..data import Dataset, DataSpec
from ..data.checks import detect_support
from ..data.given.conditioned import LABEL
from ..data.hashing import content_hash
from ..data.spec import KNOWN
from ..files import expanded
from ..json_files import check_kinds
from .folder import WEIGHTS
from .weights import check_program

SHOWN = 4  # names of what differs, at most
Rows = tuple[Any, ...]
Data = Dataset | Tensor | Rows


def as_data(data: Any) -> Data:
    """A data set, a tensor, or a tuple `(x, *context)`; anything else is refused.

    Raises:
        TypeError: saying what was expected.
    """
    if isinstance(data, Dataset | Tensor):
        return data
    if isinstance(data, tuple | list) and data and all(isinstance(t, Tensor) for t in data):
        return tuple(data)
    raise TypeError(
        "expected a data set of pyrovae.data.load, a tensor or a tuple (x, *context) of tensors as data, got "
        f"{type(data).__name__}"
    )


def training_rows(data: Data) -> Rows:
    """`(x, *context)` that the program is run on."""
    if isinstance(data, Dataset):
        return data.arguments("train")
    return (data,) if isinstance(data, Tensor) else data


def moved(data: Data, device: torch.device) -> Data:
    """`data` on `device`."""
    if isinstance(data, tuple):
        return tuple(t.to(device) for t in data)
    return data.to(device)


def spec_of(data: Data) -> DataSpec:
    """Description of the data; tensors of the user's are described as one training split."""
    if isinstance(data, Dataset):
        return data.spec
    rows = {f"argument_{i}": t.detach().cpu() for i, t in enumerate(training_rows(data))}
    x = rows["argument_0"]
    support, levels = detect_support({"train": x.float()})
    return DataSpec(
        name="tuple" if isinstance(data, tuple) else "tensor",
        event_shape=tuple(x.shape[1:]),
        support=support,
        levels=levels,
        binarisation=None,
        seed=0,
        hash=content_hash(rows),
        splits={"train": len(x)},
        given=tuple(f"argument {i}" for i in range(1, len(rows))),
    )


def sources_of_context(data: Dataset) -> dict[str, Any]:
    """Options by which `load_again` gives the data their context."""
    if KNOWN in data.spec.given and data.context is not None:
        (y,) = data.context["train"]
        return {"labelled": int((y >= 0).sum())}
    return {"condition": list(data.spec.given)} if data.spec.given else {}


def source_of(data: Data) -> dict[str, Any] | None:
    """Arguments of `pyrovae.data.load` that give the data again; None where they came from the user."""
    if not isinstance(data, Dataset) or data.spec.name not in sources.NAMES:
        return None
    if set(data.spec.given) - {LABEL, KNOWN}:  # a context of the user's own
        return None
    binarise = None if data.spec.binarisation == "fixed" else data.spec.binarisation
    source: dict[str, Any] = {
        "data": data.spec.name,
        "root": None,
        "binarise": binarise,
        "data_seed": data.spec.seed,
        **sources_of_context(data),
    }
    if data.spec.name == "ising" and data.parameters is not None:  # simulated: as it was asked for
        sizes = data.spec.splits
        source |= {"L": int(data.parameters["L"]), "T": data.parameters["T"].tolist()}
        source |= {"train_size": sizes["train"], "valid": sizes["valid"], "test": sizes["test"]}
    return source


# Of what a configuration says of how data were loaded; which words each may be, is said by those who load.
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("data", "root", "binarise", "missing", "label_column", "layer"), str | None),
    **dict.fromkeys(("log", "log_columns", "condition"), tuple[str, ...] | None),
    **dict.fromkeys(("L", "train", "train_size", "data_seed"), int | None),
    **dict.fromkeys(("valid", "test"), int | float | None),
    "columns": str | dict | None,
    "labelled": int | str | None,
    "standardize": bool | None,
    "T": float | tuple[float, ...] | None,
}
_OPTIONS = ("standardize", "log", "missing", "columns", "label_column", "layer")


def load_again(
    source: Mapping[str, Any],
    root: str | os.PathLike[str] | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Dataset:
    """The data set that a run's configuration names, from `root` where it differs from the run's.

    The root in the configuration is only read; missing data sets are fetched into the user's own. A file that is not
    where it was is looked for by its name in the run folder, and beside it.

    Raises:
        ValueError: options that this version does not know; and as `pyrovae.data.load`.
    """
    check_kinds(source, _KINDS, "what the run's configuration says of its data")
    options = {k: v for k, v in source.items() if v is not None}
    name, own_root, seed = options.pop("data", None), options.pop("root", None), options.pop("data_seed", 0)
    if "train_size" in options:
        options["train"] = options.pop("train_size")
    if "log_columns" in options:
        options["log"] = options.pop("log_columns")
    given = {k: options.pop(k, None) for k in ("condition", "labelled")}
    unknown = set(options) - {*_OPTIONS, "binarise", "valid", "test", "train", "L", "T"}
    if name is None or unknown:
        raise ValueError(
            f"expected the run's data as options of pyrovae.data.load, got {dict(source)} in its configuration"
        )
    if name not in sources.NAMES:
        name = _found(Path(name), folder)
    if root is None and own_root is not None:
        # Where the run's data were is no more than a hint: what a folder says is read, never written to.
        try:
            found = sources.load(name, Path(own_root), seed=seed, download=False, **options)
            return sources.with_given(found, **given)
        except (FileNotFoundError, PermissionError):
            pass
    return sources.with_given(sources.load(name, root, seed=seed, **options), **given)


def _found(path: Path, folder: str | os.PathLike[str] | None) -> str:
    """The file at the path, or one of its name with the run.

    Raises:
        FileNotFoundError: neither.
        ValueError: `~` where there is no home folder.
    """
    if folder is None or expanded(path).exists():
        return str(path)
    for place in (Path(folder), Path(folder).resolve().parent):
        if (place / path.name).is_file():
            return str(place / path.name)
    raise FileNotFoundError(
        f"expected the data of the run {os.fspath(folder)} at {path}, in its folder or beside it, found none; try "
        "--data with the file as it is now (in Python data=path)"
    )


def check_sizes(spec: DataSpec, source: Any, folder: Path) -> None:
    """Refuses a simulation of other sizes than the run's before it is made: it may take days.

    Raises:
        ValueError: where they differ.
    """
    if not isinstance(source, Mapping) or source.get("data") != "ising":
        return
    given = {
        "L": (source.get("L"), math.isqrt(math.prod(spec.event_shape))),
        "train_size": (source.get("train_size"), spec.splits["train"]),
        "valid": (source.get("valid"), spec.splits.get("valid")),
        "test": (source.get("test"), spec.splits.get("test")),
    }
    wrong = [k for k, (asked, was) in given.items() if asked is not None and asked != was]
    if wrong:
        raise ValueError(
            f"expected the sizes of the data that {folder} was trained on, got another {', '.join(wrong)} in its "
            "configuration: it is damaged"
        )


def check_same(
    spec: DataSpec, given: Data, folder: Path, config: Mapping[str, Any], handed: bool = False
) -> None:
    """Refuses data that are not those of the run, or not as it describes them: titles and tables would say it.

    Args:
        spec: description in the configuration of the run.
        given: the data.
        folder: of the run.
        config: of the run.
        handed: whether the data come from the user, who may call them by another name and say less of them.

    Raises:
        ValueError: saying what differs in the data, or in a configuration that contradicts itself or its weights.
    """
    found = spec_of(given)
    told, real = spec.to_json(), found.to_json()
    keys = [k for k in told if told[k] != real[k]]
    if spec.classes is None:  # runs before classes had names
        keys = [k for k in keys if k != "classes"]
    if handed:
        of_data = ("hash", "event_shape", "splits")
        words = ("columns", "table", "classes")
        keys = [k for k in keys if k in of_data or (k in words and None not in (told[k], real[k]))]
    if not keys:
        return
    with contextlib.suppress(OSError):  # without weights it is not known
        check_program(folder / WEIGHTS, dict(config))
    if "hash" not in keys and set(keys) - {"columns", "table", "classes"}:
        wrong = ", ".join(f"{k} {_short(told[k])} and not {_short(real[k])}" for k in keys)
        raise ValueError(
            f"expected the description of the data that {folder} was trained on, got {wrong}: its "
            "configuration is damaged"
        )
    raise ValueError(
        f"expected the data {folder} was trained on, got {found.name} with "
        f"{', '.join(_differences(spec, found))}; try the data as they were, or to train anew"
    )


def _differences(spec: DataSpec, found: DataSpec) -> list[str]:
    """Differences of data from those of the run, in a few words each."""
    words: list[str] = []
    former, now = (s.columns or () for s in (spec, found))
    if former and now:
        words += _changed(former, now, "column {}")
        words += ["columns in another order"] * (former != now and sorted(former) == sorted(now))
    roles = {c.name: c for c in spec.table or ()}
    for column in found.table or ():
        was = roles.get(column.name, column)
        if was.role != column.role:
            words.append(f"column {column.name!r} as {column.role} and not {was.role}")
        else:
            words += _changed(was.words or (), column.words or (), f"category {{}} of column {column.name!r}")
    words += _changed(spec.classes or (), found.classes or (), "class {}")
    if spec.event_shape != found.event_shape and not words:
        words.append(f"data of shape {found.event_shape} and not {spec.event_shape}")
    total, before = sum(found.splits.values()), sum(spec.splits.values())
    if total != before:
        words.append(f"{total:,} rows and not {before:,}")
    elif spec.splits != found.splits:
        words.append(f"splits of {found.splits} and not {spec.splits}")
    if spec.seed != found.seed:
        words.append(f"splits of seed {found.seed} and not {spec.seed}")
    if spec.hash == found.hash:
        return words or ["columns declared otherwise"]
    words = words or ["other values, or rows in another order"]
    return [*words[:-1], f"{words[-1]} (hash {found.hash[:12]} and not {spec.hash[:12]})"]


def _changed(former: Sequence[str], now: Sequence[str], words: str) -> list[str]:
    """Names that are gone, and new ones; the first of many."""
    gone, new = ([n for n in a if n not in b] for a, b in ((former, now), (now, former)))
    each = [f"{words.format(_short(n))} missing" for n in gone] + [
        f"a new {words.format(_short(n))}" for n in new
    ]
    return each if len(each) <= SHOWN else [*each[:SHOWN], f"{len(each) - SHOWN} more such"]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

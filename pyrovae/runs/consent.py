"""Consent to run code that a run folder names: whose code it is, and what would be imported from where."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sys
import warnings
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from ..files import replacing
from ..json_files import read_json

LARGEST = 1 << 26  # bytes of a file of code
# Programs that pyrovae brings; every other name of a model is somebody's code.
BUILT_IN = (
    *(
        "vae",
        "conditional",
        "semi-supervised",
        "markov",
        "hierarchical",
        "diffusion",
        "rbm",
        "linear-gaussian",
    ),
)


class NotTrusted(ValueError):
    """A run folder names code that this user has not consented to run."""


@dataclass(frozen=True)
class Code:
    """Code that importing a reference would run, found without importing it.

    Attributes:
        reference: `package.module:attribute` or `file.py:attribute`.
        files: the code file, and the `__init__.py` of packages around it, which run first.
        place: the same in words, for a refusal.
    """

    reference: str
    files: tuple[Path, ...]
    place: str

    def key(self) -> str | None:
        """A hash of the attribute, and of paths and bytes of the files; None where there is no file to read.

        The path counts too: the same file elsewhere may find other modules to import.
        """
        if not self.files:
            return None
        digest = hashlib.sha256(self.reference.rpartition(":")[2].encode() + b"\0")
        try:
            for file in self.files:
                if not file.is_file() or file.stat().st_size > LARGEST:  # a pipe or device may never end
                    return None
                digest.update(f"{file}\0".encode() + hashlib.sha256(file.read_bytes()).digest())
        except OSError:
            return None
        return digest.hexdigest()


def check_consent(reference: str, folder: str | os.PathLike[str], trust: bool = False) -> None:
    """Lets code run that the user trusts or trained with; nothing of it is imported here.

    Args:
        reference: what the folder names as its program; names of built-in ones are always allowed.
        folder: which folder that is.
        trust: the user's consent to this folder's code.

    Raises:
        NotTrusted: saying what would be imported from where.
    """
    if trust or reference in BUILT_IN:
        return
    code = find(reference)
    key = code.key()
    if key is not None and any(p.name == f"{key}.json" for p in _records()):
        return
    known = " (its code is not what this user trained with last)" if _recorded(code) else ""
    raise NotTrusted(
        f"expected consent to run the code that {os.fspath(folder)} names, got none: {reference!r} would import "
        f"{code.place}{known}; look at it, then try --trust (in Python trust=True, or build= with a function of yours)"
    )


def record_code(reference: str) -> None:
    """Remembers code that this user has named to train with, so that their own runs open without asking.

    Kept by hash in the user's own state folder; where that cannot be written, runs will ask for --trust.
    """
    if reference in BUILT_IN:
        return
    code = find(reference)
    key = code.key()
    if key is None:
        return
    about = {"reference": reference, "files": [str(f) for f in code.files]}
    try:
        folder = state_folder() / "code"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(folder / f"{key}.json") as partial:
            partial.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        warnings.warn(
            f"the code of {reference} is not recorded as this user's own ({error}): opening its run will need --trust",
            stacklevel=2,
        )


def state_folder() -> Path:
    """Folder of this user's records: `PYROVAE_STATE`, `$XDG_STATE_HOME/pyrovae`, or `~/.local/state/pyrovae`.

    Relative paths in these variables are not taken: they would depend on the folder one stands in.

    Raises:
        FileNotFoundError: for a user without a home folder, and none of these.
    """
    own, xdg = Path(os.environ.get("PYROVAE_STATE", "")), Path(os.environ.get("XDG_STATE_HOME", ""))
    if own.is_absolute():
        return own
    if xdg.is_absolute():
        return xdg / "pyrovae"
    home = Path(os.path.expanduser("~"))
    if not home.is_absolute():
        raise FileNotFoundError(errno.ENOENT, "no home folder for records; try PYROVAE_STATE=/a/folder", "~")
    return home / ".local" / "state" / "pyrovae"


def _records() -> list[Path]:
    """Records of what this user has trained with; empty where they cannot be read."""
    try:
        return [p for p in (state_folder() / "code").glob("*.json") if p.is_file()]
    except OSError:
        return []


def code_of(config: dict[str, Any]) -> str | None:
    """Hash of the user's code that a run's program is built by: weights alone do not say what it computes."""
    options = config.get("model")
    reference = str(options.get("model")) if isinstance(options, dict) else ""
    return None if not reference or reference in BUILT_IN else find(reference).key()


def find(reference: str) -> Code:
    """Path of the code of a reference. `importlib.util.find_spec` alone would run the packages around it."""
    where, _, attribute = reference.rpartition(":")
    if not where or not attribute:
        return Code(reference, (), "nothing: it is no package.module:attribute or file.py:attribute")
    if where.endswith(".py"):
        file = Path(os.path.realpath(where))  # which raises for no loop of links
        return Code(reference, (file,), _shown(file))
    files: list[Path] = []
    path: list[str] | None = None
    at = ""
    for part in where.split("."):
        at = f"{at}.{part}" if at else part
        spec = _spec(at, path)
        if spec is None:
            return Code(reference, (), f"the module {where}, which is not found")
        if spec.origin is not None and spec.has_location:
            files.append(Path(spec.origin).resolve())
        path = list(spec.submodule_search_locations or ())
    if not files:
        return Code(reference, (), f"the module {where} of Python itself")
    return Code(reference, tuple(files), ", then ".join(_shown(f) for f in files))


def _spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    loaded = getattr(sys.modules.get(name), "__spec__", None)
    if isinstance(loaded, ModuleSpec):
        return loaded  # what importing would give
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path, None)
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None:
            return spec
    return None


def _shown(file: Path) -> str:
    return str(file) if file.exists() else f"{file}, which does not exist"


def _recorded(code: Code) -> bool:
    """Whether this user has trained with other contents of the same files."""
    wanted = [str(f) for f in code.files]
    for record in _records():
        try:
            if read_json(record).get("files") == wanted:
                return True
        except (OSError, ValueError, AttributeError):
            continue
    return False

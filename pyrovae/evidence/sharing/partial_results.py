"""Partial results on disk: one file a chunk of data, so that a killed evaluation goes on where it was."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
import warnings
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor

from ...json_files import parse_json
from ...programs import Program, buffers_of, capture_parameters, module_mode, seeded
from ...tensor_files import DamagedFile, hash_of_tensors, read_tensors, write_tensors
from ..core.estimator import PerDatum

FORMAT = 3  # 3: checksums; variances by leaving out one sample, tail allowances, rounding
STALE = 3600.0  # seconds after which a file that is being written is nobody's any more
_FIELDS = ("log_evidence", "variance", "bias", "ess", "khat", "curve", "details")


class Partials:
    """Results in a folder, under names that say what they are of.

    A file's name holds a hash of the program's parameters and buffers, data, estimators, chunk, seed
    and versions: another evaluation finds no file of this one. What no hash sees (constants in a
    program's code) shows in a probe: a few log-weights, kept with each result.

    Args:
        folder: made where it does not exist.
        program: evaluated.
        strict: a damaged file is an error; else it counts as none, and is replaced.
        **what: all else that numbers depend on.
    """

    def __init__(
        self, folder: str | os.PathLike[str], program: Program, *, strict: bool = False, **what: Any
    ) -> None:
        self.folder, self.strict = Path(folder), strict
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key, self._probe = fingerprint(program, **what)
        self.used: set[Path] = set()  # files with a part of this evaluation
        _clean(self.folder)

    @property
    def prefix(self) -> str:
        """Beginning of the names of this evaluation's files."""
        return self.key[:24]

    def path(self, part: str) -> Path:
        """File of a part: a chunk's number, or an estimator's name."""
        return self.folder / f"{self.prefix}-{self.unit(part)}.safetensors"

    @staticmethod
    def unit(part: str) -> str:
        """A part's name as it stands in file names."""
        return re.sub(r"[^A-Za-z0-9]+", "-", part)

    def save(self, part: str, results: dict[str, PerDatum]) -> None:
        """Writes results of one part, whole or not at all."""
        tensors: dict[str, Tensor] = {"probe": self._probe}
        tree = _encode({n: {f: getattr(r, f) for f in _FIELDS} for n, r in results.items()}, tensors)
        about = {"format": FORMAT, "key": self.key, "tree": tree}
        text = json.dumps(about, sort_keys=True)
        try:
            write_tensors(
                self.path(part), tensors, {"pyrovae": text, "sha256": hash_of_tensors(tensors, text)}
            )
        except OSError as error:
            if self.strict:  # others wait for it
                raise
            # The results are in memory: what is lost is only what an interruption would cost.
            warnings.warn(
                f"partial results are not kept ({error.strerror}: {self.folder}): killed, this evaluation would "
                "compute them again",
                stacklevel=2,
            )
            return
        self.used.add(self.path(part))

    def load(self, part: str) -> dict[str, PerDatum] | None:
        """Results of one part; None where there are none, or the file is damaged.

        Raises:
            ValueError: results of a program with the same parameters, but other log-weights; with
                `strict`, a file that is truncated, changed or of another evaluation.
            OSError: a file that could not be read, and may be whole.
        """
        path = self.path(part)
        if not path.is_file():
            return None
        try:
            tensors, metadata = read_tensors(path)
            text = metadata.get("pyrovae", "")
            if metadata.get("sha256") != hash_of_tensors(tensors, text):
                raise DamagedFile("its checksum is wrong")
            about = parse_json(text)
            probe, tree = tensors["probe"], _decode(about["tree"], tensors)
            results = {str(name): PerDatum(**fields) for name, fields in tree.items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if self.strict:
                raise ValueError(
                    f"expected a whole unit, got {path}, which is truncated or damaged ({error}); delete it, and "
                    "the same command computes it again"
                ) from None
            return None  # computed again, and replaced
        if about.get("key") != self.key or about.get("format") != FORMAT:
            if self.strict:
                raise ValueError(
                    f"expected a unit of this evaluation, got {path}, which is of another (key "
                    f"{str(about.get('key'))[:12]}, here {self.key[:12]}); delete it, and the same command computes "
                    "it again"
                )
            return None
        if not torch.allclose(probe, self._probe, rtol=1e-4, atol=1e-4, equal_nan=True):
            raise ValueError(
                f"expected partial results of this program in {self.folder}, got those of one with the same "
                "parameters and other log-weights (its code has changed); try another folder"
            )
        self.used.add(path)
        return results


def _clean(folder: Path) -> None:
    """Removes what processes that were killed while they wrote have left; other ones may be writing now."""
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if not path.is_dir() and abs(time.time() - path.stat().st_mtime) > STALE:
                path.unlink()


def fingerprint(program: Program, **what: Any) -> tuple[str, Tensor]:
    """SHA-256 of parameters, buffers and `what`; and a few log-weights, float64."""
    args = program.arguments
    rows = args.chunks(2)[0]
    with (
        torch.no_grad(),
        module_mode(program.model, program.guide, training=False) as modules,
        seeded(0, "fingerprint", device=args.x.device),
        capture_parameters() as parameters,
    ):
        probe = program.run(rows, 3).log_weights()
    digest = hashlib.sha256()
    tensors = {**parameters, **buffers_of(modules)}
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    versions = {"torch": torch.__version__, "pyro": pyro.__version__, "format": FORMAT}
    digest.update(json.dumps({**versions, **what}, sort_keys=True, default=str).encode())
    return digest.hexdigest(), probe.double().cpu().contiguous()


def _encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree of dicts, sequences, numbers and text as JSON; its tensors aside."""
    if isinstance(value, Tensor):
        name = f"t{len(tensors)}"
        # A clone: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().clone().contiguous()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"items": [[_encode(k, tensors), _encode(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [_encode(v, tensors) for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"expected details of tensors, numbers and text, got {type(value).__name__}")


def _decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "items":
        return {_decode(k, tensors): _decode(v, tensors) for k, v in content}
    values = [_decode(v, tensors) for v in content]
    return tuple(values) if kind == "tuple" else values

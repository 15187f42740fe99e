"""MNIST and Fashion-MNIST, read by torchvision from a data root that may be read-only."""

import contextlib
import http.client
import importlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..raw import Raw, Request
from ..roots import data_root
from ..splitting import count

LEVELS = 256
VALID = 10_000


def load_mnist(request: Request) -> Raw:
    """Handwritten digits: grey levels 0 ... 255 `[N, 784]`, with labels.

    50,000 to train, the last 10,000 of the training images to validate, and the official 10,000 to test.
    Source: LeCun, Bottou, Bengio and Haffner (1998), https://doi.org/10.1109/5.726791.
    """
    return _load("mnist", "MNIST", request)


def load_fashion_mnist(request: Request) -> Raw:
    """Images of clothing: grey levels 0 ... 255 `[N, 784]`, with labels, split as MNIST is.

    Source: Xiao, Rasul and Vollgraf (2017), https://arxiv.org/abs/1708.07747.
    """
    return _load("fashion-mnist", "FashionMNIST", request)


def import_torchvision_datasets() -> Any:
    """`torchvision.datasets`, imported only when it is needed.

    Raises:
        ImportError: If torchvision was built for another torch.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        raise ImportError(
            "expected a torchvision that was built for the installed torch, got a mix of builds (often a CPU "
            "torch beside a CUDA torchvision); try to reinstall both from the same index, e.g. with `uv sync`"
        ) from error


def _load(name: str, folder: str, request: Request) -> Raw:
    request.refuse_sizes(name, "test")
    (x, y), (x_test, y_test) = _read(name, folder, data_root(request.root), request.download)
    n = len(x) - count(VALID if request.valid is None else request.valid, len(x), "valid")
    if n < 1:
        raise ValueError(
            f"expected at least one datum in every split, got an empty split 'train' (valid={len(x) - n} of "
            f"{len(x)} training images); try a smaller valid"
        )
    return Raw(
        name,
        splits={"train": x[:n], "valid": x[n:], "test": x_test},
        labels={"train": y[:n], "valid": y[n:], "test": y_test},
        support="levels",
        levels=LEVELS,
    )


def _read(name: str, folder: str, root: Path, download: bool) -> list[tuple[Tensor, Tensor]]:
    datasets = import_torchvision_datasets()
    reader = getattr(datasets, folder)
    archives: dict[str, str] = dict(reader.resources)
    raw = root / folder / "raw"
    if all((raw / Path(archive).stem).is_file() for archive in archives):  # unpacked already
        return _tensors(reader, root)
    cause: Exception | None = None
    if not all((raw / archive).is_file() for archive in archives) and download:
        try:
            _download(reader, root, raw)
            return _tensors(reader, root)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            cause = error
    if all((raw / archive).is_file() for archive in archives):
        # Unpacked elsewhere every time: the root may be read-only, or shared with other processes.
        with tempfile.TemporaryDirectory(prefix="pyrovae-") as scratch:
            target = Path(scratch) / folder / "raw"
            target.mkdir(parents=True)
            for archive, md5 in archives.items():
                if not datasets.utils.check_integrity(raw / archive, md5):
                    raise ValueError(
                        f"expected the original {name} archive at {raw / archive}, got one whose MD5 is not "
                        f"{md5}: it is cut short or corrupt; try to fetch it again"
                    )
                datasets.utils.extract_archive(os.fspath(raw / archive), os.fspath(target))
            return _tensors(reader, Path(scratch))
    raise FileNotFoundError(
        f"expected the {name} files {', '.join(archives)} (or the same unpacked) in {raw}, found none or not "
        f"all{'' if cause is None else ', and the download failed'}; try to put them there, or name another "
        "folder by root= or the environment variable PYROVAE_DATA"
        f"{'' if download else ', or download=True to fetch them'}"
    ) from cause


def _tensors(reader: Any, root: Path) -> list[tuple[Tensor, Tensor]]:
    splits = []
    for train in (True, False):
        try:
            images = reader(os.fspath(root), train=train)
            if len(images.data) != len(images.targets):
                raise ValueError(f"{len(images.data)} images, {len(images.targets)} labels")
        except (ValueError, RuntimeError, AssertionError, KeyError, IndexError) as error:
            raise ValueError(
                f"expected readable image and label files in {root / reader.__name__ / 'raw'}, got ones that "
                "are cut short or corrupt; try to delete and fetch them again"
            ) from error
        splits.append((images.data.flatten(1).to(torch.float32), images.targets.to(torch.int64)))
    return splits


def _download(reader: Any, root: Path, raw: Path) -> None:
    root.mkdir(parents=True, exist_ok=True)
    # Moved into place file by file when whole, so that other processes never see half a file.
    with tempfile.TemporaryDirectory(prefix="download-", dir=root) as scratch:
        with contextlib.redirect_stdout(io.StringIO()):
            reader(scratch, train=True, download=True)
        raw.mkdir(parents=True, exist_ok=True)
        for file in (Path(scratch) / reader.__name__ / "raw").iterdir():
            os.replace(file, raw / file.name)

"""Files of MNIST, small and made here: where they are looked for, unpacked and downloaded to."""

import gzip
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import pyrovae.data
from pyrovae.data import load

from .test_data import SPLITS, check_contract

# ----------------------------------------------------------------------- files of MNIST, small and made here


def write_idx(path: Path, array: np.ndarray, *, compress: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    content += array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)


def write_mnist(root: Path, *, compress: bool = False, folder: str = "MNIST") -> np.ndarray:
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28))
    end = ".gz" if compress else ""
    for part, n in (("train", 12), ("t10k", 5)):
        write_idx(root / folder / "raw" / f"{part}-images-idx3-ubyte{end}", images[:n], compress=compress)
        write_idx(root / folder / "raw" / f"{part}-labels-idx1-ubyte{end}", np.arange(n), compress=compress)
    return images.reshape(12, 784)


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_unpacked_files(tmp_path, name, folder, capfd):
    images = write_mnist(tmp_path, folder=folder)
    data = load(name, tmp_path, valid=4)
    check_contract(data)
    assert np.array_equal(data.train.numpy(), images[:8]) and np.array_equal(data.valid.numpy(), images[8:])
    assert data.labels["valid"].tolist() == [8, 9, 10, 11] and len(data.test) == 5
    assert capfd.readouterr() == ("", "")


def test_mnist_archives_are_unpacked_elsewhere(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST
    from torchvision.datasets.utils import calculate_md5

    images = write_mnist(tmp_path, compress=True)
    files = sorted((tmp_path / "MNIST/raw").iterdir())
    monkeypatch.setattr(MNIST, "resources", [(f.name, calculate_md5(f)) for f in files])
    data = load("mnist", tmp_path, valid=0.25, download=False)
    assert np.array_equal(data.train.numpy(), images[:9])
    assert sorted((tmp_path / "MNIST/raw").iterdir()) == files
    files[0].write_bytes(files[0].read_bytes()[:-9])
    with pytest.raises(ValueError, match=rf"{files[0].name}.*MD5.*corrupt"):
        load("mnist", tmp_path, valid=4)


def test_mnist_downloads_into_the_root(tmp_path, monkeypatch, capfd):
    from torchvision.datasets import MNIST

    def download(self):
        print("chatter")
        write_mnist(Path(self.root))

    monkeypatch.setattr(MNIST, "download", download)
    first = load("mnist", tmp_path / "new", valid=4)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["MNIST"]
    assert load("mnist", tmp_path / "new", valid=4, download=False).spec == first.spec
    assert capfd.readouterr().out == ""


def test_mnist_missing(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def fail(self):
        raise RuntimeError("no internet")

    monkeypatch.setattr(MNIST, "download", fail)
    for download in (True, False):
        with pytest.raises(FileNotFoundError, match=r"train-images-idx3-ubyte\.gz") as caught:
            load("mnist", tmp_path, download=download)
        message = str(caught.value)
        assert all(word in message for word in (str(tmp_path / "MNIST" / "raw"), "root=", "PYROVAE_DATA"))
        assert ("download=True" in message) is not download
        assert ("download failed" in message) is download
    assert list(tmp_path.iterdir()) == []


def test_mnist_refusals(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(ValueError, match=r"empty split 'train'.*valid=10000 of 12"):
        load("mnist", tmp_path)
    with pytest.raises(ValueError, match="expected test=None"):
        load("mnist", tmp_path, test=3)
    (tmp_path / "MNIST/raw/t10k-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03\0\0")
    with pytest.raises(ValueError, match=r"MNIST.*corrupt"):
        load("mnist", tmp_path, valid=4)


def test_torchvision_of_another_build(tmp_path, monkeypatch):
    def mixed(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(importlib, "import_module", mixed)
    with pytest.raises(ImportError, match=r"mix of builds.*uv sync"):
        load("mnist", tmp_path)


def test_torchvision_is_imported_lazily():
    modules = [m for name, m in sys.modules.items() if name.startswith("pyrovae.data")]
    assert len(modules) > 5 and not any("torchvision" in vars(m) or "datasets" in vars(m) for m in modules)


def write_binarized(root: Path, **changes: np.ndarray) -> np.ndarray:
    bits = np.random.default_rng(1).integers(0, 2, (6, 784)).astype(np.uint8)
    (root / "BinarizedMNIST").mkdir(exist_ok=True)
    arrays = {s: np.packbits(bits[i:], axis=1) for i, s in enumerate(SPLITS)}
    np.savez(root / "BinarizedMNIST/binarized_mnist_packed.npz", **{**arrays, **changes})
    return bits


def test_binarized_mnist_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"binarized_mnist_packed\.npz.*PYROVAE_DATA"):
        load("binarized-mnist", tmp_path)
    bits = write_binarized(tmp_path)
    data = load("binarized-mnist", tmp_path)
    check_contract(data)
    assert np.array_equal(data.valid.numpy(), bits[1:]) and data.spec.binarisation == "fixed"
    assert data.epoch(5, 1) is data.train
    with pytest.raises(ValueError, match="expected valid=None"):
        load("binarized-mnist", tmp_path, valid=2)
    write_binarized(tmp_path, test=np.zeros((3, 97), np.uint8))
    with pytest.raises(ValueError, match=r"expected uint8 arrays.*97"):
        load("binarized-mnist", tmp_path)


def test_data_root(tmp_path, monkeypatch):
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path / "env"))
    assert pyrovae.data.data_root(tmp_path) == tmp_path
    assert pyrovae.data.data_root() == tmp_path / "env"
    monkeypatch.delenv("PYROVAE_DATA")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert pyrovae.data.data_root() == tmp_path / "cache" / "pyrovae"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert pyrovae.data.data_root() == tmp_path / ".cache" / "pyrovae"


def test_environment_names_the_root(tmp_path, monkeypatch):
    write_binarized(tmp_path)
    monkeypatch.setenv("PYROVAE_DATA", str(tmp_path))
    assert load("binarized-mnist").spec.splits["train"] == 6

"""Tests of `pyrovae.data`: what it loads, what it refuses, and that its random choices are reproducible."""

import gzip
import importlib
import json
import math
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import constraints
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

import pyrovae.data
from pyrovae.data import NAMES, Dataset, DataSpec, load

SPLITS = ("train", "valid", "test")
DATA = os.environ.get("PYROVAE_DATA")


def needs(*files: str) -> pytest.MarkDecorator:
    missing = DATA is None or not all((Path(DATA) / f).is_file() for f in files)
    return pytest.mark.skipif(missing, reason=f"PYROVAE_DATA does not hold {', '.join(files)}")


def check_contract(data: Dataset) -> None:
    """What every data set promises, wherever it comes from."""
    spec = data.spec
    assert list(spec.splits) == list(SPLITS)
    for name in SPLITS:
        x = data.split(name)
        assert x is getattr(data, name)
        assert x.dtype == torch.float32 and x.is_contiguous() and not x.requires_grad
        assert x.shape == (spec.splits[name], *spec.event_shape) and len(x) > 0
        assert bool(spec.constraint.check(x).all())
        if data.labels is not None:
            assert data.labels[name].dtype == torch.int64 and data.labels[name].shape == (len(x),)
        if data.log_evidence is not None:
            assert data.log_evidence[name].dtype == torch.float64 and data.log_evidence[name].shape == (
                len(x),
            )
    assert (spec.levels is None) == (spec.support != "levels")
    assert len(spec.hash) == 64 and int(spec.hash, 16) >= 0
    assert data.epoch(0, spec.seed).shape == data.train.shape
    assert DataSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert spec.name in repr(data)


def rows(x: torch.Tensor) -> list[tuple[float, ...]]:
    return sorted(map(tuple, x.flatten(1).tolist()))


# ---------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("binarise", [None, "dynamic", "static", "threshold"])
def test_digits(binarise):
    data = load("digits", binarise=binarise)
    check_contract(data)
    assert data.spec.splits == {"train": 1257, "valid": 180, "test": 360}
    assert data.spec.event_shape == (64,) and data.spec.image_shape == (8, 8)
    assert data.spec.binarisation == binarise
    assert (data.spec.support, data.spec.levels) == (("levels", 17) if binarise is None else ("binary", None))
    assert set(data.labels) == set(SPLITS) and data.log_evidence is None and data.parameters is None


def test_digits_are_all_of_them_with_their_own_labels():
    from sklearn.datasets import load_digits

    data = load("digits", seed=3)
    pixels, classes = load_digits(return_X_y=True)
    ours = torch.cat([torch.cat([data.split(s), data.labels[s][:, None].float()], 1) for s in SPLITS])
    theirs = torch.tensor(np.column_stack([pixels, classes]), dtype=torch.float32)
    assert rows(ours) == rows(theirs)
    assert data.train.max() == 16


def test_linear_gaussian_evidence_is_exact():
    data = load("linear-gaussian", seed=4)
    check_contract(data)
    assert data.spec.splits == {"train": 2000, "valid": 500, "test": 500}
    assert data.spec.support == "real" and data.spec.event_shape == (16,) and data.spec.image_shape is None
    W, b, psi = (data.parameters[k] for k in ("W", "b", "psi"))
    assert W.shape == (16, 4) and b.shape == psi.shape == (16,) and bool((psi > 0).all())
    covariance = W @ W.T + psi.diag()
    for name in SPLITS:
        r = data.split(name).double() - b
        quadratic = (r * torch.linalg.solve(covariance, r.T).T).sum(1)
        expected = -0.5 * (quadratic + torch.logdet(covariance) + 16 * math.log(2 * math.pi))
        torch.testing.assert_close(data.log_evidence[name], expected, rtol=1e-10, atol=1e-10)
    # Mahalanobis distances of true draws are chi-squared with 16 degrees of freedom: mean 16, variance 32.
    r = data.train.double() - b
    distance = (r * torch.linalg.solve(covariance, r.T).T).sum(1).mean()
    assert abs(float(distance) - 16) < 4 * math.sqrt(32 / 2000)
    assert not torch.equal(load("linear-gaussian", seed=5).parameters["W"], W)


@needs("MNIST/raw/train-images-idx3-ubyte.gz", "FashionMNIST/raw/train-images-idx3-ubyte.gz")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_mnist_and_fashion(name):
    before = sorted(Path(DATA).rglob("*"))
    data = load(name, download=False)
    check_contract(data)
    assert data.spec.splits == {"train": 50_000, "valid": 10_000, "test": 10_000}
    assert (data.spec.support, data.spec.levels, data.spec.image_shape) == ("levels", 256, (28, 28))
    folder = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[name]
    if (archive := Path(DATA) / folder / "raw/train-images-idx3-ubyte.gz").is_file():
        with gzip.open(archive) as file:
            original = np.frombuffer(file.read(), np.uint8, offset=16).reshape(-1, 784)
        assert np.array_equal(data.train[:100].numpy(), original[:100])
        assert np.array_equal(data.valid[-100:].numpy(), original[-100:])
    assert sorted(Path(DATA).rglob("*")) == before


@needs("BinarizedMNIST/binarized_mnist_packed.npz")
def test_binarized_mnist():
    data = load("binarized-mnist")
    check_contract(data)
    assert data.spec.splits == {"train": 50_000, "valid": 10_000, "test": 10_000}
    assert (data.spec.support, data.spec.binarisation) == ("binary", "fixed")
    assert data.labels is None and data.spec.image_shape == (28, 28)
    with pytest.raises(ValueError, match="binary already"):
        load("binarized-mnist", binarise="static")


def test_names():
    assert set(NAMES) == {"digits", "mnist", "fashion-mnist", "binarized-mnist", "linear-gaussian", "ising"}
    with pytest.raises(ValueError, match=r"digits, mnist, .*path.*array.*'digts'; did you mean 'digits'"):
        load("digts")
    with pytest.raises(ValueError, match="did you mean 'mnist'"):
        load("MNIST")
    with pytest.raises(ValueError, match="got int"):
        load(3)


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


# -------------------------------------------------------------------------------------- the user's own data


@pytest.mark.parametrize(
    ("values", "support", "levels", "constraint"),
    [
        ([0, 1, 1], "binary", None, constraints.boolean),
        ([0, 0, 0], "binary", None, constraints.boolean),
        ([0, 1, 7], "levels", 8, constraints.integer_interval(0, 7)),
        ([0, 255, 2], "levels", 256, constraints.integer_interval(0, 255)),
        ([0, 256, 2], "nonnegative_integer", None, constraints.nonnegative_integer),
        ([0.0, 0.5, 1.0], "unit_interval", None, constraints.unit_interval),
        ([0.0, 0.5, 1.5], "real", None, constraints.real),
        ([-1, 0, 1], "real", None, constraints.real),
    ],
)
def test_support_is_detected(values, support, levels, constraint):
    data = load(torch.tensor(values).repeat(20, 1))
    check_contract(data)
    assert (data.spec.support, data.spec.levels) == (support, levels)
    assert str(data.spec.constraint) == str(constraint)


@pytest.mark.parametrize(
    "dtype", ["bool", "uint8", "int8", "uint16", "int64", "uint64", "float16", "float64", ">i4"]
)
def test_numeric_dtypes(dtype):
    check_contract(load(np.ones((10, 2), dtype)))
    if dtype != ">i4":
        check_contract(load(torch.ones(10, 2).to(getattr(torch, dtype))))


def test_array_splits():
    x = torch.arange(100.0 * 6).reshape(100, 2, 3)
    data = load(x)
    check_contract(data)
    assert data.spec.splits == {"train": 70, "valid": 10, "test": 20} and data.spec.event_shape == (2, 3)
    assert rows(torch.cat([data.train, data.valid, data.test])) == rows(x)
    assert not torch.equal(data.train, x[:70])
    assert load(x, valid=5, test=0.5).spec.splits == {"train": 45, "valid": 5, "test": 50}
    assert torch.equal(load(x.numpy()).train, data.train)


def test_array_is_copied_and_detached():
    x = torch.rand(20, 3, requires_grad=True)
    data = load({s: x for s in SPLITS})
    before = data.train.clone()
    with torch.no_grad():
        x.zero_()
    assert torch.equal(data.train, before) and not data.train.requires_grad
    a = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    data = load({s: a for s in SPLITS})
    a[:] = 0
    assert data.train.abs().sum() > 0


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
@pytest.mark.parametrize("as_path", [str, Path])
def test_files(tmp_path, suffix, as_path):
    x = np.random.default_rng(0).normal(size=(20, 3))
    path = tmp_path / f"mine{suffix}"
    if suffix == ".npy":
        np.save(path, x)
    elif suffix == ".npz":
        np.savez_compressed(path, anything=x)
    else:
        torch.save(torch.tensor(x), path)
    data = load(as_path(path))
    check_contract(data)
    assert data.spec.name == f"mine{suffix}"
    assert data.spec.hash == load(x).spec.hash


@pytest.mark.parametrize("kind", ["npz", "pt", "dict"])
def test_mapping_with_splits_and_labels(tmp_path, kind):
    rng = np.random.default_rng(0)
    arrays = {s: rng.normal(size=(n, 3)) for s, n in zip(SPLITS, (20, 4, 5), strict=True)}
    arrays |= {f"{s}_labels": np.arange(len(arrays[s])) for s in SPLITS}

    def save(values):
        if kind == "npz":
            np.savez(tmp_path / "a.npz", **values)
            return tmp_path / "a.npz"
        if kind == "pt":
            torch.save({k: torch.tensor(v) for k, v in values.items()}, tmp_path / "a.pt")
            return tmp_path / "a.pt"
        return values

    data = load(save(arrays))
    check_contract(data)
    for s in SPLITS:
        assert np.array_equal(data.split(s).numpy(), arrays[s].astype(np.float32))
        assert data.labels[s].tolist() == list(range(len(arrays[s])))
    with pytest.raises(ValueError, match="expected test=None"):
        load(save(arrays), test=2)

    part = {k: v for k, v in arrays.items() if k in ("train", "test")}
    data = load(save(part), valid=3)
    check_contract(data)
    assert data.spec.splits == {"train": 17, "valid": 3, "test": 5} and data.labels is None
    only = load(save({"train": arrays["train"], "train_labels": np.arange(20)}))
    assert only.spec.splits == {"train": 14, "valid": 2, "test": 4}
    for s in SPLITS:
        assert np.array_equal(only.split(s).numpy(), arrays["train"][only.labels[s]].astype(np.float32))


@pytest.mark.parametrize("key", ["y", "labels"])
def test_mapping_with_x(key):
    x = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    data = load({"x": x, key: np.arange(20)})
    check_contract(data)
    for s in SPLITS:
        assert np.array_equal(data.split(s).numpy(), x[data.labels[s]])
    assert load({"x": x}).labels is None


def test_mapping_refusals():
    x, y = torch.rand(20, 3), torch.arange(20)
    with pytest.raises(ValueError, match=r"got the keys \['test', 'train', 'val'\]"):
        load({"train": x, "val": x, "test": x})
    with pytest.raises(ValueError, match=r"got the keys \['a', 'b'\]"):
        load({"a": x, "b": x})
    with pytest.raises(ValueError, match="keys"):
        load({"x": x, "y": y, "labels": y})
    with pytest.raises(ValueError, match=r"got the keys \[\]"):
        load({})
    with pytest.raises(ValueError, match="labels for all splits"):
        load({"train": x, "valid": x, "test": x, "train_labels": y})
    with pytest.raises(ValueError, match="labels for all splits"):
        load({"train": x, "train_labels": y, "test_labels": y})
    with pytest.raises(ValueError, match="integer labels"):
        load({"x": x, "y": y.float()})
    with pytest.raises(ValueError, match="integer labels"):
        load({"x": x, "y": [None] * 20})
    with pytest.raises(ValueError, match="one label for each of the 20"):
        load({"x": x, "y": y[1:]})


class Items(TorchDataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_torch_datasets():
    x = torch.rand(20, 1, 4, 4)
    plain, pairs = load(Items(list(x))), load(Items([(a, i) for i, a in enumerate(x)]))
    for data in (plain, pairs, load(TensorDataset(x)), load(TensorDataset(x, torch.arange(20)))):
        check_contract(data)
        assert data.spec.hash == load(x).spec.hash and data.spec.image_shape == (4, 4)
        if data.labels is not None:
            assert torch.equal(data.train, x[data.labels["train"]])
    assert plain.labels is None and pairs.labels is not None
    assert load(Items([(a, 0.5) for a in x])).labels is None
    images = importlib.import_module("PIL.Image")
    grey = Items([(images.fromarray(np.full((2, 2), i, np.uint8)), i) for i in range(20)])
    assert load(grey).spec.levels == 20


def test_torch_dataset_refusals():
    class Stream(IterableDataset):
        def __iter__(self):
            yield torch.zeros(2)

    with pytest.raises(ValueError, match="iterable"):
        load(Stream())
    with pytest.raises(ValueError, match="empty"):
        load(Items([]))
    with pytest.raises(ValueError, match=r"one shape, got \(2,\) at 0 and \(3,\) at 1"):
        load(Items([torch.zeros(2), torch.zeros(3)]))


# ------------------------------------------------------------------------------------------ what is refused


def test_missing_and_unknown_files(tmp_path):
    for path in (tmp_path / "no.npy", str(tmp_path / "no.pt"), str(tmp_path / "no")):
        with pytest.raises(FileNotFoundError, match=str(path)):
            load(path)
    with pytest.raises(FileNotFoundError, match=r"no\.npz"):
        load("no.npz")
    (tmp_path / "a.txt").write_text("1,2")
    with pytest.raises(ValueError, match=r"expected a file ending in .npy, .npz, .pt"):
        load(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="expected a file"):
        load(tmp_path)


class Evil:
    """Unpickling this would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (Path(self.path),))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "kind", ["o.npy", "o.npz", "o.pt", "legacy.pt", "pickle.pt", "pickle.npy", "pickle.npz"]
)
def test_pickled_objects_are_never_loaded(tmp_path, kind):
    path, trace = tmp_path / kind, tmp_path / "trace"
    if kind.startswith("pickle"):
        path.write_bytes(pickle.dumps(Evil(trace)))
    elif kind.endswith(".pt"):
        content = {"x": torch.rand(9, 2), "evil": Evil(trace)}
        torch.save(content, path, _use_new_zipfile_serialization=kind == "o.pt")
    else:
        array = np.array([Evil(trace), 1], dtype=object)
        np.save(path, array) if kind == "o.npy" else np.savez(path, x=array)
    with pytest.raises(ValueError, match=r"pickled objects, which are not loaded.*torch\.save.*np\.save"):
        load(path)
    assert not trace.exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt"])
@pytest.mark.parametrize("part", [0, 0.02, 0.5, 0.99])
def test_corrupt_files_are_named(tmp_path, suffix, part):
    whole, path = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    x = np.random.default_rng(0).random((50, 3))
    {".npy": np.save, ".npz": np.savez}.get(suffix, lambda p, a: torch.save(torch.tensor(a), p))(whole, x)
    content = whole.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    with pytest.raises(ValueError, match=rf"{path.name}.*cut short or corrupt"):
        load(path)
    path.write_bytes(b"garbage" * 9)
    with pytest.raises(ValueError, match=rf"{path.name}.*cut short or corrupt"):
        load(path)


@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "b"]] * 9),
        np.array([[1j]] * 9),
        np.array([[None]] * 9),
        np.zeros((9, 1), "datetime64[s]"),
        np.zeros(9, [("a", "f4")])[:, None],
        torch.zeros(9, 2, dtype=torch.complex64),
    ],
)
def test_non_numeric_dtypes(array):
    with pytest.raises(ValueError, match="expected real numbers"):
        load(array)


def test_values_that_float32_would_change():
    for x in (np.full((9, 2), 2**24 + 1), torch.full((9, 2), -(2**24) - 1)):
        with pytest.raises(ValueError, match=r"2\*\*24"):
            load(x)
    with pytest.raises(ValueError, match="dense"):
        load(torch.eye(9).to_sparse())
    with pytest.raises(ValueError, match="masked"):
        load(np.ma.masked_less(np.arange(18.0).reshape(9, 2), 3))
    with pytest.raises(ValueError, match="infinite"):
        load(np.full((9, 2), 1e300))


@pytest.mark.parametrize("shape", [(9,), (), (9, 0), (9, 0, 2)])
def test_event_shapes(shape):
    for array in (torch.zeros(shape), np.zeros(shape), {s: np.zeros(shape) for s in SPLITS}):
        with pytest.raises(ValueError, match=r"expected .* shape \[N, \*event\]"):
            load(array)


def test_splits_of_different_shapes():
    with pytest.raises(ValueError, match=r"one event shape.*\(3,\).*\(4,\)"):
        load({"train": torch.rand(9, 3), "valid": torch.rand(9, 3), "test": torch.rand(9, 4)})


@pytest.mark.parametrize("empty", SPLITS)
def test_empty_splits(empty):
    with pytest.raises(ValueError, match=f"empty split '{empty}'"):
        load({s: torch.rand(0 if s == empty else 5, 3) for s in SPLITS})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"valid": 0}, "empty split 'valid'"),
        ({"test": 0}, "empty split 'test'"),
        ({"valid": -1}, "empty split 'valid'"),
        ({"test": 0.01}, "empty split 'test'"),
        ({"valid": 10, "test": 10}, "empty split 'train'"),
        ({"valid": 0.5, "test": 0.5}, "empty split 'train'"),
        ({"valid": 30}, "empty split 'train'"),
        ({"valid": 1.0}, "fraction in"),
        ({"valid": 0.0}, "fraction in"),
        ({"test": float("nan")}, "fraction in"),
        ({"test": True}, "fraction in"),
        ({"test": "half"}, "fraction in"),
    ],
)
def test_sizes(sizes, message):
    with pytest.raises(ValueError, match=message):
        load(torch.rand(20, 2), **sizes)


def test_too_few_data():
    for n in range(5):
        with pytest.raises(ValueError, match="empty split"):
            load(torch.rand(n, 2))
    check_contract(load(torch.rand(3, 2), valid=1, test=1))
    with pytest.raises(ValueError, match="expected valid=None"):
        load("linear-gaussian", valid=3)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_values(value):
    x = torch.rand(9, 2, 2)
    bad = x.clone()
    bad[4, 1, 0] = bad[7, 0, 1] = value
    with pytest.raises(ValueError, match=r"2 values .* split 'valid', the first at index \[4, 1, 0\];"):
        load({"train": x, "valid": bad, "test": x})
    with pytest.raises(ValueError, match=r"values .* split '(train|valid|test)'.*\(row [47] of the array"):
        load(bad, valid=1, test=1)


@pytest.mark.parametrize("seed", [-1, 0.5, "0", None, True])
def test_seeds(seed):
    with pytest.raises(ValueError, match="expected seed to be an integer >= 0"):
        load("digits", seed=seed)


# --------------------------------------------------------------------------------------------- binarisation


def test_binarise_refusals():
    with pytest.raises(ValueError, match=r"dynamic, static, threshold, got 'dynamik'"):
        load("digits", binarise="dynamik")
    with pytest.raises(ValueError, match="dynamic, static, threshold"):
        load("digits", binarise="fixed")
    with pytest.raises(ValueError, match="binary already"):
        load(torch.ones(20, 2), binarise="static")
    for x in (torch.randn(20, 2), torch.arange(600.0).reshape(300, 2)):
        with pytest.raises(ValueError, match=r"support '(real|nonnegative_integer)'.*no Bernoulli"):
            load(x, binarise="threshold")
    with pytest.raises(ValueError, match="'real'"):
        load("linear-gaussian", binarise="dynamic")


def test_threshold():
    grey, data = load("digits"), load("digits", binarise="threshold")
    for s in SPLITS:
        assert torch.equal(data.split(s), (grey.split(s) > 8).float())
    x = torch.rand(20, 3)
    assert torch.equal(load(x, binarise="threshold").train, (load(x).train > 0.5).float())


@pytest.mark.parametrize("source", ["levels", "unit_interval"])
def test_bernoulli_frequencies(source):
    row = torch.tensor([0, 1, 2, 4]) if source == "levels" else torch.tensor([0, 0.25, 0.5, 1.0])
    p = torch.tensor([0, 0.25, 0.5, 1.0])
    data = load(row.repeat(20_000, 1), binarise="dynamic")
    check_contract(data)
    for x in (data.train, data.valid, data.test, data.epoch(7, 3)):
        mean = x.mean(0)
        assert mean[0] == 0 and mean[3] == 1
        assert bool(((mean - p).abs() <= 5 * (p * (1 - p) / len(x)).sqrt() + 1e-6).all())


def test_dynamic_draws():
    data, grey = load("digits", binarise="dynamic", seed=2), load("digits", seed=2)
    assert torch.equal(data.epoch(0, 2), data.train) and torch.equal(data.epoch(0), data.train)
    assert torch.equal(data.epoch(3, 5), data.epoch(3, 5))
    draws = [data.epoch(*key) for key in ((0, 2), (1, 2), (2, 2), (0, 3), (1, 3), (2, 1))]
    for i, a in enumerate(draws):
        assert a.dtype == torch.float32 and set(a.unique().tolist()) == {0.0, 1.0}
        assert all(not torch.equal(a, b) for b in draws[:i])
        assert not a[grey.train == 0].any() and bool(a[grey.train == 16].all())
    average = torch.stack([data.epoch(e, 9) for e in range(100)]).mean(0)
    p = grey.train / 16
    assert abs(float((average - p).mean())) < 1e-3
    assert bool(((average - p).abs() <= 6 * (p * (1 - p) / 100).sqrt() + 1e-6).all())
    for bad in ((-1, 0), (0, -1), (0.5, 0)):
        with pytest.raises(ValueError, match="integer >= 0"):
            data.epoch(*bad)


def test_static_draws():
    dynamic, static = (load("digits", binarise=b, seed=1) for b in ("dynamic", "static"))
    for s in SPLITS:
        assert torch.equal(dynamic.split(s), static.split(s))
    assert static.epoch(4, 1) is static.train and static.probabilities is None
    assert not torch.equal(static.train, load("digits", binarise="threshold", seed=1).train)


# ----------------------------------------------------------------------- seeds, hash, specification, device


@pytest.mark.parametrize("name", ["digits", "linear-gaussian"])
def test_reproducible(name):
    a, b, c = load(name, seed=1), load(name, seed=1), load(name, seed=2)
    assert a.spec == b.spec and hash(a.spec) == hash(b.spec)
    assert a.spec.hash != c.spec.hash
    for s in SPLITS:
        assert torch.equal(a.split(s), b.split(s)) and not torch.equal(a.split(s), c.split(s))


def test_hash_is_stable():
    # Integers and the order of keys only, so that no library's random numbers enter.
    x = torch.arange(12.0).reshape(4, 3)
    spec = load({"train": x, "valid": x + 1, "test": x + 2}).spec
    assert spec.hash == "0859c6db1ef838a9a8b1e9409481b95e9b6571372e6fe62ca48fb6958c5e43aa"


def test_hash_sees_values_shape_and_split():
    x = torch.arange(24.0).reshape(4, 6)
    base = {s: x for s in SPLITS}
    changed = x.clone()
    changed[3, 5] = 99
    others = [
        {**base, "test": changed},
        {**base, "valid": changed},
        {s: x.reshape(4, 2, 3) for s in SPLITS},
        {s: x.reshape(2, 12) for s in SPLITS},
    ]
    hashes = [load(source).spec.hash for source in (base, *others)]
    assert len(set(hashes)) == 5
    assert load({s: x.double() for s in SPLITS}).spec.hash == hashes[0]


@pytest.mark.parametrize("options", [{}, {"binarise": "dynamic"}])
def test_global_generators_are_untouched(options):
    torch.manual_seed(0)
    np.random.seed(0)
    before, state = torch.get_rng_state(), np.random.get_state()[1].copy()
    load("digits", **options).epoch(1, 1)
    load("linear-gaussian")
    load(torch.linspace(0, 1, 40).reshape(20, 2), **options).epoch(2, 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], state)


def test_spec_json():
    spec = load("digits").spec
    values = spec.to_json()
    assert values["event_shape"] == [64] and values["splits"] == {"train": 1257, "valid": 180, "test": 360}
    assert DataSpec.from_json(json.loads(json.dumps(values))) == spec
    with pytest.raises(ValueError, match="expected the keys"):
        DataSpec.from_json({k: v for k, v in values.items() if k != "seed"})
    with pytest.raises(ValueError, match="expected the keys"):
        DataSpec.from_json({**values, "extra": 1})
    for change in ({"support": "complex"}, {"binarisation": "often"}, {"levels": None}):
        with pytest.raises(ValueError, match="expected"):
            DataSpec.from_json({**values, **change})
    with pytest.raises(AttributeError):
        spec.seed = 3


@pytest.mark.parametrize(
    ("event", "image"),
    [
        ((5, 7), (5, 7)),
        ((3, 5, 7), (5, 7)),
        ((5, 7, 1), (5, 7)),
        ((64,), None),
        ((5, 7, 6), None),
        ((2,) * 4, None),
    ],
)
def test_image_shape(event, image):
    assert load(torch.rand(10, *event)).spec.image_shape == image


def test_split_names():
    with pytest.raises(ValueError, match="train, valid, test, got 'val'"):
        load("linear-gaussian").split("val")
    with pytest.raises(ValueError, match="got 'spec'"):
        load("linear-gaussian").split("spec")


DEVICES = ["cpu", "meta", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
def test_to(device):
    for data in (load("digits", binarise="dynamic"), load("linear-gaussian")):
        moved = data.to(device)
        tensors = [moved.train, moved.valid, moved.test]
        for group in (moved.labels, moved.log_evidence, moved.parameters):
            tensors += list((group or {}).values())
        assert all(x.device.type == device for x in tensors) and moved.spec == data.spec
        if device != "meta":
            drawn = moved.epoch(2, 1)
            assert drawn.device.type == device and torch.equal(drawn, moved.epoch(2, 1))
            assert bool(data.spec.constraint.check(drawn).all())
            assert torch.equal(moved.test.cpu(), data.test)


def test_dataset_is_frozen():
    data = load("linear-gaussian")
    with pytest.raises(AttributeError):
        data.train = data.test

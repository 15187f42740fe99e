"""Tests of `pyrovae.data`: what it loads, and that its random choices are reproducible."""

import gzip
import importlib
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.distributions import constraints
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset, TensorDataset

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

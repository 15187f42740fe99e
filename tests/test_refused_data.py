"""Data that `pyrovae.data` refuses: damaged and pickled files, dtypes, shapes, sizes, numbers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from pyrovae.data import load

from .test_data import SPLITS, check_contract

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
    with pytest.raises(ValueError, match="got a folder"):
        load(tmp_path)
    (tmp_path / "UPPER.CSV").write_text("a,b\n" + "1,0.5\n2,0.25\n" * 10)
    assert load(tmp_path / "UPPER.CSV").spec.columns == ("a", "b")


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

"""Tables: data frames, .csv and .parquet files, sparse matrices, other people's .npz keys, labels in words."""

import re
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import pyrovae as pv
from pyrovae.data import Dataset, DataSpec, load

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3)).astype(np.float32)


def frame(**more):
    return pd.DataFrame(X, columns=["a", "b", "c"], index=[f"row{i}" for i in range(40)]).assign(**more)


class Column:
    def __init__(self, values):
        self.values, self.dtype = values, values.dtype

    def is_null(self):
        return np.isnan(self.values) if self.values.dtype.kind == "f" else np.zeros(len(self.values), bool)

    def to_numpy(self):
        return self.values


class Polars:
    """What is asked of a data frame that is not of pandas."""

    def __init__(self, columns):
        self.held, self.columns = columns, list(columns)

    def __len__(self):
        return len(next(iter(self.held.values())))

    def __getitem__(self, name):
        return Column(self.held[name])

    def to_numpy(self):
        raise AssertionError("the columns are looked at one by one")


def test_a_data_frame_is_its_array_with_names():
    table = frame()
    data, plain = load(table), load(X)
    for split in ("train", "valid", "test"):
        assert torch.equal(data.split(split), plain.split(split))
        rows = data.rows[split].numpy()
        torch.testing.assert_close(data.split(split), torch.tensor(table.iloc[rows].to_numpy()))
    assert data.spec.columns == ("a", "b", "c") and plain.spec.columns is None
    assert DataSpec.from_json(data.spec.to_json()) == data.spec
    older = {k: v for k, v in plain.spec.to_json().items() if k != "columns"}
    assert DataSpec.from_json(older) == plain.spec


def test_the_documented_line_names_the_test_data():
    (line,) = re.findall(r"`(frame\.index\[.*?\])`", Dataset.__doc__)
    table = frame()
    data = load(table)
    names = eval(line, {"frame": table, "data": data})
    torch.testing.assert_close(data.test, torch.tensor(table.loc[names].to_numpy()))
    assert list(names) == [f"row{i}" for i in data.rows["test"].tolist()]


def test_columns_of_several_kinds():
    table = frame(
        n=np.arange(40),
        on=np.arange(40) % 2 == 0,
        maybe=pd.array(range(40), dtype="Int64"),
        half=pd.array(X[:, 0], dtype="Float32"),
    )
    data = load({"x": table, "y": pd.Series(["cat", "dog"] * 20)})
    assert data.spec.event_shape == (7,) and data.classes == ("cat", "dog")
    order = data.rows["train"]
    torch.testing.assert_close(data.train[:, 3], order.float())
    torch.testing.assert_close(data.train[:, 5], order.float())
    assert torch.equal(data.labels["train"], order % 2)


def test_another_librarys_frame():
    data = load(Polars({"u": X[:, 0], "v": np.arange(40)}))
    assert data.spec.columns == ("u", "v")
    with pytest.raises(ValueError, match=r"column 'u' of 'Polars', got 1, the first in row 3"):
        load(Polars({"u": np.where(np.arange(40) == 3, np.nan, X[:, 0])}))


def test_splits_of_tables():
    table = frame()
    data = load({"train": table[:30], "test": table[30:]})
    torch.testing.assert_close(data.test, torch.as_tensor(X[30:]))
    assert data.spec.columns == ("a", "b", "c")
    with pytest.raises(ValueError, match=r"same order .* got \('c', 'b', 'a'\) in split 'test'"):
        load({"train": table[:30], "test": table[30:][["c", "b", "a"]]})
    words = {"train_labels": ["b"] * 30, "test_labels": ["a", "b"] * 5}
    data = load({"train": table[:30], "test": table[30:], **words})
    assert data.classes == ("a", "b")
    assert (data.labels["train"] == 1).all() and data.labels["test"].tolist() == [0, 1] * 5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"c": "text"}, r"numbers in column 'c' .*'text' in row 0 .*columns='auto'.*get_dummies"),
        ({"c": [1.0, "x"] * 20}, r"numbers in column 'c' .*'x' in row 1"),
        ({"c": ["1.5", "2", "3 4", "x"] * 10}, r"numbers in column 'c' .*'3 4' in row 2"),
        ({"c": [1.0, np.nan] * 20}, "no missing values in column 'c' .* got 20, the first in row 1"),
        ({"c": pd.array([1, None] * 20, dtype="Int64")}, "no missing values in column 'c'"),
        ({"c": [1, None] * 20}, "no missing values in column 'c'"),
        ({"c": pd.Timestamp("2020-01-01")}, "numbers in column 'c'"),
        ({"c": pd.Categorical(["x", "y"] * 20)}, "numbers in column 'c'"),
        ({"c": 1j}, "numbers in column 'c'"),
        ({"c": [2**24 + 1, *range(39)]}, "magnitude <= 2\\*\\*24 for column 'c'"),
        ({"c": [2**24 + 1, *range(39)], "d": 0.5 * np.arange(40)}, "for column 'c'"),
        ({"c": [np.inf, *range(39)]}, "NaN or infinite"),
    ],
)
def test_columns_that_are_refused(change, words):
    change = {k: v.set_axis(frame().index) if isinstance(v, pd.Series) else v for k, v in change.items()}
    with pytest.raises(ValueError, match=words):
        load(frame(**change))


TIMES = 1.7e9 + 30.0 * np.arange(40)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (np.tile([[16777216.0], [16777217.0]], (20, 1)), r"element \[0\] of a datum of 'ndarray'"),
        (
            np.stack([X[:, 0], TIMES], 1),
            r"element \[1\] .*errors up to 64 .*deviation of 3.5e\+02; try to subtract",
        ),
        (torch.as_tensor(TIMES).reshape(20, 2, 1), r"element \[0, 0\] of a datum of 'Tensor'"),
        (frame(t=TIMES), "column 't' of 'DataFrame'"),
        (1e-60 * TIMES[:, None], r"element \[0\]"),
        (1e-250 * TIMES[:, None], r"element \[0\]"),
        ({"train": TIMES[:30, None], "test": TIMES[30:, None]}, "float32 tells apart"),
        ({"train": X[:30].astype(np.float64) + 1e9, "test": X[30:] + np.float32(1e9)}, "float32 tells apart"),
        (scipy.sparse.csr_matrix(TIMES[:, None]), "float32 tells apart"),
        ([torch.as_tensor([t]) for t in TIMES], "float32 tells apart"),
        ("times.csv", "column 't' of 'times.csv'"),
    ],
)
def test_values_that_float32_does_not_tell_apart_are_refused(source, words, tmp_path):
    if isinstance(source, str):
        source = tmp_path / source
        frame(t=TIMES).to_csv(source)
    if isinstance(source, list):
        source = torch.utils.data.StackDataset(torch.stack(source))
    with pytest.raises(ValueError, match=words):
        load(source)


def test_values_of_float64_that_float32_holds():
    normal = RNG.normal(size=(40, 3))
    rare = np.zeros((40, 1))
    rare[7] = 0.1
    noise = np.where(np.arange(40) % 2, 0.1 + 0.2, 0.3)[:, None]
    for x in (
        normal,
        normal + 100,
        1e-30 * normal,
        np.full((40, 1), 0.1),
        noise,
        rare,
        TIMES[:, None] - TIMES.mean(),
        2.0**40 * np.arange(40.0)[:, None],
    ):
        data = load(x)
        assert data.train.dtype == torch.float32
        assert torch.equal(data.train, torch.as_tensor(x)[data.rows["train"]].float())
    # A test split of its own that hardly varies has the spread of all data.
    data = load({"train": normal, "valid": normal, "test": normal[:1].repeat(2, 0) * [[1.0], [1 + 1e-7]]})
    assert data.test.shape == (2, 3)


def test_tables_that_are_refused():
    with pytest.raises(ValueError, match="got 'a' twice"):
        load(frame().rename(columns={"b": "a"}))
    with pytest.raises(ValueError, match="0 rows and 3 columns"):
        load(frame()[:0])
    with pytest.raises(ValueError, match="40 rows and 0 columns"):
        load(frame()[[]])
    with pytest.raises(ValueError, match="a table, a mapping"):
        load(frame()["a"])
    with pytest.warns(UserWarning, match="same value in all rows of 'c'"):
        load(frame(c=1.0))


def test_csv_files(tmp_path):
    table = frame(n=np.arange(40) * 1000)
    path = tmp_path / "table.csv"
    for index in (True, False):
        table.to_csv(path, index=index)
        data = load(str(path))
        assert data.spec.name == "table.csv" and data.spec.columns == ("a", "b", "c", "n")
        torch.testing.assert_close(data.train, load(table).train)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty file"),
        ("1,2\n3,4\n5,6\n", "header row .* got numbers"),
        ("a,a\n3,4\n", "'a' twice"),
        ("a;b\n3;4\n", "expected commas"),
        ("a;b\n3,5;4,5\n1,5;2,5\n", r"expected commas .* got 'a;b'; .*decimal="),
        ("a,b,\n3,4,5\n", "a name for every column .* place 2"),
        ("a,b\n3,x\n4,5\n", "numbers in column 'b'"),
        ("a,b\n3,\n4,5\n", "no missing values in column 'b'"),
        ("a\n1\n\n3\n", "got a blank line 3, where the value is missing"),
        ("\na\r\n1\r\n2\r\n \r\n", "got a blank line 5"),
        ('a\n1\n""\n3\n', "no missing values in column 'a'"),
        ("a,b\n3,4,5\n4,5,6\n", "Expected 2 fields in line 2, saw 3"),
        ("a,b\n3,4\n4,5,6,7\n", "comma-separated values"),
        ("a,b\n", "0 rows"),
        ("a,b\n\x00\xff", "NUL byte in line 2"),
        ("a,b\n1,2\n3,-1.5\n4,5\x006\n", "NUL byte in line 4"),
        ("\xff\xfea\x00,\x00b\x00", r"got UTF-16.*encoding='utf-16'"),
        ("\xfe\xff\x00a\x00,\x00b", "got UTF-16"),
        ("a,b\n3,-1.9\n4,x1\n", "'x1' in row 1"),
    ],
)
def test_csv_files_that_are_refused(tmp_path, text, words):
    (tmp_path / "bad.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=words):
        load(tmp_path / "bad.csv")


def test_blanks_around_names_and_words_are_none_of_them(tmp_path):
    path = tmp_path / "blanks.csv"
    path.write_text(" a , b,c \n" + "".join(f"{i}.5, {i * i % 7}.25 , {'uv'[i % 2]} \n" for i in range(40)))
    data = load(path, columns="auto")
    assert data.spec.columns == ("a", "b", "c") and data.spec.table[2].words == ("u", "v")
    assert [(c.name, c.role) for c in data.spec.table[:2]] == [("a", "real"), ("b", "real")]
    (tmp_path / "new.csv").write_text("c,a,b\nu,1.5,2.5\n")
    assert pv.data.new_rows(tmp_path / "new.csv", data.spec).arguments[0].tolist() == [[1.5, 2.5, 0.0]]
    assert pv.data.new_rows(path, data.spec).arguments[0].shape == (40, 3)


def test_columns_that_float32_does_not_tell_apart_are_not_called_constant():
    table = frame(c=1e9 + RNG.standard_normal(40))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="float32 tells apart"):
            load(table)


def test_a_csv_file_of_one_column(tmp_path):
    path = tmp_path / "one.csv"
    path.write_text("\na\n" + "\n".join(f"{value}" for value in X[:, 0]))
    data = load(path)
    assert torch.equal(data.test, torch.as_tensor(X[data.rows["test"], :1]))


def test_parquet_without_its_library(tmp_path, monkeypatch):
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"expected the library pyarrow .* pip install pyarrow"):
        load(tmp_path / "table.parquet")


def test_parquet_files(tmp_path):
    pytest.importorskip("pyarrow")
    frame().to_parquet(tmp_path / "table.parquet")
    torch.testing.assert_close(load(tmp_path / "table.parquet").train, load(X).train)
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"readable \.parquet file"):
        load(tmp_path / "table.parquet")


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_array, scipy.sparse.csc_matrix])
def test_sparse_matrices(kind):
    counts = RNG.poisson(0.3, (40, 5))
    assert torch.equal(load(kind(counts)).train, load(counts).train)
    data = load({"x": kind(counts), "y": np.arange(40)})
    assert torch.equal(data.train, torch.as_tensor(counts)[data.labels["train"]].float())


@pytest.mark.parametrize(
    "keys",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("train_x", "train_y", "test_x", "test_y"),
    ],
)
def test_keys_of_splits(tmp_path, keys):
    arrays = (X[:30], np.arange(30), X[30:], np.arange(10))
    np.savez(tmp_path / "a.npz", **dict(zip(keys, arrays, strict=True)))
    data = load(tmp_path / "a.npz")
    assert torch.equal(data.test, torch.as_tensor(X[30:])) and data.labels["test"].tolist() == list(range(10))
    assert torch.equal(data.train, torch.as_tensor(X)[data.labels["train"]])


@pytest.mark.parametrize("keys", [("X", "y"), ("data", "target"), ("data", "labels"), ("x", "targets")])
def test_keys_of_whole_data(tmp_path, keys):
    np.savez(tmp_path / "a.npz", **dict(zip(keys, (X, np.array(["u", "v"] * 20)), strict=True)))
    data = load(tmp_path / "a.npz")
    assert data.classes == ("u", "v") and data.spec.event_shape == (3,)
    assert torch.equal(data.train, torch.as_tensor(X)[data.rows["train"]])
    for wrong in (
        {"x": X, "X": X},
        {"y": X, "target": X},
        {"x_train": X, "train_x": X},
        {"x_train": X, "z": X},
    ):
        with pytest.raises(ValueError, match="got the keys"):
            load(wrong)


def test_a_column_that_numbers_the_rows_is_told():
    """Guessed as counts, it would be modelled: 20 and more rows with each number of a range once."""
    random = np.random.default_rng(0)
    table = pd.DataFrame({"id": random.permutation(40) + 1000, "a": random.normal(size=40)})
    for options in ({}, {"columns": "auto"}):
        with pytest.warns(UserWarning, match="'id' .* every number of a range once"):
            load(table, **options)
    told = table.assign(id=table["id"].where(table["id"] != 1003, 2000))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*every number of a range")
        load(told)
        load(table, columns={"id": "ignore", "a": "real"})
        load(table[:12].assign(id=range(12)))

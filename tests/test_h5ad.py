"""Annotated matrices in `.h5ad` files, written by h5py as anndata writes them."""

import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

import pyrovae as pv
from pyrovae.data import load, new_rows, rows_like
from pyrovae.inference import score, train
from tests.small import FLAGS

N, D = 30, 4
X = np.random.default_rng(0).poisson(4, (N, D)).astype(np.float32)
CELLS, GENES = [f"cell{i}" for i in range(N)], [f"g{i}" for i in range(D)]
KIND = [None if i == 3 else ("B", "T")[i % 2] for i in range(N)]


def encoded(thing, kind, version="0.2.0", **attributes):
    thing.attrs.update({"encoding-type": kind, "encoding-version": version, **attributes})
    return thing


def text(group, name, values):
    encoded(group.create_dataset(name, data=values, dtype=h5py.string_dtype()), "string-array")


def dense(group, name, x):
    encoded(group.create_dataset(name, data=x, compression="gzip"), "array")


def sparse(group, name, x, kind="csr"):
    own = encoded(group.create_group(name), f"{kind}_matrix", "0.1.0", shape=np.array(x.shape))
    made = (scipy.sparse.csr_matrix if kind == "csr" else scipy.sparse.csc_matrix)(x)
    for key in ("data", "indices", "indptr"):
        own[key] = getattr(made, key)


def frame(file, axis, names, columns=()):
    group = encoded(file.create_group(axis), "dataframe", _index="_index")
    group.attrs["column-order"] = list(columns) or np.zeros(0)
    text(group, "_index", names)
    return group


def write(path, x=X, cells=CELLS, genes=GENES):
    """X is ln(1 + counts), of which layers are; obs has a column of each kind."""
    with h5py.File(path, "w") as file:
        encoded(file, "anndata", "0.1.0")
        dense(file, "X", np.log1p(x))
        obs = frame(file, "obs", cells, ["kind", "batch", "flag", "quality"])
        kind = encoded(obs.create_group("kind"), "categorical", ordered=False)
        text(kind, "categories", ["B", "T"])
        codes = [-1 if k is None else "BT".index(k) for k in KIND[: len(x)]]
        encoded(kind.create_dataset("codes", data=np.array(codes, dtype=np.int8)), "array")
        dense(obs, "batch", np.arange(len(x)) % 3)
        flag = encoded(obs.create_group("flag"), "nullable-integer", "0.1.0")
        dense(flag, "values", np.arange(len(x)) % 2)
        dense(flag, "mask", np.arange(len(x)) % 5 == 0)
        dense(obs, "quality", np.linspace(0, 1, len(x)))
        frame(file, "var", genes)
        layers = encoded(file.create_group("layers"), "dict", "0.1.0")
        sparse(layers, "counts", x)
        sparse(layers, "columns", x, "csc")
        dense(layers, "whole", x)
    return path


@pytest.fixture(scope="module")
def cells(tmp_path_factory):
    return write(tmp_path_factory.mktemp("cells") / "cells.h5ad")


@pytest.mark.parametrize("layer", [None, "counts", "columns", "whole"])
def test_x_and_layers_dense_and_sparse(cells, layer):
    data = load(cells, layer=layer)
    wanted = torch.tensor(np.log1p(X) if layer is None else X)
    assert torch.equal(data.train, wanted[data.rows["train"]])
    assert data.spec.columns == tuple(GENES) and data.spec.layer == layer and data.labels is None


@pytest.mark.parametrize(
    ("column", "wanted"),
    [
        ("kind", [-1 if k is None else "BT".index(k) for k in KIND]),
        ("batch", [i % 3 for i in range(N)]),
        ("flag", [-1 if i % 5 == 0 else i % 2 for i in range(N)]),
    ],
)
def test_a_column_of_obs_is_the_label(cells, column, wanted):
    data = load(cells, label_column=column)
    assert data.labels["train"].tolist() == [wanted[i] for i in data.rows["train"]]
    assert data.classes == (("B", "T") if column == "kind" else None)
    assert data.spec.columns == tuple(GENES) and data.spec.label_column == column


def test_new_rows_take_the_layer_and_the_names_of_the_training_data(cells, tmp_path):
    data = pv.data.partly_labelled(load(cells, label_column="kind", layer="counts"))
    new = write(tmp_path / "new.h5ad", X[:5, ::-1], CELLS[:5], GENES[::-1])
    found = new_rows(new, data.spec)
    assert found.names == tuple(CELLS[:5]) and torch.equal(found.arguments[0], torch.tensor(X[:5]))
    assert torch.equal(rows_like(new, data.spec), torch.tensor(X[:5]))
    table = pd.DataFrame(X[:5], columns=GENES, index=CELLS[:5])
    with pytest.raises(ValueError, match=r"expected an \.h5ad file, whose layer 'counts'"):
        load(table, layer="counts")


class Annotated:
    """An annotated matrix in memory, as anndata has it."""

    obs_names, var_names, layers = CELLS, GENES, {"counts": X}
    obs = pd.DataFrame({"kind": KIND}, index=CELLS)

    def to_df(self, layer=None):
        return pd.DataFrame(np.log1p(X) if layer is None else X, index=CELLS, columns=GENES)


def test_an_annotated_matrix_in_memory_is_its_file(cells):
    own, file = (load(s, label_column="kind", layer="counts") for s in (Annotated(), cells))
    assert own.spec.hash == file.spec.hash and torch.equal(own.labels["test"], file.labels["test"])
    assert new_rows(Annotated(), own.spec).names == tuple(CELLS)


def damage(change):
    def make(path):
        with h5py.File(write(path), "r+") as file:
            change(file)

    return make


def bad_indices(file):
    file["layers/counts/indices"][3] = 99


def no_matrix(file):
    del file["X"]


def linked(file):
    del file["X"]
    file["X"] = h5py.ExternalLink("/dev/null", "/x")


def bomb(file):
    file["layers/counts"].attrs["shape"] = [10**6, 10**6]


def old(file):
    del file["obs/kind"]
    file["obs/kind"] = np.zeros(N, dtype=np.int8)
    file["obs/kind"].attrs["categories"] = "B"


def shorter(file):
    del file["var/_index"]
    text(file["var"], "_index", GENES[:2])


@pytest.mark.parametrize(
    ("make", "options", "words"),
    [
        (lambda path: path.write_text("a,b\n"), {}, "damaged or foreign"),
        (lambda path: h5py.File(path, "w").close(), {}, "without a group 'obs'"),
        (write, {"layer": "count"}, "got 'count'; did you mean 'counts'"),
        (write, {"label_column": "knd"}, "got 'knd'; did you mean 'kind'"),
        (write, {"label_column": "quality"}, "integer labels"),
        (damage(bad_indices), {"layer": "counts"}, "damaged or foreign"),
        (damage(no_matrix), {}, r"expected X in .*counts"),
        (damage(linked), {}, "a link 'X' to somewhere else"),
        (damage(bomb), {"layer": "counts"}, "fit into .* bytes of memory"),
        (damage(old), {"label_column": "kind"}, r"anndata 0\.8 and later"),
        (damage(shorter), {}, "2 var_names"),
    ],
)
def test_other_files_are_refused(make, options, words, tmp_path):
    path = tmp_path / "a.h5ad"
    make(path)
    with pytest.raises(ValueError, match=words):
        load(path, **options)


def test_a_file_of_cells_on_the_command_line(cells, tmp_path, capsys):
    argv = ["--data", str(cells), "--layer", "counts", "--label-column", "kind", "--labelled", "all"]
    argv += ["--model", "semi-supervised", "--likelihood", "negative-binomial", "--latent-dim", "2"]
    argv += ["--hidden", "4", "--epochs", "1", "--compile", "off", *FLAGS]
    assert train.main(["--out", str(tmp_path / "run"), *argv]) == 0
    argv = [str(tmp_path / "run"), str(cells), "--estimators", "is", "--num-samples", "5", *FLAGS]
    assert score.main(argv) == 0
    written = pd.read_csv(tmp_path / "run/scores-cells.csv")
    assert written.row.tolist() == CELLS and written.log_evidence.notna().all()
    assert train.main(["--out", str(tmp_path / "b"), "--layer", "counts", "--epochs", "1", *FLAGS]) == 2
    assert "expected layer=None with 'digits'" in capsys.readouterr().err

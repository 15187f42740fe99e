"""New rows of tables whose columns have roles or missing values, and what is said of models that sum over labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae.data import new_rows
from pyrovae.models.semi_supervised import SemiSupervisedVAE

ROLES = {"size": "real", "kind": "category", "visits": "count", "grade": "label"}


def frame(rows: int = 40) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "kind": np.array(["red", "green", "blue"])[np.arange(rows) % 3],
            "size": random.normal(size=rows),
            "visits": random.poisson(4.0, rows),
            "grade": np.array(["low", "high"])[np.arange(rows) % 2],
        }
    )


def test_words_of_a_table_have_the_codes_of_training():
    spec = pv.data.load(frame(), columns=ROLES).spec
    rows = frame(6)[["visits", "size", "kind"]].iloc[::-1]
    (x,) = new_rows(rows, spec).arguments
    kinds = {w: i for i, w in enumerate(["blue", "green", "red"])}
    by_name = {"kind": [kinds[w] for w in rows["kind"]], "size": rows["size"], "visits": rows["visits"]}
    wanted = np.stack([np.asarray(by_name[c], dtype=np.float32) for c in spec.columns], 1)
    assert np.array_equal(x.numpy(), wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.assign(kind="grey"), "'grey' in row 0"),
        (lambda f: f.assign(visits=-1), "whole numbers >= 0"),
        (lambda f: f.assign(size=np.inf), "finite numbers"),
        (lambda f: f.assign(size=np.nan), "missing values"),
        (lambda f: np.zeros((6, 3)), "whose names say what they are"),
    ],
)
def test_values_that_a_role_does_not_allow_are_refused(change, words):
    spec = pv.data.load(frame(), columns=ROLES).spec
    with pytest.raises(ValueError, match=words):
        new_rows(change(frame(6)), spec)


def test_missing_values_stay_so_where_they_were_in_training():
    table = frame()[["size", "visits"]].astype(float)
    table.iloc[::5, 0] = np.nan
    spec = pv.data.load(table, missing="ignore").spec
    new = pd.DataFrame({"visits": [1.0, 2.0], "size": [np.nan, 0.5]})
    assert np.array_equal(
        new_rows(new, spec).arguments[0].numpy(),
        new[["size", "visits"]].to_numpy(np.float32),
        equal_nan=True,
    )
    with pytest.raises(ValueError, match="finite numbers, got inf"):
        new_rows(new.assign(size=np.inf), spec)


def test_labels_are_read_from_the_column_of_their_role():
    data = pv.data.load(frame()[["size", "grade"]], columns={"size": "real", "grade": "label"})
    given = pv.data.conditioned(data)
    x, c = new_rows(frame(4)[["grade", "size"]], given.spec).arguments
    assert x[:, 0].tolist() == frame(4)["size"].astype(np.float32).tolist()
    assert c.tolist() == [[0, 1], [1, 0], [0, 1], [1, 0]]  # words in alphabetical order: high, low


def test_partly_known_labels_are_no_condition():
    digits = pv.data.load("digits")
    assert digits.spec.conditions == ""
    assert pv.data.partly_labelled(digits, 100).spec.conditions == ""
    assert pv.data.conditioned(digits).spec.conditions == "label"


def test_no_active_units_are_counted_where_the_guide_sums_over_labels():
    torch.manual_seed(0)
    m2 = SemiSupervisedVAE(
        prior=pv.priors.StandardNormal(2),
        likelihood=pv.likelihoods.Gaussian(pv.networks.MLP(2 + 3, (4,), 3), torch.ones(3)),
        classifier=nn.Linear(3, 3),
        guide=pv.guides.DiagonalGaussian(pv.networks.MLP(3 + 3, (4,)), latent_dim=2),
        num_classes=3,
    )
    x, y = torch.randn(30, 3) * 3, torch.arange(30) % 4 - 1
    fit = pv.fit(m2.model, m2.guide, (x, y), epochs=1, objective=m2.objective(1.0), compile=False)
    assert np.isnan(fit.history[0]["active_units"])
    assert np.isfinite(fit.history[0]["elbo"])


# What is no number, or is another one than what is written; each is a category of its own.
CODES = "01", "1", "001", "-1", "1.5", "x", "0x1", "2e3", "0", "00", "12345678901234567", "12345678901234568"
# Ways to write what is the same category.
WAYS = {
    "1": ["1.0", "+1", "1e0"],
    "1.5": ["1.50", "15e-1"],
    "2e3": ["2000", "2000.0"],
    "True": ["TRUE", "true"],
}


@pytest.mark.parametrize("beside", [(), ("x",), ("1.5",), ("",)])
def test_a_word_of_a_file_does_not_depend_on_the_rows_beside_it(beside, tmp_path):
    file = tmp_path / "rows.csv"

    def written(words):
        file.write_text("b,code\n" + "".join(f"0.5,{w}\n" for w in words))
        return file

    words = (*CODES, "True")
    spec = pv.data.load(written(words * 4), columns={"b": "real", "code": "category"}, missing="ignore").spec
    place = {w: i for i, w in enumerate(spec.table[1].words)}
    assert len(place) == len(words)
    for word in words:
        own = "2000" if word == "2e3" else word
        for way in (word, *WAYS.get(word, ())):
            (x,) = new_rows(written([way, *beside]), spec).arguments
            assert int(x[0, 1]) == place[own], way


def test_codes_of_a_long_file_are_the_same_from_its_first_row_to_its_last(tmp_path):
    """Parts of a file are no files of their own, with types of their own."""
    file, width, rows = tmp_path / "long.csv", 128, 9_000
    words = ["01"] * rows
    words[-1] = "x"
    other = ",1" * (width - 1)
    names = ",".join(f"c{i}" for i in range(width - 1))
    file.write_text(f"code,{names}\n" + "".join(f"{w}{other}\n" for w in words))
    assert set(pv.data.files.read_file(file)["code"]) == {"01", "x"}


def test_words_of_an_order_and_of_runs_of_before_may_be_written_otherwise():
    table = pd.DataFrame({"a": np.linspace(0, 1, 30), "s": ["1.50", "2", "x"] * 10})
    order = ["1.50", "2.0", "x"]
    spec = pv.data.load(table, columns={"a": "real", "s": {"role": "ordinal", "order": order}}).spec
    former = replace(spec, table=(spec.table[0], replace(spec.table[1], words=("1.50", "2.0", "x"))))
    for known in (spec, former):
        assert new_rows(table[:3], known).arguments[0][:, 1].tolist() == [0, 1, 2]

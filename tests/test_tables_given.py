"""Tables with roles, units and gaps where else data are taken: new rows, and columns that are given."""

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.data import conditioned, load, new_rows, partly_labelled, prepared, rows_like
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.conditional import compose_conditional
from pyrovae.models.composing.semi_supervised import compose_semi_supervised
from pyrovae.models.composing.vae import compose

GRADES = {"role": "ordinal", "order": ["low", "mid", "high"]}
ROLES = {"income": "positive", "code": "category", "grade": GRADES}


def frame(num: int = 60, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "size": 100 + 20 * rng.normal(size=num),
            "income": np.exp(rng.normal(size=num)),
            "visits": rng.poisson(3, num),
            "bit": rng.integers(0, 2, num),
            "code": rng.choice([3, 5, 9], num),
            "grade": rng.choice(["low", "mid", "high"], num),
        }
    )


def test_new_rows_of_a_table_go_by_the_roles_of_its_columns():
    table = frame()
    spec = load(table, columns=ROLES, standardize=True).spec
    given = table.iloc[[4, 2]][["grade", "code", "bit", "visits", "income", "size"]]
    (x,) = new_rows(given, spec).arguments
    codes = {3: 0, 5: 1, 9: 2}
    assert x[:, 4].tolist() == [codes[v] for v in given["code"]]
    assert x[:, 5].tolist() == [GRADES["order"].index(v) for v in given["grade"]]
    assert torch.equal(x[:, 0], torch.tensor(given["size"].to_numpy(), dtype=torch.float32))
    assert torch.equal(x, rows_like(given, spec))
    with pytest.raises(ValueError, match="without names; try"):
        new_rows(x.numpy(), spec)
    with pytest.raises(ValueError, match="'7' in row 0"):
        new_rows(given.assign(code=7), spec)


class Polars(pd.DataFrame):
    """A frame that gives all of its columns, without rows, for none of them, as polars does."""

    @property
    def _constructor(self):
        return Polars

    def __getitem__(self, key):
        return self.head(0) if isinstance(key, list) and not key else super().__getitem__(key)


def test_new_rows_of_a_frame_of_polars():
    spec = load(frame(), columns=ROLES).spec
    assert torch.equal(new_rows(Polars(frame()), spec).arguments[0], new_rows(frame(), spec).arguments[0])


@pytest.mark.parametrize("columns", [None, ROLES])
def test_new_rows_may_miss_what_the_data_may(columns):
    table = frame() if columns else frame()[["size", "income"]]
    table.loc[::5, "size"] = np.nan
    spec = load(table, columns=columns, missing="ignore").spec
    (x,) = new_rows(table.head(7), spec).arguments
    assert x.isnan().nonzero().tolist() == [[0, 0], [5, 0]]
    with pytest.raises(ValueError, match="finite"):
        new_rows(table.head(7).fillna(np.inf), spec)


def test_new_rows_of_an_array_with_gaps():
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[3, 1] = np.nan
    (found,) = new_rows(x[2:5], load(x, missing="ignore").spec).arguments
    assert found.isnan().nonzero().tolist() == [[1, 1]]
    with pytest.raises(ValueError, match="finite numbers, got nan in row '1'"):
        new_rows(x[2:5], load(x[5:]).spec)


def test_columns_that_are_left_keep_their_units_and_roles():
    table = frame()
    data = load(table, columns=ROLES, standardize=True)
    left = conditioned(data, ["bit", "size"])
    names = ("income", "visits", "code", "grade")
    assert left.spec.columns == names and tuple(c.name for c in left.spec.table) == names
    assert left.spec.support == "mixed"
    own, was = left.spec.standardization, data.spec.standardization
    assert (own.center[0], own.scale[0], own.log) == (
        was.center[1],
        was.scale[1],
        (True, False, False, False),
    )
    t = prepared(left).train
    assert t.shape == left.train.shape
    assert torch.allclose(t[:, 0].mean(), torch.tensor(0.0), atol=1e-5)
    assert torch.equal(t[:, 1:], left.train[:, 1:])
    rows = new_rows(table.head(3), left.spec)
    assert torch.equal(rows.arguments[0], rows_like(table.head(3), data.spec)[:, [1, 2, 4, 5]])
    assert rows.arguments[1][:, 0].tolist() == table["bit"].head(3).tolist()


def test_one_column_that_is_left_keeps_its_own_scale():
    data = load(frame()[["size", "income"]], standardize=True)
    left = conditioned(data, ["size"])
    assert left.spec.standardization.center == data.spec.standardization.center[1:]
    assert prepared(left).train.shape == left.train.shape
    whole = load(frame()[["visits", "size"]], standardize=True)  # whole numbers that were taken for real ones
    assert conditioned(whole, ["size"]).spec.support == "real"


def test_what_cannot_be_given_is_refused():
    table = frame()
    with pytest.raises(ValueError, match="'code' of DataFrame, which holds words or categories"):
        conditioned(load(table, columns=ROLES), ["code"])
    table.loc[::5, "size"] = np.nan
    data = load(table[["size", "income"]], missing="ignore")
    with pytest.raises(ValueError, match="got missing ones in split 'train'"):
        conditioned(data, ["size"])
    assert conditioned(data, ["income"]).spec.missing["train"] == float(
        data.train[:, 0].isnan().double().mean()
    )


def test_a_run_scores_rows_of_a_table_as_the_evidence_of_the_same_rows(tmp_path):
    table = frame(80)
    table.loc[::7, "income"] = np.nan
    data = load(table, columns=ROLES, standardize=True, missing="ignore")
    vae = compose(data, Perceptrons((8,)), 2)
    fit = pv.fit(vae.model, vae.guide, data, epochs=1, progress=False)
    rows = table.iloc[data.rows["test"].numpy()]
    scores = fit.score(rows[list(rows.columns)[::-1]], num_samples=50, progress=False)
    own = pv.evidence(fit.model, fit.guide, data.test, estimators=[pv.IS(50)], progress=False)["IS"]
    assert torch.equal(scores.log_evidence, own.per_datum)
    assert scores.names == tuple(map(str, rows.index))


def test_names_that_differ_by_their_kind_alone_are_one_name():
    x = np.random.default_rng(0).normal(size=(20, 3))
    for names in (["a", "a", "b"], ["1", 1, "b"]):
        with pytest.raises(ValueError, match=f"{names[0]}' twice"):
            load(pd.DataFrame(x, columns=names), columns="auto")
    spec = load(pd.DataFrame(x, columns=["a", "b", "c"]), columns="auto").spec
    with pytest.raises(ValueError, match="'a' twice"):
        rows_like(pd.DataFrame(np.c_[x, x[:, 0]], columns=["a", "b", "c", "a"]), spec)


@pytest.mark.parametrize("role", ["category", "label"])
def test_infinity_is_no_category(role):
    table = frame()[["size", "code"]].astype(float)
    table.loc[0, "code"] = np.inf
    with pytest.raises(ValueError, match=f"{role} column 'code' of 'DataFrame', got inf"):
        load(table, columns={"code": role})


def test_a_label_of_a_later_split_is_not_cut_to_a_whole_number():
    train, test = frame()[["size", "code"]], frame(9, 1)[["size", "code"]].astype(float)
    test.loc[1, "code"] = 3.5
    with pytest.raises(
        ValueError, match=r"whole numbers in the label column 'code' of split 'test', got 3\.5"
    ):
        load({"train": train, "test": test}, columns={"code": "label"})


def test_a_dense_column_that_never_changes_is_told_with_roles_too():
    table = frame().assign(size=0.5, bit=1)
    with pytest.warns(UserWarning, match=r"the same value in all rows of 'size':"):
        load(table, columns="auto")


def test_a_row_without_a_logarithm_is_refused_where_it_is_read():
    train, test = frame()[["size", "income"]], frame(9, 1)[["size", "income"]]
    test.loc[4, "income"] = 0.0
    with pytest.raises(
        ValueError, match=r"positive numbers in 'income' of split 'test' of 'dict'.* got 0 in row 4"
    ):
        load({"train": train, "test": test}, standardize=True, log=["income"], missing="ignore")
    spec = load(train, standardize=True, log=["income"]).spec
    for read in (rows_like, lambda rows, spec: new_rows(rows, spec)):
        with pytest.raises(ValueError, match=r"positive numbers in 'income' of .*got 0 in row 4"):
            read(test, spec)


def test_a_support_of_changed_values_says_its_name():
    units = load(frame()[["size", "income"]], standardize=True, log=["income"]).spec.standardization
    law = pv.likelihoods.Standardized(pv.likelihoods.Gaussian(torch.nn.Linear(1, 2)), units)(
        torch.zeros(1, 1)
    )
    assert repr(law.support) == "Restricted(Real())"
    assert law.support.check(torch.tensor([[1.0, 1.0], [1.0, -1.0]])).tolist() == [True, False]


@pytest.mark.parametrize("kind", ["conditional", "semi-supervised"])
def test_models_of_what_is_given_see_standardised_columns_in_own_units(kind):
    """The same weights on columns scaled by hand: evidence apart by the logarithm of the scales, and no more."""
    table = frame(60)[["size", "income", "code"]].assign(size=lambda t: 50 * t["size"])
    own = load(table, columns={"code": "label", "income": "real"}, standardize=True)
    units = own.spec.standardization
    splits = {s: units.forward(own.split(s)) for s in ("train", "valid", "test")}
    labels = {f"{s}_labels": own.labels[s] for s in splits}
    scaled = load(splits | labels)
    found = []
    for data in (own, scaled):
        torch.manual_seed(0)
        data = conditioned(data) if kind == "conditional" else partly_labelled(data, 20)
        make = compose_conditional if kind == "conditional" else compose_semi_supervised
        program = make(data, Perceptrons((8,)), 2)
        rows = data.arguments("test")
        found.append(pv.log_weights(program.model, program.guide, *rows, num_samples=5, seed=1))
    slope = -torch.tensor(units.scale, dtype=torch.float64).log().sum()
    assert torch.allclose(found[0].double(), found[1].double() + slope, atol=1e-3)


def test_models_of_what_is_given_leave_out_what_is_missing():
    table = frame(60)[["size", "income", "code"]]
    table.loc[::4, "income"] = np.nan
    data = conditioned(load(table, columns={"code": "label"}, standardize=True, missing="ignore"))
    program = compose_conditional(data, Perceptrons((8,)), 2)
    x, c = data.arguments("test")
    gone = torch.where(torch.tensor([False, True]), torch.nan, x)
    z = torch.zeros(len(x), 2)
    whole, part = (program.likelihood(z, c).log_prob_of_elements(v) for v in (x, gone))
    assert bool((part[:, 1] == 0).all()) and torch.equal(part[:, 0], whole[:, 0])


def test_whole_numbers_below_zero_are_not_standardised_unasked():
    table = pd.DataFrame({"a": [-1, 2, 3, -4] * 5, "b": [1, 0, 2, -2] * 5})
    with pytest.raises(ValueError, match="probability mass in their own units"):
        load(table, standardize=True)
    assert load(table, standardize=True, columns={"a": "real", "b": "real"}).spec.standardization


def test_words_that_are_read_as_missing_are_told(tmp_path):
    path = tmp_path / "schools.csv"
    path.write_text(
        "id,school,size\n" + "".join(f"{i},{'None' if i % 3 else 'high'},{i + 0.5}\n" for i in range(30))
    )
    with pytest.warns(UserWarning, match="'None' in the column 'school' of words, in 20 rows"):
        data = load(path, columns={"id": "ignore"} | {"school": "ignore"}, missing="ignore")
    assert data.spec.columns == ("size",)
    index = tmp_path / "index.csv"  # a first column without a name, as pandas writes it
    index.write_text(
        ",school,size\n" + "".join(f"{i},{'None' if i % 3 else 'high'},{i + 0.5}\n" for i in range(30))
    )
    with pytest.warns(UserWarning, match="'None' in the column 'school' of words, in 20 rows"):
        load(index, columns={"school": "ignore"}, missing="ignore")


def test_a_mass_of_a_column_is_not_compared_with_a_density_of_it():
    """Both are "mass x density" as a whole, but not of the same columns."""
    table = frame(40)[["size", "visits", "bit"]]
    found = {}
    for role in ("count", "real"):
        data = load(table, columns={"visits": role, "bit": "binary"}, standardize=True)
        vae = compose(data, Perceptrons((8,)), 2)
        found[role] = pv.evidence(
            vae.model, vae.guide, data.test, estimators=[pv.IS(20)], progress=False, compile=False
        )
    count, real = found["count"], found["real"]
    assert count["IS"].measure.kind == real["IS"].measure.kind == "mixed"
    assert count["IS"].measure.columns["x"] == ("density", "mass", "mass")
    again = type(count["IS"].measure).from_json(count["IS"].measure.to_json())
    assert again == count["IS"].measure
    with pytest.raises(ValueError, match=r"differ in column 1 \(from 0\) of 'x'"):
        count.compare(real)
    assert count.compare(count)

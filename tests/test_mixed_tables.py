"""Tables of several kinds of columns: roles, one likelihood a group, words kept, and imputation of what is missing."""

import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import bernoulli, nbinom, norm

import pyrovae as pv
from pyrovae import likelihoods, networks
from pyrovae.data import as_frame, described, imputed_frames, load, prepared, rows_like
from pyrovae.inference import evaluate, impute, reconstruct, sample, train
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.vae import compose, vamp

ROLES = {
    "income": "positive",
    "grade": {"role": "ordinal", "order": ["low", "mid", "high"]},
    "outcome": "label",
    "id": "ignore",
}
FEATURES = ["age", "income", "visits", "smoker", "city", "grade"]
TOML = """
income = "positive"
outcome = "label"
id = "ignore"

[grade]
role = "ordinal"
order = ["low", "mid", "high"]
"""


def table(n=300, missing=0.0):
    random = np.random.default_rng(0)
    z = random.normal(size=(n, 2))

    def level(column, words):
        place = np.clip(np.round(z[:, column] + 1 + 0.3 * random.normal(size=n)), 0, 2).astype(int)
        return np.array(words)[place]

    frame = pd.DataFrame(
        {
            "age": 50 + 10 * z[:, 0] + 3 * random.normal(size=n),
            "income": np.exp(9 + z[:, 1] + 0.3 * random.normal(size=n)),
            "visits": random.poisson(np.exp(1 + 0.7 * z[:, 0])),
            "smoker": z[:, 1] + random.normal(size=n) > 0,
            "city": level(0, ["Bern", "Graz", "Lyon"]),
            "grade": level(1, ["low", "mid", "high"]),
            "outcome": np.where(z[:, 0] > 0, "ill", "well"),
            "id": [f"p{i}" for i in range(n)],
        }
    )
    for c in FEATURES if missing else []:
        frame[c] = frame[c].astype(object).where(random.random(n) > missing, None)
    return frame


def test_roles_are_given_or_guessed():
    data = load(table(), columns=ROLES, standardize=True)
    found = {c.name: (c.role, c.guessed) for c in data.spec.table}
    assert found == {
        "age": ("real", True),
        "income": ("positive", False),
        "visits": ("count", True),
        "smoker": ("binary", True),
        "city": ("category", True),
        "grade": ("ordinal", False),
        "outcome": ("label", False),
        "id": ("ignore", False),
    }
    assert data.spec.columns == tuple(FEATURES) and data.spec.support == "mixed"
    assert data.spec.standardization.log == (False, True, False, False, False, False)
    assert data.spec.standardization.scale[2:] == (1.0,) * 4  # counts, bits and categories stay as they are
    frame = table().iloc[data.rows["test"].numpy()]
    assert data.classes == ("ill", "well")
    assert [data.classes[i] for i in data.labels["test"]] == frame.outcome.tolist()
    assert (data.test[:, 5].numpy() == frame.grade.map({"low": 0, "mid": 1, "high": 2})).all()
    assert pv.data.DataSpec.from_json(data.spec.to_json()) == data.spec
    lines = {line[0]: line for line in described(data.spec.table, data.train)}
    assert lines["city"] == ("city", "category", "guessed", "Bern, Graz, Lyon", "0 %")


def test_words_come_back():
    data = load(table(missing=0.2), columns=ROLES, missing="ignore")
    whole = as_frame(data.test, data.spec)
    frame = table(missing=0.2).iloc[data.rows["test"].numpy()].reset_index(drop=True)
    for column in FEATURES:
        held = frame[column].notna()
        assert (whole[column].isna() == ~held).all() and not held.all()
        if column in ("age", "income"):
            np.testing.assert_allclose(whole[column][held], frame[column][held].astype(float), rtol=1e-6)
        else:
            assert whole[column][held].astype(str).tolist() == [
                {"True": "1", "False": "0"}.get(str(v), str(v)) for v in frame[column][held]
            ]


def test_a_toml_file_is_the_mapping(tmp_path):
    (tmp_path / "roles.toml").write_text(TOML)
    by_file = load(table(), columns=str(tmp_path / "roles.toml"))
    assert by_file.spec == load(table(), columns=ROLES).spec == load(table(), columns=TOML).spec


def test_mixed_is_the_product_of_its_laws():
    torch.manual_seed(0)
    groups = {
        "real": likelihoods.Group(lambda net: likelihoods.Gaussian(net, 0.5), (0, 2)),
        "count": likelihoods.Group(lambda net: likelihoods.NegativeBinomial(net, 2.0), (3,)),
        "bit": likelihoods.Group(lambda net: likelihoods.Bernoulli(net), (1,)),
        "word": likelihoods.Group(lambda net: likelihoods.Categorical(net, 3), (4,), 3, names=True),
    }
    part = likelihoods.Mixed(networks.MLP(2, (8,), 7), groups).double()
    z = torch.randn(5, 2, dtype=torch.float64)
    raw = part.net(z).detach().numpy()
    x = torch.tensor([0.3, 1.0, -0.4, 4.0, 2.0], dtype=torch.float64)
    law = part(z)
    exact = [
        norm(raw[:, :2], 0.5).logpdf([0.3, -0.4]).sum(1),
        nbinom(2, 2 / (2 + np.exp(raw[:, 2]))).logpmf(4),
        bernoulli(1 / (1 + np.exp(-raw[:, 3]))).logpmf(1),
        raw[:, 6] - np.log(np.exp(raw[:, 4:7]).sum(1)),
    ]
    # A start of 2 of the learned dispersion is kept as a float32 logarithm.
    np.testing.assert_allclose(law.log_prob_of_groups(x).detach(), np.stack(exact, 1), rtol=1e-6)
    np.testing.assert_allclose(law.log_prob(x).detach(), sum(exact), rtol=1e-6)
    drawn = law.sample((2000,))
    assert law.support.check(drawn).all() and set(drawn[..., 4].unique().tolist()) <= {0.0, 1.0, 2.0}
    assert not law.support.check(torch.tensor([0.3, 0.5, -0.4, 4.0, 2.0], dtype=torch.float64)).any()
    np.testing.assert_array_equal(law.mean[:, 4].detach(), raw[:, 4:7].argmax(1))


def test_a_mixed_part_says_what_is_wrong():
    one = likelihoods.Group(lambda net: likelihoods.Gaussian(net), (0,))
    with pytest.raises(ValueError, match="in one group"):
        likelihoods.Mixed(networks.MLP(1, (2,), 4), {"a": one, "b": one})
    with pytest.raises(ValueError, match="2 outputs at least"):
        likelihoods.Mixed(
            networks.MLP(1, (2,), 1),
            {"a": one, "b": likelihoods.Group(lambda net: likelihoods.Gaussian(net), (1,))},
        )
    with pytest.raises(ValueError, match="group 'a'"):
        likelihoods.Mixed(
            networks.MLP(1, (2,), 2), {"a": likelihoods.Group(lambda net: likelihoods.Gaussian(net), (0,), 2)}
        )


def test_ordinal_is_the_cumulative_logit_model():
    torch.manual_seed(0)
    part = likelihoods.Ordinal(networks.MLP(1, (4,), 2), 4).double()
    with torch.no_grad():
        part.first += torch.randn(2, 1)
        part.raw_gaps += torch.randn(2, 2)
    z = torch.randn(6, 1, dtype=torch.float64)
    above = 1 / (1 + np.exp(-(part.net(z).detach().numpy()[..., None] - part.thresholds.detach().numpy())))
    edges = np.concatenate([np.ones((6, 2, 1)), above, np.zeros((6, 2, 1))], -1)
    for k in range(4):
        found = part(z).log_prob(torch.full((2,), float(k), dtype=torch.float64))
        np.testing.assert_allclose(
            found.detach(), np.log(edges[..., k] - edges[..., k + 1]).sum(-1), rtol=1e-9
        )
    assert (part.thresholds.diff() > 0).all()
    far = part(torch.tensor([[1e4], [-1e4]], dtype=torch.float64)).log_prob(
        torch.zeros(2, dtype=torch.float64)
    )
    assert far.isfinite().all()


def test_what_is_composed_for_a_table():
    data = load(table(missing=0.2), columns=ROLES, standardize=True, missing="ignore")
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((8,)), 2)
    groups = vae.likelihood.likelihood.likelihood.groups
    assert {name: list(g.columns) for name, g in groups.items()} == {
        "real": [0],
        "positive (logarithm)": [1],
        "count": [2],
        "binary": [3],
        "category 'city'": [4],
        "ordinal 'grade'": [5],
    }
    log_weights = pv.log_weights(vae.model, vae.guide, data.test, num_samples=3)
    assert log_weights.isfinite().all()
    drawn = pv.simulate(vae.model, 2000, data.train[:1]).x
    frame = as_frame(drawn, data.spec)
    assert set(frame.city) == {"Bern", "Graz", "Lyon"} and set(frame.grade) == {"low", "mid", "high"}
    assert (frame.income > 0).all() and (frame.visits >= 0).all()
    # A decoder starts at the means and frequencies of the training data.
    held = data.train[:, 2][~data.train[:, 2].isnan()]
    assert abs(float(drawn[:, 2].mean()) / float(held.mean()) - 1) < 0.5
    with torch.no_grad():
        law = vae.likelihood(torch.zeros(2))
    draws = law.sample((20000,))
    for i in (0, 1, 2):  # means in own units, of the logarithm's too
        spread = float(draws[:, i].std()) / 20000**0.5
        assert abs(float(law.mean[i] - draws[:, i].mean())) < 4.5 * spread
    with pytest.raises(ValueError, match="pseudo-inputs"):
        vamp(data, 3)
    assert not prepared(data).train.isnan().any()


def test_new_rows_go_by_name():
    data = load(table(), columns=ROLES)
    rows = table().iloc[data.rows["test"].numpy()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(rows_like(rows[FEATURES[::-1]], data.spec), data.test)
    with pytest.warns(UserWarning, match=r"\['more'\]"):
        rows_like(rows.assign(more=1.0), data.spec)
    with pytest.raises(ValueError, match="whose names say what they are"):
        rows_like(data.test, data.spec)
    with pytest.raises(ValueError, match="'Rom' in row 0"):
        rows_like(rows.assign(city="Rom"), data.spec)
    with pytest.raises(ValueError, match=r"columns \['city'\]"):
        rows_like(rows.drop(columns="city"), data.spec)
    with pytest.raises(ValueError, match=r"whole numbers >= 0.*-1"):
        rows_like(rows.assign(visits=-1), data.spec)
    with pytest.raises(ValueError, match="no missing values in column 'age'"):
        rows_like(rows.assign(age=np.nan), data.spec)
    plain = load(table()[["age", "income"]])
    assert torch.equal(
        rows_like(rows[["income", "age"]], plain.spec)[:, 0], torch.tensor(rows.age.to_numpy()).float()
    )
    with pytest.raises(ValueError, match="shape"):
        rows_like(np.zeros((3, 5)), plain.spec)


@pytest.mark.parametrize(
    ("change", "columns", "words"),
    [
        ({}, "auto", "'id'.*different words"),
        ({}, {**ROLES, "agee": "real"}, "did you mean 'age'"),
        ({}, {**ROLES, "age": "cuont"}, "did you mean 'count'"),
        ({}, {**ROLES, "grade": "ordinal"}, "order"),
        ({}, {**ROLES, "grade": {"role": "ordinal", "order": ["low", "high"]}}, "mid"),
        ({}, {**ROLES, "city": "real"}, "numbers in column 'city'"),
        ({}, {**ROLES, "city": "binary"}, "two values"),
        ({}, {**ROLES, "city": "label"}, "one label"),
        ({}, dict.fromkeys([*FEATURES, "outcome", "id"], "ignore"), "at least one column"),
        ({"city": "Bern"}, ROLES, "two different values"),
        ({"income": 0.0}, ROLES, "numbers above 0"),
        ({"visits": 0.5}, {**ROLES, "visits": "count"}, "whole numbers"),
        ({"city": None}, ROLES, "'city'"),
        ({}, 3, "mapping"),
        ({}, "foo", "lines such as"),
    ],
)
def test_tables_that_are_refused(change, columns, words):
    with pytest.raises(ValueError, match=words):
        load(table().assign(**change), columns=columns)


def test_counts_that_would_be_rounded_are_refused():
    frame = table(30)
    frame.loc[3, "visits"] = 2**24
    assert load(frame, columns=ROLES, valid=1, test=1).train.max() == 2**24
    frame.loc[3, "visits"] = 2**24 + 1
    with pytest.raises(ValueError, match="float32 holds exactly, got 16777217"):
        load(frame, columns=ROLES, valid=1, test=1)


def test_roles_are_of_tables():
    with pytest.raises(ValueError, match="without names"):
        load(np.random.default_rng(0).normal(size=(20, 2)), columns="auto")
    with pytest.raises(ValueError, match="for tables"):
        load("digits", columns="auto")
    with pytest.raises(ValueError, match="'visits' for log"):
        load(table(), columns=ROLES, standardize=True, log=["visits"])


def test_a_run_on_a_table(tmp_path, capsys):
    table(missing=0.2).to_csv(tmp_path / "table.csv", index=False)
    (tmp_path / "roles.toml").write_text(TOML)
    out, cpu = tmp_path / "run", ["--device", "cpu", "--quiet"]
    named = ["--data", str(tmp_path / "table.csv"), "--standardize", "--missing", "ignore"]
    roles = ["--columns", str(tmp_path / "roles.toml")]
    small = ["--epochs", "3", "--hidden", "8", "--latent-dim", "2"]
    assert train.main([*named, *roles, "--out", str(out), *small, *cpu]) == 0
    said = capsys.readouterr().out
    assert "guessed  Bern, Graz, Lyon" in said and "columns of several kinds" in said
    (tmp_path / "roles.toml").unlink()  # the run needs it no more
    assert evaluate.main([str(out), "--num-samples", "20", *cpu]) == 0
    assert "mass × density" in capsys.readouterr().out
    assert sample.main([str(out), "--num", "50", "--only", "latent", *cpu]) == 0
    assert set(pd.read_csv(out / "samples.csv").grade) <= {"low", "mid", "high"}
    assert impute.main([str(out), "--num-samples", "50", *cpu]) == 0
    data = load(tmp_path / "table.csv", columns=ROLES, missing="ignore")
    whole, values = pd.read_csv(out / "imputed.csv"), pd.read_csv(out / "imputed_values.csv")
    assert not whole.isna().any().any() and len(values) == int(data.test.isnan().sum())
    assert whole["row"].tolist() == data.rows["test"].tolist()
    held = ~data.test[:, 0].isnan().numpy()
    np.testing.assert_allclose(whole.age[held], data.test[:, 0].numpy()[held], rtol=1e-6)
    numbers = values[values.column == "age"]
    assert (numbers.low < numbers.value.astype(float)).all()
    assert (numbers.value.astype(float) < numbers.high).all()
    words = values[values.column == "city"]
    assert words.low.isna().all() and words.probability.between(0, 1).all()
    table(missing=0.2).head(20)[["grade", *FEATURES[:5]]].to_csv(tmp_path / "new.csv", index=False)
    new = ["--rows", str(tmp_path / "new.csv"), "--out", str(tmp_path / "new"), "--num-samples", "50"]
    assert impute.main([str(out), *new, *cpu]) == 0
    assert len(pd.read_csv(tmp_path / "new" / "imputed.csv")) == 20
    assert pd.read_csv(tmp_path / "new" / "imputed.csv").visits.dtype == "int64"
    assert (
        len(rows_like(tmp_path / "new" / "imputed.csv", data.spec)) == 20
    )  # as counts, bits and words again
    made = tmp_path / "made.csv"
    assert reconstruct.main([str(out), str(tmp_path / "new.csv"), "--out", str(made), *cpu]) == 0
    again = pd.read_csv(made)
    assert set(again.city) <= {"Bern", "Graz", "Lyon"} and set(again.grade) <= {"low", "mid", "high"}
    assert set(again.smoker) <= {0, 1} and again.smoker.dtype == "int64"
    assert (again.visits % 1 != 0).any() and (again.income > 0).all()  # means
    capsys.readouterr()
    for wrong, words in (
        (["--likelihood", "gaussian"], "--likelihood auto"),
        (["--prior", "vamp"], "pseudo-inputs"),
        (["--model", "diffusion"], "--standardize"),
        (["--network", "conv"], "convolutional"),
    ):
        again = [*named, "--columns", TOML, "--out", str(tmp_path / "wrong"), "--epochs", "1", *wrong, *cpu]
        assert train.main(again) == 2 and words in capsys.readouterr().err
    assert train.main(["--data", "digits", "--out", str(tmp_path / "d"), *small, *cpu]) == 0
    assert impute.main([str(tmp_path / "d"), *cpu]) == 2
    assert "--missing ignore" in capsys.readouterr().err


def test_frames_of_imputations_without_roles():
    x = torch.tensor([[0.5, torch.nan], [1.0, 2.0], [torch.nan, 3.0], [0.1, 0.2], [0.3, 0.4], [0.5, 0.6]])
    data = load(x, missing="ignore", valid=1, test=1)
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((4,)), 1)
    whole, values = imputed_frames(pv.impute(vae.model, vae.guide, x, num_samples=40), data.spec)
    assert list(whole.columns) == ["x0", "x1"] and values[["row", "column"]].to_numpy().tolist() == [
        [2, "x0"],
        [0, "x1"],
    ]


@pytest.mark.parametrize("values", [(0.0, 1.0), (0.0, 3.0, 7.0)])
def test_frames_of_whole_numbers_without_roles(values):
    x = torch.tensor(values)[torch.randint(len(values), (40, 2), generator=torch.Generator().manual_seed(0))]
    x[::5, 0] = torch.nan
    data = load(x, missing="ignore", valid=5, test=5)
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((4,)), 1)
    whole, lines = imputed_frames(pv.impute(vae.model, vae.guide, x, num_samples=40), data.spec)
    assert set(whole.dtypes.astype(str)) == {"Int64"} and not whole.isna().any().any()
    assert lines.probability.notna().all() == (len(values) == 2)
    means = as_frame(torch.full((3, 2), 0.75), data.spec).to_numpy()
    assert (means == (1 if len(values) == 2 else 0.75)).all()


def test_columns_by_themselves():
    data = load(table(missing=0.1), columns=ROLES, missing="ignore")
    x = pv.data.only(data.test, data.spec, ["age", "city"])
    assert torch.equal(x[:, [0, 4]].nan_to_num(-1), data.test[:, [0, 4]].nan_to_num(-1))
    assert x[:, [1, 2, 3, 5]].isnan().all()
    torch.manual_seed(0)
    vae = compose(data, Perceptrons((8,)), 2)
    z = torch.zeros(2)
    law = vae.likelihood.likelihood(z)  # of whole rows, in own units
    row = torch.tensor([55.0, torch.nan, torch.nan, torch.nan, 2.0, torch.nan])
    parts = law.log_prob_of_groups(torch.tensor([55.0, 9e3, 2.0, 1.0, 2.0, 0.0]))
    names = list(vae.likelihood.likelihood.groups)
    exact = parts[names.index("real")] + parts[names.index("category 'city'")]
    torch.testing.assert_close(vae.likelihood(z).log_prob(row), exact)
    for columns in (["agee"], [], "age"):
        with pytest.raises(ValueError, match="columns among"):
            pv.data.only(data.test, data.spec, columns)
    with pytest.raises(ValueError, match="missing='ignore'"):
        pv.data.only(data.test, load(table(), columns=ROLES).spec, ["age"])


@pytest.mark.slow
@pytest.mark.parametrize("walk", ["anomalies", "missing"])
def test_walks_of_the_page(walk, tmp_path, capsys):
    from pyrovae.inference.studies import tables

    small = ["--epochs", "2", "--rows", "150", "--num-samples", "50", "--out", str(tmp_path), "--quiet"]
    assert tables.main([walk, *small]) == 0
    said = capsys.readouterr().out
    assert ("farthest column" if walk == "anomalies" else "coverage of 90 % intervals") in said
    assert (tmp_path / f"table_{walk}.png").stat().st_size > 5000


@pytest.mark.slow
def test_the_study_of_half_the_values_missing(capsys):
    from pyrovae.inference.studies import miwae

    small = [
        "--masks",
        "2",
        "--epochs",
        "1",
        "--num-samples",
        "5",
        "--hidden",
        "8",
        "--latent-dim",
        "2",
        "--quiet",
    ]
    assert miwae.main(small) == 0
    rows = [
        line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| 1234")
    ]
    # The mean of a column of variance 1 errs by 1, whatever is missing; ridge is far better.
    assert float(rows[0][3]) == pytest.approx(1.0, abs=0.1) and float(rows[0][2]) < 0.5

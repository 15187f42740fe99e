"""Labels that people bring: 1 ... C, words, missing ones, columns of tables; classes by their names."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import pyrovae as pv
from pyrovae.data import conditioned, load, new_rows, partly_labelled
from pyrovae.inference import embed, evaluate, score, train
from pyrovae.inference.options.given.semi_supervised import machine_of
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.semi_supervised import compose_semi_supervised
from tests.small import FLAGS

ROLES = {"kind": "label"}


def frame(kind=None, number=90):
    """Three clouds; their labels are 1, 2, 3 unless others are given."""
    rng = np.random.default_rng(0)
    y = rng.integers(1, 4, number)
    x = 6 * np.eye(3)[y - 1] + rng.normal(size=(number, 3))
    own = y if kind is None else [kind[v] for v in y]
    return pd.DataFrame(x, columns=["a", "b", "c"]).assign(kind=own)


def gaps(table):
    """Two thirds of the labels missing."""
    gone = np.arange(len(table)) % 3 > 0
    return table.assign(
        kind=table.kind.astype("Int64" if table.kind.dtype.kind == "i" else object).mask(gone)
    )


@pytest.mark.parametrize("how", ["roles", "beside", "array"])
def test_labels_from_one_make_no_empty_class(how):
    table = frame()
    x, y = table[["a", "b", "c"]], table.kind
    source = {"roles": table, "beside": {"x": x, "y": y}, "array": {"x": x.to_numpy(), "y": y.to_numpy()}}[
        how
    ]
    data = conditioned(load(source, columns=ROLES if how == "roles" else None))
    (c,) = data.context["train"]
    assert c.shape[1] == 3 and bool((c.sum(0) > 0).all())
    assert data.classes == data.spec.classes == ("1", "2", "3")
    assert [int(data.classes[k]) for k in c.argmax(1)] == y.iloc[data.rows["train"].numpy()].tolist()
    assert pv.data.DataSpec.from_json(json.loads(json.dumps(data.spec.to_json()))) == data.spec


@pytest.mark.parametrize("kind", [None, {1: "u", 2: "v", 3: "w"}])
@pytest.mark.parametrize("how", ["roles", "beside"])
def test_missing_labels_are_not_known(kind, how):
    table = gaps(frame(kind))
    beside = {"x": table[["a", "b", "c"]], "y": table.kind}
    data = partly_labelled(load(table, columns=ROLES) if how == "roles" else load(beside))
    (y,) = data.context["train"]
    held = table.kind.iloc[data.rows["train"].numpy()]
    assert (y.numpy() >= 0).tolist() == held.notna().tolist() and 10 < int((y >= 0).sum()) < 40
    assert [data.classes[k] for k in y[y >= 0]] == [str(v) for v in held.dropna()]
    program = compose_semi_supervised(data, Perceptrons((8,)), 2)
    assert program.num_classes == 3
    with pytest.raises(ValueError, match=r"a label for each datum .* missing \(below 0\) in split"):
        conditioned(load(table, columns=ROLES))


def test_labels_with_a_missing_value_in_a_list_and_in_floats():
    x = np.random.default_rng(0).normal(size=(40, 2))
    words = load({"x": x, "y": ["u", "v", None, float("nan")] * 10})
    assert words.classes == ("u", "v")
    floats = load({"x": x, "y": np.array([0.0, 1.0, np.nan, np.nan] * 10)})
    for data in (words, floats):
        rows = data.rows["train"] % 4
        assert torch.equal(data.labels["train"], torch.where(rows < 2, rows, -1))


def test_a_column_called_label_is_guessed_to_be_it():
    table = frame().rename(columns={"kind": "Label"})
    data = load(table, columns="auto")
    assert data.spec.columns == ("a", "b", "c") and sorted(set(data.labels["train"].tolist())) == [1, 2, 3]
    assert [(c.role, c.guessed) for c in data.spec.table if c.name == "Label"] == [("label", True)]
    assert load(table, columns={"Label": "count"}).labels is None
    assert load(table.assign(Label=0.5 * table.Label), columns="auto").labels is None  # no classes
    with pytest.raises(ValueError, match=r"columns=\{'Label': 'label'\}"):
        conditioned(load(table))


def test_labels_below_zero_that_may_be_classes_are_refused():
    signs = frame({1: -1, 2: 0, 3: 1})
    with pytest.raises(ValueError, match=r"got \[-1\] and 60 empty cells"):
        load(gaps(signs), columns=ROLES)
    with pytest.raises(ValueError, match=r"got \[-2, -1\]"):
        load(frame({1: -1, 2: -2, 3: 1}), columns=ROLES)
    with pytest.raises(ValueError, match=r"2 to 10,000 classes .* got 1"):
        partly_labelled(load(frame({1: -1, 2: -1, 3: 1}), columns=ROLES))


@pytest.mark.parametrize("given", [conditioned, partly_labelled])
def test_a_class_without_training_data_is_refused_by_name(given):
    x, y = np.random.default_rng(0).normal(size=(20, 2)), np.arange(20) % 2
    splits = {"train": x, "valid": x, "test": x, "train_labels": y, "valid_labels": y}
    with pytest.raises(ValueError, match="in split 'test' of dict, got 2, of which"):
        given(load(splits | {"test_labels": y + (np.arange(20) == 3)}))


def test_new_rows_by_the_names_of_their_classes():
    given = conditioned(load(frame(), columns=ROLES))
    rows = frame().head(4)
    x, c = new_rows(rows, given.spec).arguments
    assert (c.argmax(1) + 1).tolist() == rows.kind.tolist() and x.shape == (4, 3)
    with pytest.raises(ValueError, match="training data, 1, 2, 3, as labels of DataFrame, got 7, of which"):
        new_rows(rows.assign(kind=[1, 7, 2, 3]), given.spec)
    with pytest.raises(ValueError, match=r"got none in row '2' \(1 such\)"):
        new_rows(rows.assign(kind=[1, 3, None, 3]), given.spec)
    with pytest.raises(ValueError, match="a column 'kind'"):
        new_rows(rows[["a", "b", "c"]], given.spec)


def test_a_table_trains_a_semi_supervised_model_by_its_label_column(tmp_path, capsys):
    table = gaps(frame(number=150))
    table.to_csv(tmp_path / "part.csv", index=False)
    argv = ["--data", str(tmp_path / "part.csv"), "--columns", 'kind = "label"', "--labelled", "all"]
    argv += [
        "--model",
        "semi-supervised",
        "--latent-dim",
        "2",
        "--hidden",
        "8",
        "--epochs",
        "20",
        "--lr",
        "2e-2",
    ]
    assert (
        train.main(["--out", str(tmp_path / "run"), *argv, "--warmup", "0", "--compile", "off", *FLAGS]) == 0
    )
    said = " ".join(capsys.readouterr().out.split())
    assert "labels 1, 2, 3 as classes 0 ... 2;" in said and "of 105 training data have none" in said
    assert json.loads((tmp_path / "run/config.json").read_text())["spec"]["classes"] == ["1", "2", "3"]
    assert evaluate.main([str(tmp_path / "run"), "--num-samples", "20", *FLAGS]) == 0
    share = float(capsys.readouterr().out.split("accuracy of q(y|x): ")[1].split()[0])
    run = pv.load(tmp_path / "run")
    x, y = run.data.test, table.kind.iloc[run.data.rows["test"].numpy()]
    held = torch.tensor(y.notna().to_numpy())
    right = machine_of(run).classify(x).argmax(-1)[held].numpy() + 1 == y.dropna().to_numpy()
    assert share == pytest.approx(right.mean(), abs=1e-4) and 0 < held.sum() < len(held)
    files = [str(tmp_path / name) for name in ("run", "part.csv", "e.csv")]
    assert embed.main([*files[:2], "--out", files[2], *FLAGS]) == 0
    means = pd.read_csv(files[2])
    assert list(means.columns) == ["row", "y_1", "y_2", "y_3", "z_0", "z_1"]
    best = machine_of(run).classify(torch.tensor(table[["a", "b", "c"]].to_numpy()).float()).argmax(-1)
    assert (means[["y_1", "y_2", "y_3"]].to_numpy().argmax(1) == best.numpy()).all()
    found = []
    for name, rows in (("with", frame().head(5)), ("without", frame().head(5).drop(columns="kind"))):
        rows.to_csv(tmp_path / f"{name}.csv", index=False)
        argv = [
            str(tmp_path / "run"),
            str(tmp_path / f"{name}.csv"),
            "--estimators",
            "is",
            "--num-samples",
            "20",
        ]
        assert score.main([*argv, *FLAGS]) == 0
        left_out = "labels of with.csv are left out" in " ".join(capsys.readouterr().out.split())
        assert left_out == (name == "with")
        found.append((tmp_path / f"run/scores-{name}.csv").read_text())
    assert found[0] == found[1]


def test_a_plot_names_classes_by_their_words():
    table = gaps(frame({1: "ill", 2: "well", 3: "10"}))
    data = load(table, columns=ROLES)
    words = data.words_of_labels("train")
    own = table.kind.iloc[data.rows["train"].numpy()].fillna("unknown").tolist()
    assert words == own
    drawn = pv.plots.plot_latent(torch.randn(len(words), 2), words)
    names = [t.get_text() for t in drawn.get_legend().get_texts()]
    assert names == ["10", "ill", "unknown", "well"]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10", "2", "1", "²"], ["1", "2", "10", "²"]),
        (torch.tensor([10, 2, -1, 2]), ["-1", "2", "10"]),
        (torch.tensor([10.0, 2.0, 1.5, 2.0]), ["1.5", "2.0", "10.0"]),
    ],
)
def test_a_plot_orders_numbers_by_their_value(labels, names):
    drawn = pv.plots.plot_latent(torch.randn(4, 2), labels)
    assert [t.get_text() for t in drawn.get_legend().get_texts()] == names


@pytest.mark.parametrize("how", ["role", "label"])
def test_codes_of_a_file_are_classes_as_they_are_written(how, tmp_path):
    """And a class does not depend on the rows beside it."""
    path = tmp_path / "rows.csv"

    def written(words):
        path.write_text("a,kind\n" + "".join(f"0.{i % 9},{w}\n" for i, w in enumerate(words)))
        return path

    for words in (["01", "1", "02"], ["01", "1", "x"], ["007", "7", "1.5"]):
        table = written(words * 10)
        data = load(table, columns={"kind": "label"}) if how == "role" else load(table, label_column="kind")
        assert data.classes == tuple(sorted(words))
        spec = conditioned(data).spec
        for word in words:
            given = new_rows(written([word]), spec).arguments[1]
            assert data.classes[int(given.argmax())] == word

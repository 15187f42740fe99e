"""Scores of new rows: in their order, by name, in the form of the training data, or refused."""

import csv

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import multivariate_normal

import pyrovae as pv
from pyrovae.data import DataSpec, new_rows
from pyrovae.inference import embed, reconstruct, score, train
from pyrovae.models.linear_gaussian import LinearGaussian
from tests.small import FLAGS

COLUMNS = ["alpha", "beta", "gamma", "delta"]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 4)) + 0.3 * rng.normal(size=(150, 4))
    return pd.DataFrame(x, columns=COLUMNS, index=[f"row {i}" for i in range(150)])


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    table[:120].to_csv(folder / "old.csv", index=False)
    argv = ["--data", str(folder / "old.csv"), "--model", "linear-gaussian", "--latent-dim", "2"]
    assert train.main(["--out", str(folder / "run"), *argv, "--epochs", "3", *FLAGS]) == 0
    return folder / "run"


def law_of(run):
    """The marginal of a trained linear-Gaussian run, by SciPy."""
    owner = pv.load(run).modules
    m = next(m for m in owner if isinstance(m, LinearGaussian)) if owner else None
    W, b, psi = (t.detach().double().numpy() for t in (m.weight, m.bias, m.log_noise.exp()))
    return multivariate_normal(b, W @ W.T + psi * np.eye(len(W)))


def test_the_script_gives_each_row_its_own_figure(run, table, tmp_path, capsys):
    new = table[120:].copy()
    new.iloc[7, 1] = 40.0
    shuffled = new[COLUMNS[::-1]].assign(other=1.0)
    shuffled.to_csv(tmp_path / "new.csv")
    out = tmp_path / "scores.csv"
    argv = [str(run), str(tmp_path / "new.csv"), "--out", str(out), "--worst", "3", "--num-samples", "200"]
    assert score.main([*argv, *FLAGS]) == 0
    said = capsys.readouterr().out
    assert "left out of new.csv" in said and "other" in said and "by name" in said
    rows = list(csv.DictReader(out.open()))
    assert [r["row"] for r in rows] == list(new.index)
    exact = law_of(run).logpdf(new.to_numpy(dtype=np.float32).astype(float))
    found = np.array([float(r["log_evidence"]) for r in rows])
    se = np.array([float(r["se"]) for r in rows])
    assert np.all(np.abs(found - exact) < 5 * se + 1e-3 * np.abs(exact))
    assert min(rows, key=lambda r: float(r["log_evidence"]))["row"] == "row 127"
    listed = [line for line in said.splitlines() if line.startswith("row ")]
    assert listed[1].startswith("row 127") and len(listed) == 4  # the head, and three rows


def test_python_gives_the_same_figures(run, table):
    loaded = pv.load(run)
    by_name = loaded.score(table[120:][COLUMNS[::-1]], num_samples=100)
    by_place = loaded.score(table[120:].to_numpy(), num_samples=100)
    assert torch.equal(by_name.log_evidence, by_place.log_evidence)
    assert by_name.names[0] == "row 120" and by_place.names[0] == "0" and "order" in by_place.notes[0]
    assert list(by_name.to_pandas().columns) == ["log_evidence", "se", "khat", "ess", "supported"]
    worst = by_name.worst(5)
    assert by_name.log_evidence[worst[0]] == by_name.log_evidence.min() and len(worst) == 5
    assert by_name.names[worst[0]] in by_name._repr_html_()


def test_a_row_without_a_number_is_the_worst(run, table):
    scores = pv.load(run).score(table[120:], num_samples=20)
    scores.log_evidence[4] = torch.nan
    assert scores.worst(1) == [4]


def test_embed_and_reconstruct_write_rows_by_name(run, table, tmp_path):
    table[120:].to_csv(tmp_path / "new.csv")
    for script, word, columns in (
        (embed, "embedded", ["z_0", "z_1"]),
        (reconstruct, "reconstructed", COLUMNS),
    ):
        out = tmp_path / f"{word}.csv"
        assert script.main([str(run), str(tmp_path / "new.csv"), "--out", str(out), *FLAGS]) == 0
        found = pd.read_csv(out, index_col="row")
        assert list(found.columns) == columns and list(found.index) == list(table.index[120:])
    means = pv.load(run).embed(torch.tensor(table[120:].to_numpy(), dtype=torch.float32))
    assert np.allclose(
        pd.read_csv(tmp_path / "embedded.csv").to_numpy()[:, 1:].astype(float), means, atol=1e-5
    )


SPEC = {
    "name": "t",
    "levels": None,
    "binarisation": None,
    "seed": 0,
    "hash": "",
    "splits": {"train": 5},
}


def spec(support, width=2, **other):
    return DataSpec(**{**SPEC, "event_shape": (width,), "support": support, **other})


@pytest.mark.parametrize(
    ("source", "of", "words"),
    [
        (pd.DataFrame({"a": [1.0]}), spec("real", columns=("a", "bee")), "'bee'"),
        (
            pd.DataFrame({"a": [1.0], "bea": [1.0]}),
            spec("real", columns=("a", "bee")),
            "'bee'.*it has a, bea|did",
        ),
        (np.zeros((3, 5)), spec("real"), r"shape \[2\].*got \[5\]"),
        (np.zeros((0, 2)), spec("real"), "at least one row"),
        (np.array([[0.0, 1.0], [0.5, 1.0]]), spec("binary"), r"expected bits.*0.5 in row '1'"),
        (np.array([[0.0, -1.0]]), spec("nonnegative_integer"), r"whole numbers >= 0.*-1"),
        (np.array([[0.0, 17.0]]), spec("levels", levels=17), r"whole numbers from 0 to 16.*17"),
        (np.array([[0.0, 1.5]]), spec("unit_interval"), r"\[0, 1\].*1.5"),
        (np.array([[0.0, np.nan]]), spec("real", columns=("a", "b")), r"finite.*nan in row '0', column 'b'"),
        ({"x": np.zeros((2, 2)), "z": np.zeros(3)}, spec("real"), "one array of rows"),
        (np.zeros((2, 2)), spec("real", given=("label",)), "a label for each row"),
        (np.zeros((2, 2)), spec("real", given=("age",), columns=("a", "b")), "table with the columns age"),
        ("/nowhere/new.csv", spec("real"), "found none"),
    ],
)
def test_rows_in_another_form_are_refused(source, of, words):
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        new_rows(source, of)


def test_classes_that_were_not_seen_are_refused():
    given = spec("real", given=("label",), classes=("a", "b"))
    x = np.zeros((3, 2))
    found = new_rows({"x": x, "y": ["b", "a", "b"]}, given)
    assert found.arguments[1].tolist() == [[0, 1], [1, 0], [0, 1]]
    with pytest.raises(ValueError, match=r"classes of the training data, a, b.*got c"):
        new_rows({"x": x, "y": ["b", "a", "c"]}, given)
    with pytest.raises(ValueError, match="one label for each of the 3"):
        new_rows({"x": x, "y": [0, 1]}, given)


def test_other_files_end_in_one_line(run, tmp_path, capsys):
    for argv, words in (
        ([str(run), str(tmp_path / "none.csv")], "found none"),
        ([str(run), str(tmp_path / "new.csv"), "--out", str(tmp_path / "a.txt")], ".csv or .parquet"),
        ([str(tmp_path), str(tmp_path / "new.csv")], "run folder"),
        ([str(run), str(tmp_path / "new.csv"), "--tolerance", "0.1"], "--tolerance"),
    ):
        pd.DataFrame(np.zeros((2, 4)), columns=COLUMNS).to_csv(tmp_path / "new.csv", index=False)
        assert score.main([*argv, *FLAGS]) == 2
        err = capsys.readouterr().err
        assert words in err and err.count("\n") == 1


def test_data_are_found_beside_the_run_or_where_they_are_said_to_be(run, tmp_path):
    folder = tmp_path / "moved"
    (run.parent / "run").rename(folder)
    old = run.parent / "old.csv"
    try:
        assert len(pv.load(folder).data.test) == 24  # at their path, from wherever
        old.rename(tmp_path / "old.csv")
        assert len(pv.load(folder).data.test) == 24  # beside it
        (tmp_path / "old.csv").rename(tmp_path / "other.csv")
        with pytest.raises(FileNotFoundError, match="--data"):
            pv.load(folder)
        assert len(pv.load(folder, data=tmp_path / "other.csv").data.test) == 24
        pd.DataFrame(np.zeros((30, 4)) + np.arange(30)[:, None], columns=COLUMNS).to_csv(
            tmp_path / "false.csv", index=False
        )
        with pytest.raises(ValueError, match="trained on"):
            pv.load(folder, data=tmp_path / "false.csv")
    finally:
        (tmp_path / "other.csv").rename(old)
        folder.rename(run)


def test_a_run_goes_on_with_more_epochs(run, tmp_path, capsys):
    """As if it had been asked for them at once, at the learning rate that it had fallen to."""
    data = ["--data", str(run.parent / "old.csv"), "--model", "linear-gaussian", "--latent-dim", "2"]
    data += ["--warmup", "0", *FLAGS]
    assert train.main(["--out", str(tmp_path / "a"), *data, "--epochs", "3"]) == 0
    assert train.main(["--out", str(tmp_path / "b"), *data, "--epochs", "6", "--lr-epochs", "3"]) == 0
    assert train.main(["--out", str(tmp_path / "a"), "--resume", "--epochs", "6", *FLAGS]) == 0
    a, b = ((tmp_path / name / "metrics.csv").read_text() for name in "ab")
    assert a == b and len(a.splitlines()) == 7
    assert (tmp_path / "a/weights.safetensors").read_bytes() == (
        tmp_path / "b/weights.safetensors"
    ).read_bytes()
    capsys.readouterr()
    assert train.main(["--out", str(tmp_path / "a"), "--resume", *FLAGS]) == 0
    assert "nothing to continue" in capsys.readouterr().out
    for argv, words in (
        (["--out", str(tmp_path / "none"), "--resume"], "does not exist"),
        (["--out", str(tmp_path / "a"), "--resume", "--epochs", "4"], "epochs = 4, then 6"),
        (["--out", str(tmp_path / "a"), "--resume", "--epochs", "9", "--lr", "0.4"], "lr = 0.4"),
    ):
        assert train.main([*argv, *FLAGS]) == 2
        assert words in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_what_refuses_to_go_on_leaves_the_run_whole(tmp_path, capsys):
    few = ["--hidden", "8", "--latent-dim", "2", *FLAGS]
    assert train.main(["--out", str(tmp_path / "a"), "--epochs", "2", *few]) == 0
    assert train.main(["--out", str(tmp_path / "a"), "--resume", "--epochs", "4", *FLAGS]) == 2
    assert "warm-up" in capsys.readouterr().err
    for file in (tmp_path / "a/checkpoints").iterdir():
        file.unlink()
    assert train.main(["--out", str(tmp_path / "b"), "--epochs", "2", "--warmup", "0", *few]) == 0
    for file in (tmp_path / "b/checkpoints").iterdir():
        file.unlink()
    assert train.main(["--out", str(tmp_path / "b"), "--resume", "--epochs", "4", *FLAGS]) == 2
    assert "last checkpoint" in capsys.readouterr().err
    for name in "ab":
        assert pv.load(tmp_path / name).best_epoch in (1, 2)

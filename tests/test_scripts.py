"""The scripts as a user meets them: what they write, and how they end on wrong input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pyrovae.inference import cli, compare, evaluate, sample, train

from .small import PROGRAM

ROOT = Path(__file__).parents[1]
FEW = ["--epochs", "1", "--device", "cpu", "--quiet"]
QUICK = [*FEW, "--hidden", "16", "--latent-dim", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert train.main(["--out", str(folder), *QUICK]) == 0
    return folder


def refused(capsys, main, argv, *words):
    """The script ends with code 2 and one line on stderr which has all the words."""
    code = main(argv)
    err = capsys.readouterr().err
    assert code == 2, err
    assert err.count("\n") == 1 and "error:" in err and "Traceback" not in err, err
    for word in words:
        assert word in err, err


def test_train_writes_a_whole_run(run):
    assert {p.name for p in run.iterdir()} == {
        "checkpoints",
        "config.json",
        "weights.safetensors",
        "metrics.csv",
        "training.png",
    }
    config = json.loads((run / "config.json").read_text())
    assert config["model"]["latent_dim"] == 2 and config["spec"]["name"] == "digits"
    header, row = (run / "metrics.csv").read_text().splitlines()[:2]
    assert {"elbo", "kl", "reconstruction", "active_units", "valid_elbo", "beta"} <= set(header.split(","))
    assert len(row.split(",")) == len(header.split(","))


def test_evaluate_gives_the_trained_program_back(run, capsys):
    """Twice the same numbers, from weights on disk, and evidence beside them."""
    tables = []
    for _ in range(2):
        assert (
            evaluate.main([str(run), "--num-samples", "50", "--markdown", "--quiet", "--device", "cpu"]) == 0
        )
        tables.append([r for r in capsys.readouterr().out.splitlines() if r.startswith(("| ELBO", "| IS"))])
    assert tables[0] == tables[1] and len(tables[0]) == 2
    assert (run / "evidence.nc").stat().st_size > 0 and (run / "evidence.png").exists()


def test_evaluate_compares_runs(run, tmp_path, capsys):
    other = tmp_path / "other"
    assert train.main(["--out", str(other), *QUICK, "--prior", "mixture", "--seed", "1"]) == 0
    argv = [str(run), str(other), "--num-samples", "20", "--limit", "50", "--quiet", "--device", "cpu"]
    assert evaluate.main(argv) == 0
    out = capsys.readouterr().out
    assert "Δ to best" in out and "50 drawn from the test split" in out and "mixture" in out


def test_sample_draws(run, tmp_path):
    argv = [str(run), "--num", "7", "--out", str(tmp_path), "--device", "cpu"]
    assert sample.main(argv) == 0
    with np.load(tmp_path / "samples.npz", allow_pickle=False) as arrays:
        assert arrays["x"].shape == (7, 64) and arrays["latent_z"].shape == (7, 2)
        assert arrays["x"].min() >= 0 and arrays["x"].max() <= 16
    assert {"samples.png", "reconstructions.png", "latent.png"} <= {p.name for p in tmp_path.iterdir()}


def test_compare_writes_table_and_pictures(tmp_path, capsys):
    out = tmp_path / "compare"
    argv = [
        "--out",
        str(out),
        *QUICK,
        "--priors",
        "standard",
        "--guides",
        "diagonal",
        "flow",
        "--num-samples",
        "20",
    ]
    assert compare.main([*argv, "--jobs", "1", "--flow-hidden", "8", "--format", "pdf"]) == 0
    table = (out / "table.md").read_text()
    rows = [r for r in table.splitlines() if r.startswith("| standard")]
    # The flow's KL has no closed form: both objectives are one estimator, and run once.
    assert [r.split("|")[2].strip() + " " + r.split("|")[3].strip() for r in rows] == [
        "diagonal trace-elbo",
        "diagonal mean-field",
        "flow either",
    ]
    assert sum("best" in r for r in rows) == 1
    assert (out / "standard-flow-trace-elbo" / "evidence.nc").exists()
    for name in ("training", "evidence", "lk_curves", "samples", "reconstructions", "latent"):
        assert (out / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    assert (out / "standard-flow-trace-elbo" / "training.pdf").exists() and not list(out.rglob("*.png"))
    assert "certificate" in capsys.readouterr().out


def test_a_program_of_the_users_own(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text(PROGRAM + "\nnot_a_program = 3\n")
    out = tmp_path / "run"
    assert train.main(["--model", f"{file}:build", "--out", str(out), *FEW]) == 0
    assert evaluate.main([str(out), "--num-samples", "30", "--quiet", "--device", "cpu"]) == 0
    refused(capsys, train.main, ["--model", f"{file}:nothing", "--out", str(tmp_path / "b"), *FEW], "nothing")
    wrong = ["--model", f"{file}:not_a_program", "--out", str(tmp_path / "c"), *FEW]
    refused(capsys, train.main, wrong, "expected", "int")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data", "digitz"], ["digitz", "digits"]),
        (["--data", "nowhere.npy"], ["nowhere.npy"]),
        (["--model", "vaee"], ["vaee", "package.module:attribute"]),
        (["--model", "no_such_module:thing"], ["no_such_module"]),
        (["--model", "linear-gaussian"], ["real data", "levels"]),
        (["--likelihood", "bernoulli"], ["support", "binarise"]),
        (["--data", "linear-gaussian", "--likelihood", "bernoulli"], ["support", "bernoulli"]),
        (["--batch-size", "0"], ["--batch-size"]),
        (["--components", "0", "--prior", "vamp"], ["components"]),
        (["--latent-dim", "0"], ["latent_dim"]),
        (["--device", "cuda"], ["CUDA"]),
        (["--seed", "-1"], ["seed"]),
        (["--lr", "-1"], ["--lr > 0"]),
        (["--epochs", "0"], ["epochs"]),
        (["--patience", "0"], ["patience"]),
    ],
)
def test_train_refuses(capsys, tmp_path, options, words):
    if options == ["--device", "cuda"] and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    out = tmp_path / "run"
    flags = FEW if "--model" in options else QUICK
    refused(capsys, train.main, ["--out", str(out), *flags, *options], *words)
    assert not out.exists()  # nothing half-written


def test_unknown_option_values_end_with_2():
    with pytest.raises(SystemExit) as end:
        train.main(["--prior", "studentt"])
    assert end.value.code == 2


def test_data_that_are_no_data(capsys, tmp_path):
    bad = tmp_path / "bad.npy"
    x = np.random.default_rng(0).normal(size=(50, 3)).astype("float32")
    x[7, 1] = np.nan
    np.save(bad, x)
    refused(capsys, train.main, ["--data", str(bad), "--out", str(tmp_path / "a"), *QUICK], "NaN")
    np.save(bad, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused(capsys, train.main, ["--data", str(bad), "--out", str(tmp_path / "b"), *QUICK], "pickle")
    torch.save({"train": object}, tmp_path / "bad.pt")
    refused(
        capsys,
        train.main,
        ["--data", str(tmp_path / "bad.pt"), "--out", str(tmp_path / "c"), *QUICK],
        "pickle",
    )


def test_a_run_is_not_overwritten(capsys, run):
    before = (run / "weights.safetensors").read_bytes()
    refused(capsys, train.main, ["--out", str(run), *QUICK, "--seed", "5"], "overwrite")
    assert (run / "weights.safetensors").read_bytes() == before


def test_unwritable_folder(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    refused(capsys, train.main, ["--out", str(tmp_path / "file" / "run"), *QUICK], "file")


class TestDamagedRuns:
    @pytest.fixture
    def copy(self, run, tmp_path):
        for name in ("config.json", "weights.safetensors"):
            (tmp_path / name).write_bytes((run / name).read_bytes())
        return tmp_path

    def check(self, capsys, folder, *words):
        refused(
            capsys, evaluate.main, [str(folder), "--num-samples", "5", "--quiet", "--device", "cpu"], *words
        )
        assert not (folder / "evidence.nc").exists()

    def test_no_folder(self, capsys, tmp_path):
        self.check(capsys, tmp_path / "none", "config.json", "none")

    def test_no_weights(self, capsys, copy):
        (copy / "weights.safetensors").unlink()
        self.check(capsys, copy, "weights.safetensors", "does not exist")

    @pytest.mark.parametrize("keep", [0, 5, 500, -10])
    def test_truncated_weights(self, capsys, copy, keep):
        file = copy / "weights.safetensors"
        file.write_bytes(file.read_bytes()[:keep])
        self.check(capsys, copy, "weights.safetensors", "damaged or truncated")

    def test_foreign_weights(self, capsys, copy):
        save_file({"a": torch.zeros(1)}, copy / "weights.safetensors")
        self.check(capsys, copy, "foreign")

    def test_another_architecture(self, capsys, copy):
        config = json.loads((copy / "config.json").read_text())
        config["model"]["hidden"] = [24]
        (copy / "config.json").write_text(json.dumps(config))
        self.check(capsys, copy, "the program that the weights", "config.json beside them has changed")

    def test_damaged_config(self, capsys, copy):
        (copy / "config.json").write_text('{"format": 1, "data"')
        self.check(capsys, copy, "config.json", "damaged")

    def test_another_format(self, capsys, copy):
        (copy / "config.json").write_text('{"format": 99}')
        self.check(capsys, copy, "format")

    def test_other_data(self, capsys, copy):
        config = json.loads((copy / "config.json").read_text())
        config["data"]["data_seed"] = 3
        (copy / "config.json").write_text(json.dumps(config))
        self.check(capsys, copy, "hash")

    def test_no_samples(self, capsys, copy):
        refused(capsys, evaluate.main, [str(copy), "--num-samples", "0", "--quiet"], "--num-samples")
        refused(capsys, sample.main, [str(copy), "--num", "0"], "--num")


def test_weights_hold_every_parameter_once(run):
    weights = load_file(run / "weights.safetensors")
    assert all(k.startswith(("parameter:", "buffer:")) for k in weights)
    assert sum(v.numel() for v in weights.values()) == 64 * 16 + 16 + 16 * 4 + 4 + 2 * 16 + 16 + 16 * 64 + 64


def test_command_line(capsys):
    assert cli.main(["--help"]) == 0
    assert "compare" in capsys.readouterr().out
    assert cli.main(["trian"]) == 2
    assert "trian" in capsys.readouterr().err
    assert cli.main([]) == 2


def test_debug_shows_where(capsys):
    assert evaluate.main(["nowhere", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.slow
def test_three_ways_are_the_same_code(tmp_path):
    """A script by its path, as a module and as a console command give the same numbers."""
    base = [sys.executable]
    ways = {
        "script": [*base, str(ROOT / "inference" / "compare.py")],
        "module": [*base, "-m", "pyrovae.inference.compare"],
        "command": [str(Path(sys.executable).with_name("pyrovae")), "compare"],
    }
    tables = {}
    np.save(tmp_path / "bits.npy", np.random.default_rng(0).integers(0, 2, (60, 6)))
    for name, way in ways.items():
        out = tmp_path / name
        argv = ["--out", str(out), *QUICK, "--priors", "mixture", "--guides", "full", "--num-samples", "10"]
        argv += ["--jobs", "1", "--data", str(tmp_path / "bits.npy")]
        done = subprocess.run(
            [*way, *argv], capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "COLUMNS": "140"}
        )
        assert done.returncode == 0, done.stderr
        # All columns but the seconds.
        rows = (out / "table.md").read_text().splitlines()
        tables[name] = [r.rsplit("|", 2)[0] for r in rows if r.startswith("| mixture")]
    assert tables["script"] and tables["script"] == tables["module"] == tables["command"]


# Mass and density --------------------------------------------------------------------------------


def counts(folder, **cells):
    """Counts 0 ... 255 of six columns in a file of each name, one cell of it changed."""
    x = np.random.default_rng(0).poisson(60, (60, 6)).astype(np.float64)
    x[0, 0] = 255
    for name, cell in cells.items():
        changed = x.copy()
        changed[1, 1] = cell
        np.save(folder / f"{name}.npy", changed)
    return x


def test_one_cell_does_not_turn_a_mass_into_a_density(tmp_path, capsys):
    counts(tmp_path, bytes=255, more=256)
    np.save(tmp_path / "large.npy", 1000 * np.load(tmp_path / "more.npy"))
    for name, top in (("bytes", "255"), ("more", "256"), ("large", "256,000")):
        argv = ["--data", str(tmp_path / f"{name}.npy"), "--out", str(tmp_path / name)]
        assert train.main([*argv, *QUICK]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert (
            f"a probability mass (Counts at 'x'), which --likelihood auto takes for whole numbers 0 ... {top}"
            in out
        )
    found = [load_file(tmp_path / name / "weights.safetensors") for name in ("bytes", "more")]
    assert found[0].keys() == found[1].keys()


def test_auto_says_what_it_takes_and_why(tmp_path, capsys):
    counts(tmp_path, stray=3.5, negative=-1.0)
    argv = ["--data", str(tmp_path / "stray.npy"), "--out", str(tmp_path / "stray")]
    assert train.main([*argv, *QUICK]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for words in (
        "a probability density (Normal at 'x')",
        "1 of 360 values are not whole numbers",
        "3.5 at [",
    ):
        assert words in out, out
    argv = ["--data", str(tmp_path / "negative.npy"), "--out", str(tmp_path / "negative"), *QUICK]
    refused(capsys, train.main, argv, "whole numbers in -1 ... 255", "--likelihood gaussian", "density")
    assert train.main([*argv, "--likelihood", "gaussian"]) == 0
    assert "x holds whole numbers" in " ".join(capsys.readouterr().out.split())


def test_runs_of_a_mass_and_of_a_density_are_refused_together(tmp_path, capsys):
    counts(tmp_path, x=256)
    data = ["--data", str(tmp_path / "x.npy")]
    for name, likelihood in (("mass", "auto"), ("density", "gaussian")):
        assert train.main([*data, "--out", str(tmp_path / name), "--likelihood", likelihood, *QUICK]) == 0
    capsys.readouterr()
    folders = [str(tmp_path / "mass"), str(tmp_path / "density")]
    words = ("mass (Counts at 'x')", "density (Normal at 'x')", *folders)
    refused(capsys, evaluate.main, [*folders, "--num-samples", "5", "--quiet"], *words)
    refused(capsys, evaluate.main, [folders[0], "--baseline", folders[1], "--quiet"], *words)
    grid = [
        "--priors",
        "standard",
        "--guides",
        "diagonal",
        "--objectives",
        "trace-elbo",
        "--num-samples",
        "5",
    ]
    argv = [*grid, *data, "--runs", folders[1], "--out", str(tmp_path / "grid"), *QUICK]
    refused(capsys, compare.main, argv, "figures of one kind", folders[1])
    assert evaluate.main([folders[1], "--num-samples", "5", "--quiet"]) == 0
    assert "density" in capsys.readouterr().out

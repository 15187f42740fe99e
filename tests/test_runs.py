"""Run folders as objects: saved, loaded, half deleted, of other programs and of other data."""

import json
import math
import shutil

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyrovae as pv
from pyrovae import runs
from pyrovae.inference import compare, evaluate, impute, sample, score, train
from pyrovae.runs import read_evidence, write_evidence

pytestmark = pytest.mark.usefixtures("unrendered")

FLAGS = ["--device", "cpu", "--quiet"]
QUICK = ["--epochs", "1", "--hidden", "16", "--latent-dim", "2", *FLAGS]


def pair(width=2):
    """A hand-written program with a module, a `pyro.param` under a constraint, and running statistics."""
    net, encoder, norm = nn.Linear(width, 64), nn.Linear(64, 2 * width), nn.BatchNorm1d(64)

    def model(x):
        pyro.module("net", net)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(width), 1.0).to_event(1))
            pyro.sample("x", dist.Binomial(16, logits=net(z)).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        scale = pyro.param("scale", torch.ones(width), constraint=dist.constraints.positive)
        with pyro.plate("data", len(x)):
            loc, _ = encoder(norm(x)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, scale).to_event(1))

    return model, guide


@pytest.fixture(scope="module")
def data():
    return pv.data.load("digits")


@pytest.fixture(scope="module")
def fit(data):
    torch.manual_seed(0)
    return pv.fit(*pair(), data, epochs=2, lr=1e-2, compile=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two runs of the scripts on one data set, and one on another."""
    folder = tmp_path_factory.mktemp("runs")
    for name, more in (("a", []), ("b", ["--prior", "mixture"]), ("c", ["--data", "linear-gaussian"])):
        assert train.main(["--out", str(folder / name), *QUICK, *more]) == 0
    return folder


@pytest.fixture
def saved(fit, data, tmp_path):
    return pv.save(fit, tmp_path / "run", data=data)


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained / "a", tmp_path / "copy")


def change(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | values))


def test_a_hand_written_pair_comes_back(fit, saved, data):
    """Parameters, constrained ones, and running statistics: the same log-weights from other modules."""
    pyro.clear_param_store()  # of whatever test ran before in this process
    run = pv.load(saved, device="cpu", model=(other := pair())[0], guide=other[1])
    x = data.test[:30]
    here, there = (pv.log_weights(p.model, p.guide, x, num_samples=4, seed=1) for p in (fit, run))
    assert torch.equal(here, there)
    assert run.history == fit.history and run.config["best_epoch"] == fit.best_epoch
    assert run.spec == data.spec and torch.equal(run.data.test, data.test)
    assert run.stored_evidence is None and run.label[0].endswith("model")
    text = repr(run)
    assert "digits" in text and "none yet" in text and f"of {len(fit.history)}" in text
    assert len(pyro.get_param_store()) == 0  # nothing of it is in Pyro's global store


def test_tensors_of_the_users_own(fit, data, tmp_path):
    x = data.train[:100]
    folder = pv.save(fit, tmp_path / "run", data=x)
    run = pv.load(folder, model=(p := pair())[0], guide=p[1])
    with pytest.raises(ValueError, match=r"expected data that can be loaded by name.*data="):
        _ = run.data
    given = pv.load(folder, build=lambda _: pair(), data=x, device="cpu")
    assert given.data is not None and torch.equal(given.data, x)
    with pytest.raises(ValueError, match=r"expected the data .* was trained on"):
        pv.load(folder, build=lambda _: pair(), data=x + 1)
    with pytest.raises(ValueError, match="have no name"):
        pv.load(folder, build=lambda _: pair())


def test_programs_are_needed_and_must_fit(fit, saved):
    with pytest.raises(ValueError, match=r"saved from Python without build=.*model=\.\.\., guide="):
        pv.load(saved)
    model, guide = pair(3)
    with pytest.raises(ValueError, match=r"another architecture.*expected \(64, 3\), got \(64, 2\)"):
        pv.load(saved, model=model, guide=guide)
    with pytest.raises(ValueError, match="model and guide together"):
        pv.load(saved, model=model)
    with pytest.raises(ValueError, match=r"given to pv\.fit"):
        pv.load(saved, model=fit.model, guide=fit.guide)
    with pytest.raises(ValueError, match="expected build to give"):
        pv.load(saved, build=lambda _: 3)


def test_saving_refuses(fit, saved, data, tmp_path):
    with pytest.raises(FileExistsError, match="holds a run"):
        pv.save(fit, saved, data=data)
    with pytest.raises(TypeError, match="data set"):
        pv.save(fit, tmp_path / "b", data=[1, 2])
    with pytest.raises(ValueError, match=r"package\.module:attribute"):
        pv.save(fit, tmp_path / "b", data=data, build="nothing")
    with pytest.raises(ValueError, match="data with a name"):
        pv.save(fit, tmp_path / "b", data=data.train, build="a.b:c")
    assert not (tmp_path / "b").exists()
    assert pv.save(fit, saved, data=data, overwrite=True) == saved


def test_a_run_of_the_scripts(trained):
    run = pv.load(trained / "b", device="cpu")
    assert run.label == ("mixture", "diagonal", "trace-elbo") and run.data.spec == run.spec
    assert len(run.history) == 1 and run.history[0]["epoch"] == 1 and "mixture" in repr(run)


@pytest.mark.parametrize("name", ["config.json", "weights.safetensors", "metrics.csv"])
def test_half_deleted(copy, name):
    (copy / name).unlink()
    if name == "metrics.csv":  # the program is whole; only who asks for the history misses it
        run = pv.load(copy, device="cpu")
        assert "no readable metrics.csv" in repr(run)
        with pytest.raises(FileNotFoundError, match=name):
            _ = run.history
        return
    with pytest.raises(FileNotFoundError, match=name):
        pv.load(copy)


def test_damaged(copy):
    run = pv.load(copy, device="cpu")
    for text in ("epoch,elbo\n1,abc\n", "epoch,elbo\n1\n", ""):
        (copy / "metrics.csv").write_text(text)
        with pytest.raises(ValueError, match="damaged"):
            _ = pv.load(copy, device="cpu").history
    (copy / "evidence.nc").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="damaged or foreign"):
        _ = run.stored_evidence
    assert "damaged or foreign" in repr(run)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"format": 2}, "format 1, got 2"),
        ({"spec": {"name": "digits"}}, "description of its data"),
        ({"data": {"data": "digits", "data_seed": 3}}, "expected the data .* was trained on"),
        ({"data": {"data": "digits", "colour": 3}}, "options of pyrovae.data.load"),
        ({"model": {"model": "vae", "colour": 3}}, "expected options"),
        ({"train": {}}, "expected the seed"),
        ({"compare": {}, "best": "x"}, "comparison of several"),
        ({"spec": "x"}, "expected spec in .* to be an object, got 'x'"),
        ({"program": [3]}, "expected program in .* to be a list of a text or null"),
        ({"best_epoch": "x"}, "expected best_epoch in .* to be a whole number or null"),
        ({"seconds": math.nan}, "expected seconds in .* to be a finite number or null, got nan"),
    ],
)
def test_configurations_that_do_not_fit(copy, values, words):
    change(copy, **values)
    with pytest.raises(ValueError, match=words):
        pv.load(copy)


def test_every_field_of_a_configuration_is_refused_by_its_name(of_table):
    """Values of other kinds: no error of Python's, and no other description of the data that is taken."""
    whole = (of_table / "run" / "config.json").read_text()
    folder = shutil.copytree(of_table / "run", of_table / "changed")
    config = json.loads(whole)
    for part, name in [(p, n) for p in ("spec", "data") for n in config[p]]:
        for value in (7, math.nan, 10**30, "x", [1], {"a": []}, True):
            if value == config[part][name]:
                continue
            changed = json.loads(whole)
            changed[part][name] = value
            (folder / "config.json").write_text(json.dumps(changed))
            try:
                pv.load(folder, device="cpu")
                assert part == "data", (name, value)
            except FileNotFoundError:
                assert (part, name) == ("data", "data")
            except ValueError as error:
                assert part == "data" or f"expected {name}" in str(error) or "has changed" in str(error), (
                    error
                )


def test_weights_of_another_run_of_the_same_program_are_refused(trained, copy, fit, saved, data, tmp_path):
    """Of another seed, whose metrics stand beside other weights; folders of before do not say it, and load."""
    assert train.main(["--out", str(tmp_path / "other"), *QUICK, "--seed", "1"]) == 0
    shutil.copy(tmp_path / "other" / "weights.safetensors", copy)
    with pytest.raises(ValueError, match="those of another run of the same program"):
        pv.load(copy)
    assert (
        evaluate.main([str(copy), *FLAGS]) == 2 and train.main(["--out", str(copy), "--resume", *QUICK]) == 0
    )
    assert train.main(["--out", str(copy), "--resume", *QUICK, "--epochs", "2"]) == 2
    config = json.loads((copy / "config.json").read_text())
    assert config.pop("weights") == pv.load(trained / "a", device="cpu").weights_hash
    (copy / "config.json").write_text(json.dumps(config))
    assert pv.load(copy, device="cpu").weights_hash == pv.load(tmp_path / "other", device="cpu").weights_hash
    torch.manual_seed(1)
    again = pv.save(pv.fit(*pair(), data, epochs=1, compile=False), tmp_path / "again", data=data)
    shutil.copy(again / "weights.safetensors", saved)
    with pytest.raises(ValueError, match="those of another run of the same program"):
        pv.load(saved, model=pair()[0], guide=pair()[1])
    # What a user writes there by hand is theirs.
    runs.save_weights(saved / "weights.safetensors", fit.store, fit.modules)
    model, guide = pair()
    pv.load(saved, device="cpu", model=model, guide=guide)


TABLE = "age,smoker,city\n" + "".join(
    f"{20.5 + i % 7},{('yes', 'no')[i % 2]},{('Bern', 'Graz', 'Lyon')[i % 3]}\n" for i in range(60)
)


@pytest.fixture(scope="module")
def of_table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    (folder / "t.csv").write_text(TABLE)
    argv = [
        "--data",
        str(folder / "t.csv"),
        "--columns",
        "auto",
        "--warmup",
        "0",
        "--out",
        str(folder / "run"),
    ]
    assert train.main([*argv, *QUICK]) == 0
    return folder


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (TABLE.replace("Bern", "Basel"), r"category 'Bern' of column 'city' missing, a new category 'Basel'"),
        (TABLE.replace("age", "Age"), r"column 'age' missing, a new column 'Age'"),
        (TABLE.replace("yes", "1").replace("no", "0"), r"column 'smoker' as binary and not category"),
        ("\n".join(line.rpartition(",")[0] for line in TABLE.splitlines()), r"column 'city' missing \(hash"),
        (TABLE + TABLE.splitlines()[1], r"61 rows and not 60 \(hash"),
        (TABLE.replace("20.5", "20.75"), r"other values, or rows in another order \(hash"),
    ],
)
def test_a_training_table_that_has_changed_is_told_by_what_is_other_in_it(of_table, now, words, tmp_path):
    """Where the folder has not changed it is not blamed; nor is a file taken that says other words by `--data`."""
    run = shutil.copytree(of_table, tmp_path / "all") / "run"
    (tmp_path / "other.csv").write_text(TABLE)
    assert pv.load(run, device="cpu", data=tmp_path / "other.csv").spec.name == "t.csv"
    (tmp_path / "other.csv").write_text(now)
    change(
        run, data=json.loads((run / "config.json").read_text())["data"] | {"data": str(run.parent / "t.csv")}
    )
    (run.parent / "t.csv").write_text(now)
    for more in ({}, {"data": tmp_path / "other.csv"}):
        with pytest.raises(ValueError, match=f"trained on, got (t|other).csv with .*{words}") as told:
            pv.load(run, device="cpu", **more)
        assert "damaged" not in str(told.value) and len(str(told.value)) < 400
    config = json.loads((run / "config.json").read_text())
    config["spec"]["columns"] = ["x", "y", "z"]
    change(run, **config)
    with pytest.raises(ValueError, match=r"config.json beside them has changed"):
        pv.load(run, device="cpu")


def test_goes_on_with_more_epochs_on_the_same_table_alone(of_table, tmp_path, capsys):
    run = shutil.copytree(of_table, tmp_path / "all") / "run"
    change(
        run, data=json.loads((run / "config.json").read_text())["data"] | {"data": str(run.parent / "t.csv")}
    )
    (run.parent / "t.csv").write_text(TABLE.replace("Bern", "Basel"))
    assert train.main(["--out", str(run), "--resume", "--epochs", "2", *FLAGS]) == 2
    assert "category 'Bern' of column 'city' missing" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("main", "argv", "words"),
    [
        (evaluate, ["RUN", "--resume", "--shard", "1/3"], "try at most 1 shard"),
        (sample, ["RUN", "--num", "3"], "try --out with a folder"),
        (score, ["RUN", "TABLE"], "try --out with a folder"),
        (impute, ["WITHMISSING"], "try --out with a folder"),
        (evaluate, ["RUN"], "try --out-dir with a folder"),
        (
            train,
            ["--data", "TABLE", "--log-columns", "age", "--out", "OUT"],
            "--standardize, beside --log-columns age",
        ),
    ],
)
def test_what_cannot_be_done_names_an_option_that_the_command_has(
    of_table, tmp_path, capsys, monkeypatch, main, argv, words
):
    if "with a folder" in words:

        def refused(folder):
            raise PermissionError(13, "Permission denied", str(folder))

        monkeypatch.setattr("pyrovae.inference.running.evaluating.check_writable", refused)
    run = of_table / "run"
    if argv == ["WITHMISSING"]:
        run = of_table / "missing"
        made = [
            "--data",
            str(of_table / "t.csv"),
            "--columns",
            "auto",
            "--missing",
            "ignore",
            "--out",
            str(run),
        ]
        assert train.main([*made, *QUICK]) == 0
    places = {"TABLE": of_table / "t.csv", "RUN": run, "WITHMISSING": run, "OUT": tmp_path / "out"}
    assert main.main([*(str(places.get(a, a)) for a in argv), *FLAGS]) == 2
    err = " ".join(capsys.readouterr().err.split())
    assert words in err and "Errno" not in err, err


def test_what_is_not_there_is_a_dash_in_every_table(of_table, capsys):
    assert evaluate.main([str(of_table / "run"), "--num-samples", "1", *FLAGS]) == 0
    assert score.main([str(of_table / "run"), str(of_table / "t.csv"), "--num-samples", "1", *FLAGS]) == 0
    assert "nan" not in capsys.readouterr().out.replace("finan", "")


def test_warnings_are_notes_of_a_line_and_a_column_that_does_not_vary_is_said(tmp_path, capsys):
    rows = "".join(f"{1e6 * (i % 7) + 0.5},{i % 3},1\n" for i in range(60))
    (tmp_path / "t.csv").write_text("income,visits,one\n" + rows)
    out = ["--data", str(tmp_path / "t.csv"), "--out", str(tmp_path / "run"), *QUICK, "--overwrite"]
    assert train.main(out) == 0
    said = capsys.readouterr().err.splitlines()
    assert sum("one value alone: one (1)" in line for line in said) == 1
    notes = [line for line in said if "scale is far from 1" in line]
    assert len(notes) == 1 and notes[0].startswith("train: note: t.csv has columns")
    assert train.main([*out, "--columns", "auto"]) == 0
    said = capsys.readouterr().out
    assert "1, which does not vary" in said and "0 ... 2" in said


def test_an_unfinished_run(copy):
    (copy / "unfinished.json").write_text("{}")
    with pytest.raises(ValueError, match="unfinished"):
        pv.load(copy)


def test_a_folder_does_not_bring_its_own_code(copy):
    """What a folder holds is data; a Python file in it is not run."""
    (copy / "evil.py").write_text("raise SystemExit('ran')\n")
    change(copy, model={"model": f"{copy}/evil.py:build"})
    with pytest.raises(ValueError, match="consent to run the code"):
        pv.load(copy)


def test_evidence_reads_back(fit, data, tmp_path):
    ev = pv.evidence(fit.model, fit.guide, data.test[:20], estimators=[pv.ELBO(), pv.IS(30)], delta=0.1)
    write_evidence(ev, tmp_path / "e.nc")
    back = read_evidence(tmp_path / "e.nc")
    assert list(back) == list(ev) and back.warnings == ev.warnings
    assert {k: v for k, v in ev.attributes.items() if v is not None}.items() <= back.attributes.items()
    assert back.table() == ev.table() and torch.equal(back.x, ev.x) and back.compare(ev).difference == 0
    for name in ev:
        assert back[name].curve == ev[name].curve and torch.equal(back[name].variance, ev[name].variance)


def evaluated(trained, *more, capsys):
    code = evaluate.main([str(trained / "a"), str(trained / "b"), "--num-samples", "20", *FLAGS, *more])
    done = capsys.readouterr()
    return code, done.out, done.err


def test_one_paired_table(trained, tmp_path, capsys):
    out = tmp_path / "table.md"
    code, text, err = evaluated(trained, "--baseline", str(trained / "b"), "--out", str(out), capsys=capsys)
    assert code == 0 and "Δ to baseline" in text, err
    rows = {r.split("|")[1].strip(): r for r in out.read_text().splitlines() if r.startswith(f"| {trained}")}
    a, b = (pv.load(trained / n, device="cpu").stored_evidence for n in "ab")
    paired = a.compare(b)
    assert f"{paired.difference:+.3f} ± {paired.se:.3f}" in rows[str(trained / "a")]
    assert "baseline" in rows[str(trained / "b")] and f"{b['IS'].certificate:.3f}" in rows[str(trained / "b")]

    # Asked again it is read, not computed; other questions and other weights are computed.
    before = (trained / "a" / "evidence.nc").stat().st_mtime_ns
    assert evaluated(trained, "--reuse", capsys=capsys)[1].count("from evidence.nc") == 2
    assert (trained / "a" / "evidence.nc").stat().st_mtime_ns == before
    assert "from evidence.nc" not in evaluated(trained, "--reuse", "--seed", "1", capsys=capsys)[1]
    # A look at nine of the data leaves what was found for all of them in its place.
    whole = pv.load(trained / "a", device="cpu").stored_evidence.attributes["num_data"]
    assert "from evidence.nc" not in evaluated(trained, "--reuse", "--limit", "9", capsys=capsys)[1]
    assert pv.load(trained / "a", device="cpu").stored_evidence.attributes["num_data"] == whole > 9
    assert (trained / "a" / "evidence-9.nc").is_file() and (trained / "a" / "evidence-9.png").is_file()


def test_evidence_of_former_weights_is_none_of_these(copy):
    assert evaluate.main([str(copy), "--num-samples", "10", *FLAGS]) == 0
    run = pv.load(copy, device="cpu")
    assert run.stored_evidence is not None and run.stored_evidence["IS"].num_samples == 10
    with torch.no_grad():
        next(iter(run.store.unconstrained().values())).add_(0.1)
    runs.save_weights(copy / "weights.safetensors", run.store, run.modules)
    assert pv.load(copy, device="cpu").stored_evidence is None


def test_weights_are_of_the_program_that_they_were_trained_in(copy, capsys):
    """Another configuration whose parameters have the same shapes; runs of before do not say, and are taken."""
    assert evaluate.main([str(copy), "--num-samples", "10", *FLAGS]) == 0
    whole, run = (copy / "config.json").read_text(), pv.load(copy, device="cpu")
    was = json.loads(whole)
    change(copy, model=was["model"] | {"activation": "relu"}, train=was["train"] | {"warmup": 0.0})
    words = "expected the program that the weights in .* were trained in, got another one"
    with pytest.raises(ValueError, match=words):
        pv.load(copy, device="cpu")
    capsys.readouterr()
    argv = ["--out", str(copy), "--resume", "--epochs", "2", *FLAGS]
    assert train.main(argv) == 2 and "got another one" in capsys.readouterr().err
    runs.save_weights(copy / "weights.safetensors", run.store, run.modules)  # without a mark
    other = pv.load(copy, device="cpu")
    assert other.weights_hash == run.weights_hash and other.stored_evidence is None
    (copy / "config.json").write_text(whole)
    assert pv.load(copy, device="cpu").stored_evidence is not None


def test_runs_on_different_data(trained, tmp_path, capsys):
    a, c = str(trained / "a"), str(trained / "c")
    for argv in ([a, c], [a, a]):
        assert evaluate.main([*argv, *FLAGS]) == 2
    err = capsys.readouterr().err
    assert "digits" in err and "linear-gaussian" in err and "each run folder once" in err
    assert compare.main(["--runs", c, "--out", str(tmp_path / "x"), *QUICK]) == 2
    assert "grid's data" in capsys.readouterr().err and not (tmp_path / "x").exists()


def test_compare_takes_runs(trained, tmp_path, capsys):
    both = ["--runs", str(trained / "a"), str(trained / "b"), "--num-samples", "20", *QUICK]
    assert compare.main(["--only-runs", *both, "--out", str(tmp_path / "alone")]) == 0
    alone = (tmp_path / "alone" / "table.md").read_text()
    assert alone.count(f"| {trained}") == 2 and alone.count("best |") == 1
    grid = ["--priors", "standard", "--guides", "full", "--objectives", "trace-elbo", "--jobs", "1"]
    assert compare.main([*both, *grid, "--out", str(tmp_path / "beside")]) == 0
    beside = (tmp_path / "beside" / "table.md").read_text()
    assert "| grid | standard | full" in beside and beside.count(f"| {trained}") == 2
    assert compare.main(["--only-runs", "--out", str(tmp_path / "none")]) == 2
    assert "--runs" in capsys.readouterr().err

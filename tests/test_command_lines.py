"""Bad command lines, in one table: each ends with code 2 (1 for the user's own code), one message, and nothing left."""

import itertools
import shutil

import pytest
import torch
from rich.console import Console

from pyrovae.inference import (
    cli,
    compare,
    embed,
    evaluate,
    free_energy,
    gaps,
    impute,
    ising,
    rbm_study,
    reconstruct,
    report,
    sample,
    sandwich,
    score,
    train,
    truth,
)
from pyrovae.inference.running import running

pytestmark = pytest.mark.usefixtures("unrendered")

MAINS = {
    "train": train.main,
    "evaluate": evaluate.main,
    "gaps": gaps.main,
    "sandwich": sandwich.main,
    "free_energy": free_energy.main,
    "sample": sample.main,
    "impute": impute.main,
    "report": report.main,
    "score": score.main,
    "embed": embed.main,
    "reconstruct": reconstruct.main,
    "compare": compare.main,
    "ising": ising.main,
    "truth": truth.main,
    "rbm_study": rbm_study.main,
}
TRAIN = ["--out", "out", "--epochs", "1", "--device", "cpu", "--quiet"]
COMPARE = [*TRAIN, "--priors", "standard", "--guides", "diagonal", "--objectives", "trace-elbo"]
STARTS = {
    "train": TRAIN,
    "compare": COMPARE,
    "ising": ["--out", "out"],
    "truth": ["--out", "out", "--quick"],
    "rbm_study": ["ising"],
    **{
        s: ["run", "--device", "cpu"]
        for s in ("evaluate", "gaps", "sandwich", "free_energy", "sample", "impute", "report")
    },
    **{s: ["run", "new.npy", "--device", "cpu"] for s in ("score", "embed", "reconstruct")},
}

# Numbers out of their range, of every script that has the option.
LOOP = ["epochs", "batch-size", "particles", "patience", "seed", "max-returns"]
WHOLE = {
    "train": [*LOOP, "checkpoint-every", "keep", "accumulate", "gibbs-steps", "gibbs-chains", "data-seed"],
    "compare": [*LOOP, "num-samples", "jobs", "seeds", "data-seed"],
    "evaluate": ["num-samples", "limit", "seed", "replicates", "temperatures", "chains", "leapfrog"],
    "gaps": ["num-samples", "limit", "seed", "steps", "particles", "draws"],
    "impute": ["num-samples", "num-draws", "seed"],
    "report": ["num-samples", "limit", "seed", "temperatures", "chains"],
    "score": ["num-samples", "worst", "seed", "chains"],
    "embed": ["num-samples", "seed"],
    "reconstruct": ["seed"],
    "sandwich": ["simulate", "chains", "leapfrog", "num-samples", "seed", "temperatures"],
    "free_energy": [
        "limit",
        "simulate",
        "num-samples",
        "chains",
        "steps",
        "work-steps",
        "work-chains",
        "leapfrog",
    ],
    "sample": ["num", "num-samples", "limit", "steps", "seed"],
    "ising": ["L", "epochs", "train-size", "num-samples", "limit", "draws", "seed", "jobs"],
    "truth": ["num-data", "num-samples", "repeats", "seed"],
    "rbm_study": ["L", "temperatures", "chains", "hidden", "epochs", "seed"],
}
REAL = {
    "train": [
        "lr",
        "lr-end",
        "beta",
        "warmup",
        "free-bits",
        "clip-norm",
        "ema",
        "weight-decay",
        "rank-timeout",
        "scale",
    ],
    "compare": ["lr", "lr-end", "beta", "warmup", "free-bits", "clip-norm", "ema", "weight-decay", "scale"],
    "evaluate": ["delta", "claim-expiry"],
    "gaps": ["lr", "claim-expiry"],
    "impute": ["level"],
    "free_energy": ["temperatures"],
    "ising": ["temperatures"],
    "rbm_study": ["T", "rates"],
}
NUMBERS = [
    *((s, [f"--{o}", v]) for s, options in WHOLE.items() for o in options for v in ("-1", "1.5", "many")),
    *((s, [f"--{o}", v]) for s, options in REAL.items() for o in options for v in ("-1", "nan", "fast")),
]
SIZES = [
    "latent-dim",
    "components",
    "rank",
    "guide-components",
    "flow-transforms",
    "hidden",
    "channels",
    "levels",
]
SIZES += ["widths", "level-width", "stream", "diffusion-steps", "likelihood-components"]
TOO_LARGE = [("train", [f"--{o}", v]) for o in SIZES for v in ("0", "1000000000000")]

# Options that the model, its parts or its objective do not have.
MINE = ["--model", "mine.py:build"]
UNUSED = [
    ("train", [*model, *option])
    for model, options in (
        (["--model", "rbm", "--binarise", "static"], ["--guide diagonal", "--latent-dim 3", "--levels 2"]),
        (["--model", "hierarchical"], ["--latent-dim 3", "--rank 3", "--diffusion-steps 4", "--preset keras"]),
        (["--model", "diffusion"], ["--prior vamp", "--guide full", "--levels 2", "--components 3", "--scale 2.0"]),
        (["--model", "linear-gaussian", "--data", "linear-gaussian"], ["--hidden 4", "--prior vamp", "--stream 3"]),
        (MINE, ["--hidden 16", "--latent-dim 2", "--prior mixture", "--network conv", "--activation relu"]),
        ([], ["--levels 2", "--stream 4", "--noise-schedule linear", "--denoiser levels", "--widths 3 2"]),
        ([], ["--components 5", "--rank 3", "--guide-components 3", "--flow-hidden 8", "--likelihood-components 3"]),
        ([], ["--gibbs-steps 2", "--gibbs-chains 7", "--ladder 1.0 2.0", "--exact-likelihood"]),
    )
    for option in (o.split() for o in options)
]  # fmt: skip

CHOICES = [
    (script, [f"--{option}", "nonsense"])
    for script, options in {
        "train": [
            "preset",
            "likelihood",
            "network",
            "activation",
            "prior",
            "guide",
            "objective",
            "lr-schedule",
            "format",
        ],
        "compare": ["priors", "guides", "objectives", "binarise", "compile", "device", "format"],
        "evaluate": ["split", "estimators", "start", "compile", "device", "format"],
        "gaps": ["split", "compile", "estimators"],
        "sandwich": ["start", "compile"],
        "free_energy": ["estimator"],
        "sample": ["only"],
        "ising": ["models", "format"],
        "truth": ["format"],
    }.items()
    for option in options
]
UNKNOWN = [(s, ["--no-such-option", "3"]) for s in MAINS] + [(s, ["--seed"]) for s in MAINS]
MISSING = [
    (s, None)
    for s in (
        *("evaluate", "gaps", "sandwich", "sample", "impute", "report", "rbm_study", "free_energy"),
        *("score", "embed", "reconstruct"),
    )
]

# What only this script can say.
OWN = [
    ("train", ["--data", "digitz"]),
    ("train", ["--data", "nowhere.npy"]),
    ("train", ["--data", "."]),
    ("train", ["--data", "digits", "--L", "4"]),
    ("train", ["--data", "ising", "--T", "-1"]),
    ("train", ["--data", "mine.py"]),
    ("train", ["--root", "run", "--data", "binarized-mnist"]),
    ("train", ["--model", "vaee"]),
    ("train", ["--model", "no_such_module:thing"]),
    ("train", ["--model", "nowhere.py:build"]),
    ("train", ["--model", "mine.py:nothing"]),
    ("train", ["--model", "mine.py:three"]),
    ("train", ["--model", ":"]),
    ("train", ["--model", "linear-gaussian"]),
    ("train", ["--model", "rbm"]),
    ("train", ["--objective", "pcd"]),
    ("train", ["--objective", "renyi", "--beta", "0.5"]),
    ("train", ["--objective", "dreg", "--particles", "1"]),
    ("train", ["--likelihood", "bernoulli"]),
    ("train", ["--network", "gated", "--activation", "relu"]),
    ("train", ["--network", "conv", "--hidden", "3", "4"]),
    ("train", ["--group", "prior"]),
    ("train", ["--group", "prior=a"]),
    ("train", ["--group", "=1"]),
    ("train", ["--group", "nothing=1"]),
    ("train", ["--out", "mine.py/run"]),
    ("train", ["--out", "run"]),
    ("train", ["--tensorboard", "--out", "run"]),
    ("train", ["--hidden", "1000000", "1000000"]),
    ("train", ["--epochs", "9" * 30]),
    ("compare", ["--out", "run"]),
    ("compare", ["--only-runs"]),
    ("compare", ["--runs", "nowhere"]),
    ("compare", ["--runs", "run", "run"]),
    ("compare", ["--priors"]),
    ("compare", ["--objectives", "trace-elbo", "trace-elbo"]),
    ("compare", ["--programs", "nowhere.py:build"]),
    ("compare", ["--data", "digitz"]),
    ("compare", ["--objectives", "cd"]),
    ("compare", ["--rank", "3"]),
    ("compare", ["--group", "prior"]),
    ("compare", ["--objectives", "renyi", "--beta", "0.5"]),
    ("compare", ["--objectives", "dreg", "--particles", "1"]),
    ("evaluate", ["nowhere"]),
    ("evaluate", ["run", "run"]),
    ("evaluate", ["--estimators", "is", "is"]),
    ("evaluate", ["--shard", "0/2"]),
    ("evaluate", ["--shard", "2/2", "--resume"]),
    ("evaluate", ["--shard", "half", "--resume"]),
    ("evaluate", ["--shard", "0/2", "--shared", "--resume"]),
    ("evaluate", ["--shard", "0/2", "--resume", "--estimators", "ais"]),
    ("evaluate", ["--out", "nowhere/table.md"]),
    ("evaluate", ["--out", "run"]),
    ("evaluate", ["--out", "run/config.json"]),
    ("evaluate", ["--out", "mine.py"]),
    ("evaluate", ["--baseline", "nowhere"]),
    ("evaluate", ["--out-dir", "mine.py"]),
    ("evaluate", ["--status", "nowhere"]),
    ("evaluate", ["--estimators", "normalised"]),
    ("gaps", ["nowhere"]),
    ("sandwich", ["nowhere"]),
    ("sandwich", ["--temperatures"]),
    ("free_energy", ["nowhere"]),
    ("free_energy", ["--truth"]),
    ("free_energy", ["--temperatures", "2.0", "1.0"]),
    ("free_energy", ["--temperatures"]),
    ("impute", ["nowhere"]),
    ("impute", ["--rows", "nowhere.csv"]),
    ("train", ["--standardize"]),
    ("train", ["--data", "digits", "--columns", "auto"]),
    ("train", ["--columns", "nowhere.toml"]),
    ("train", ["--columns", "foo"]),
    ("train", ["--log-columns", "a"]),
    ("train", ["--missing", "perhaps"]),
    ("sample", ["nowhere"]),
    ("sample", ["--steps", "3"]),
    ("sample", ["--out", "mine.py"]),
    ("ising", ["--temperatures", "2.0", "2.0"]),
    ("ising", ["--models"]),
    ("rbm_study", ["--hidden", "100"]),
    ("cli", ["trian"]),
    ("cli", []),
    ("cli", ["compare", "--num-samples", "0"]),
]

# Options of estimators that are not asked for, and of models that are not there.
UNASKED = [
    (script, option.split())
    for script, options in {
        "evaluate": (
            *("--temperatures 30", "--chains 3", "--leapfrog 3", "--start prior", "--replicates 9"),
            *("--defensive 0.3", "--partition-chains 9", "--partition-temperatures 99", "--claim-expiry 5"),
            *("--estimators is mlmc --chains 3", "--estimators exact --num-samples 9"),
            *("--estimators ais --replicates 9", "--estimators normalised --leapfrog 3"),
        ),
        "gaps": (
            "--temperatures 30",
            "--replicates 9",
            "--estimators exact --num-samples 9",
            "--claim-expiry 5",
        ),
    }.items()
    for option in options
]

CASES = [*NUMBERS, *TOO_LARGE, *UNUSED, *CHOICES, *UNKNOWN, *MISSING, *OWN, *UNASKED]

CODE = """
three = 3

def build(data):
    raise RuntimeError("no such thing as this")
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a run and a file of the user's, that no bad command changes."""
    folder = tmp_path_factory.mktemp("place")
    argv = ["--out", str(folder / "run"), "--epochs", "1", "--hidden", "8", "--latent-dim", "2"]
    assert train.main([*argv, "--device", "cpu", "--quiet"]) == 0
    (folder / "mine.py").write_text(CODE)
    return folder


def state(folder):
    return {
        p: p.stat().st_mtime_ns for p in folder.rglob("*") if "__pycache__" not in str(p) and p.is_file()
    } | {p: 0 for p in folder.rglob("*") if p.is_dir() and "__pycache__" not in str(p)}


def ended(main, argv, capsys):
    """Exit code, whether the parser refused it (in a box of its own), and what was said."""
    try:
        code, by_parser = main(argv), False
    except SystemExit as end:
        code, by_parser = end.code, True
    out, err = capsys.readouterr()
    return code, by_parser, out, err


def test_there_are_many():
    assert len({(s, tuple(a or ())) for s, a in CASES}) >= 300


@pytest.mark.parametrize("part", range(8))
def test_bad_command_lines(place, capsys, monkeypatch, part):
    monkeypatch.chdir(place)
    before, wrong = state(place), []
    for script, argv in itertools.islice(CASES, part, None, 8):
        start = [] if argv is None or script == "cli" else STARTS[script]
        if (
            argv
            and script in ("evaluate", "gaps", "sandwich", "free_energy", "sample", "impute")
            and argv[0] == "nowhere"
        ):
            start = start[1:]
        main = cli.main if script == "cli" else MAINS[script]
        code, parsed, out, err = ended(main, [*start, *(argv or [])], capsys)
        told = f"{script} {argv}: {code}: {out[-300:]}{err}"
        one_line = parsed or script == "cli" or (err.count("\n") == 1 and "error: " in err)
        if code != 2 or not one_line or "Traceback" in out + err or "internal error" in err:
            wrong.append(told)
        elif state(place) != before:
            wrong.append(f"left over: {told}")
            shutil.rmtree(place / "out", ignore_errors=True)
            before = state(place)
    assert not wrong, f"{len(wrong)} of them:\n" + "\n".join(wrong)


def test_the_users_own_code_that_raises(place, capsys, monkeypatch):
    """Its own file, line and error, in three lines; code 1."""
    monkeypatch.chdir(place)
    before = state(place)
    for main, argv in (
        (train.main, [*TRAIN, *MINE]),
        (compare.main, [*COMPARE, "--programs", "mine.py:build"]),
    ):
        code, *_, err = ended(main, argv, capsys)
        assert code == 1 and err.count("\n") == 3 and "internal" not in err, err
        assert "mine.py, line 5, in build" in err and "no such thing as this" in err
        assert 'raise RuntimeError("no such thing as this")' in err
        assert state(place) == before
    (place / "broken.py").write_text("def build(data:\n")
    code, *_, err = ended(train.main, [*TRAIN, "--model", "broken.py:build"], capsys)
    assert code == 1 and "broken.py, line 1" in err and "SyntaxError" in err and err.count("\n") == 3, err
    (place / "broken.py").write_text("import no_such_package\n")
    code, *_, err = ended(train.main, [*TRAIN, "--model", "broken.py:build"], capsys)
    assert code == 1 and "broken.py, line 1" in err and "no_such_package" in err
    (place / "broken.py").unlink()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_consoles_of_every_encoding(place, tmp_path, encoding, monkeypatch):
    import io
    import sys

    run = shutil.copytree(place / "run", tmp_path / "[bold]läuft[/] :smile:")
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, write_through=True))
    monkeypatch.setenv("COLUMNS", "30")
    argv = [str(run), "--num-samples", "30", "--limit", "30", "--device", "cpu", "--quiet"]
    assert evaluate.main(argv) == 0
    text = raw.getvalue().decode(encoding)
    signs = ("≥", "k̂") if encoding == "utf-8" else (">=", "k-hat")
    assert all(sign in text for sign in signs)
    assert "[bold]l" in text and "[/] :smile:" in text
    torch.manual_seed(0)


@pytest.mark.slow
def test_a_reader_who_goes(place, tmp_path):
    """`pyrovae evaluate run | head -1`: no complaint, and the file is there."""
    import subprocess
    import sys

    run = shutil.copytree(place / "run", tmp_path / "run")
    program = "import sys; from pyrovae.inference import evaluate; sys.exit(evaluate.main(sys.argv[1:]))"
    argv = [str(run), "--num-samples", "30", "--limit", "30", "--device", "cpu", "--quiet"]
    first = subprocess.Popen(
        [sys.executable, "-c", program, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    first.stdout.close()
    err = first.stderr.read()
    assert first.wait() == 0 and err == b"" and (run / "evidence.nc").exists()


@pytest.mark.parametrize("begun", [False, True])
def test_options_that_are_refused_leave_no_bar(begun, capsys, monkeypatch):
    """It would say that something is being trained."""
    monkeypatch.setattr(running, "console", Console(width=140))
    with pytest.raises(ValueError), running.progress(False, "epochs", 3) as update:
        if begun:
            update(completed=1)
        raise ValueError
    assert ("epochs" in capsys.readouterr().out) == begun

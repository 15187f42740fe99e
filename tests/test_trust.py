"""Folders of strangers: whatever they name or link to, nothing of it runs, and nothing is written outside of them."""

import dataclasses
import importlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest

import pyrovae as pv
from pyrovae.data.sources import mnist
from pyrovae.inference import (
    cli,
    compare,
    embed,
    evaluate,
    free_energy,
    gaps,
    impute,
    reconstruct,
    report,
    sample,
    sandwich,
    score,
    train,
)
from pyrovae.inference.studies.ising_cells import Question, trained
from pyrovae.inference.studies.ising_study import make_plan

from .small import FLAGS, PROGRAM

pytestmark = pytest.mark.usefixtures("unrendered")

QUICK = ["--epochs", "1", "--hidden", "16", "--latent-dim", "2", *FLAGS]

# Each way of naming code, as a folder `run` in the working directory can.
WAYS = {
    "module in the folder": "run.payload:build",
    "file in the folder": "run/payload.py:build",
    "file beside it": "other/payload.py:build",
    "file above it": "run/../payload.py:build",
    "absolute file": "{cwd}/payload.py:build",
    "symlink": "link.py:build",
    "symlinked folder": "linked.payload:build",
    "package whose parent runs": "pack.inner:build",
    "installed module": "sys:exit",
    "installed function": "os:_exit",
    "standard library file": "antigravity:geohash",
}

SCRIPTS = {
    "evaluate": lambda f: evaluate.main([f, "--num-samples", "5", *FLAGS]),
    "evaluate --shared": lambda f: evaluate.main([f, "--num-samples", "5", "--shared", *FLAGS]),
    "gaps": lambda f: gaps.main([f, "--limit", "2", "--steps", "2", *FLAGS]),
    "sandwich": lambda f: sandwich.main([f, "--simulate", "2", "--temperatures", "3", *FLAGS]),
    "free_energy": lambda f: free_energy.main([f, "--limit", "2", *FLAGS]),
    "sample": lambda f: sample.main([f, "--num", "2", *FLAGS]),
    "score": lambda f: score.main([f, "rows.npy", "--num-samples", "5", *FLAGS]),
    "embed": lambda f: embed.main([f, "rows.npy", *FLAGS]),
    "reconstruct": lambda f: reconstruct.main([f, "rows.npy", *FLAGS]),
    "impute": lambda f: impute.main([f, *FLAGS]),
    "report": lambda f: report.main([f, "--num-samples", "5", *FLAGS]),
    "compare": lambda f: compare.main(["--only-runs", "--runs", f, "--out", "cmp", "--num-samples", "5", *FLAGS]),
    "train --resume": lambda f: train.main(["--out", f, "--resume", *FLAGS]),
}  # fmt: skip

# Scripts that go on in a folder: what lies there may be a stranger's, too.
CELL = "standard-diagonal-trace-elbo"
GRID = ["--priors", "standard", "--guides", "diagonal", "--objectives", "trace-elbo", *QUICK]


def study(out):
    """What `ising` does first with a cell's folder."""
    plan = make_plan(out, 4, (2.0,), ("vae",), 2, 2000, Question())
    try:
        trained(plan.cells[0])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


INTO = {
    "compare": (CELL, lambda: compare.main(["--out", ".", *GRID])),
    "ising": ("vae-T2", lambda: study(Path())),
    "train": (CELL, lambda: train.main(["--out", CELL, *QUICK])),
}
# Options of Path that are no folder of a run, or one that the user names to write into.
ELSEWHERE = {"root", "out", "out_dir"}


def paths_of(options):
    """Options of a script that take a path, those within them too."""
    hints = get_type_hints(options)
    names = {f.name for f in dataclasses.fields(options) if "Path" in str(hints[f.name])}
    inner = [hints[f.name] for f in dataclasses.fields(options) if dataclasses.is_dataclass(hints[f.name])]
    return names.union(*map(paths_of, inner))


def test_every_script_that_reads_a_run_is_asked():
    """Derived from the options: a new script that takes a folder is missed here until it is in the table."""
    reads, writes = set(), set()
    for name in cli.COMMANDS:
        found = paths_of(importlib.import_module(f"pyrovae.inference.{name}").Options)
        reads |= {name} if found - ELSEWHERE else set()
        writes |= {name} if "out" in found else set()
    assert reads == {name.partition(" ")[0] for name in SCRIPTS} - {"train"}
    # Those that write single files and pictures take nothing that is there.
    files = {"evaluate", "sample", "free_energy", "truth", "score", "embed", "reconstruct", "impute"}
    assert writes - files == set(INTO)


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A whole run, of which the strangers' folders are made."""
    folder = tmp_path_factory.mktemp("honest") / "run"
    assert train.main(["--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def archive(honest, tmp_path, monkeypatch):
    """What a stranger sent, unpacked, with the user standing in it; `mark` appears where its code runs."""
    top, mark = tmp_path / "archive", tmp_path / "mark"
    shutil.copytree(honest, top / "run", ignore=shutil.ignore_patterns("checkpoints"))
    code = f"open({str(mark)!r}, 'w').close()\n" + PROGRAM
    for place in ("run", "other", "pack", "."):
        (top / place).mkdir(exist_ok=True)
        (top / place / "payload.py").write_text(code)
    (top / "pack" / "__init__.py").write_text(code)
    (top / "pack" / "inner.py").write_text(PROGRAM)
    (top / "link.py").symlink_to("run/payload.py")
    (top / "linked").symlink_to("run")
    np.save(top / "rows.npy", np.zeros((3, 64), "float32"))
    monkeypatch.chdir(top)
    monkeypatch.syspath_prepend("")
    before = set(sys.modules)
    yield top / "run", mark
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("run", "other", "pack", "linked", "payload", "link", "antigravity"):
            del sys.modules[name]


def name_code(folder, reference):
    config = json.loads((folder / "config.json").read_text())
    config["model"] = {"model": reference.format(cwd=os.getcwd())}
    (folder / "config.json").write_text(json.dumps(config))


def leave_unfinished(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    config["model"] = config["model"] | changes
    (folder / "unfinished.json").write_text(json.dumps(config))
    remove(folder / "checkpoints")  # of the run that ended


def remove(path):
    """A folder, where it is one and no link to one; else a file, where there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif not path.is_symlink():
        path.unlink(missing_ok=True)


def outside(folder):
    """All that is there beside the folder, and when it was changed."""
    found = [
        p
        for p in folder.parents[1].rglob("*")
        if folder not in (p, *p.parents) and "__pycache__" not in str(p)
    ]
    return {p: p.lstat().st_mtime_ns for p in found if p != folder.parent}


@pytest.mark.parametrize("script", SCRIPTS)
def test_no_script_runs_a_strangers_code(archive, capsys, script, monkeypatch):
    folder, mark = archive
    monkeypatch.setattr(os, "_exit", lambda *_: pytest.fail("os._exit was called"))
    for way, reference in WAYS.items():
        name_code(folder, reference)
        if script == "train --resume":
            leave_unfinished(folder)
        before = outside(folder)
        assert SCRIPTS[script]("run") == 2, way
        err = capsys.readouterr().err
        where = reference.partition(":")[0].rpartition("/")[2].format(cwd="")
        assert err.count("\n") == 1 and "--trust" in err and where in err, (way, err)
        assert not mark.exists() and outside(folder) == before, way


@pytest.mark.parametrize("script", INTO)
def test_no_script_goes_on_in_a_strangers_folder(archive, capsys, script):
    """Cells of a comparison or study that somebody else has laid there, as folders and as links out of them."""
    folder, mark = archive
    name_code(folder, "other/payload.py:build")
    name, main = INTO[script]
    cell = folder.parent / name
    shutil.copytree(folder, cell)
    assert main() == 2 and cell.name in capsys.readouterr().err
    shutil.rmtree(cell)
    cell.symlink_to(folder)
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert main() == 2
    assert not mark.exists() and {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before


def test_load_does_not_run_a_strangers_code(archive):
    folder, mark = archive
    for way, reference in WAYS.items():
        name_code(folder, reference)
        with pytest.raises(ValueError, match="trust=True"):
            pv.load(folder)
        assert not mark.exists(), way


def test_ones_own_code_opens_and_others_do_not(tmp_path, capsys, monkeypatch):
    """Trained with it: no question. Changed, copied, or another function of it: a question, which --trust answers."""
    mine, run = tmp_path / "mine.py", str(tmp_path / "mine")
    mine.write_text(PROGRAM)
    assert train.main(["--model", f"{mine}:build", "--out", run, "--epochs", "1", *FLAGS]) == 0
    ask = [run, "--num-samples", "5", "--limit", "9", *FLAGS]
    assert evaluate.main(ask) == 0
    pv.load(run)

    mine.write_text(PROGRAM + "\nother = build\n")  # as it may have been edited by whomever
    assert evaluate.main(ask) == 2
    assert "not what this user trained with" in capsys.readouterr().err
    assert evaluate.main([*ask, "--trust"]) == 0 and pv.load(run, trust=True).label[0] == f"{mine}:build"
    assert evaluate.main(ask) == 2  # consent is to one command
    mine.write_text(PROGRAM)
    assert evaluate.main(ask) == 0

    other = shutil.copytree(run, tmp_path / "other")
    (other / "mine.py").write_text(PROGRAM)
    for reference in (f"{other}/mine.py:build", f"{mine}:exec", "mine.py:build"):
        name_code(other, reference)
        with pytest.raises(pv.runs.NotTrusted, match="consent to run"):
            pv.load(other)
    with pytest.raises(pv.runs.NotTrusted):  # of another user
        monkeypatch.setenv("PYROVAE_STATE", str(tmp_path / "nobody"))
        pv.load(run)


def test_stored_evidence_is_of_the_code_that_computed_it(tmp_path):
    mine, run = tmp_path / "mine.py", str(tmp_path / "mine")
    mine.write_text(PROGRAM)
    assert train.main(["--model", f"{mine}:build", "--out", run, "--epochs", "1", *FLAGS]) == 0
    ask = [run, "--num-samples", "5", "--limit", "9", *FLAGS]
    mine.write_text(PROGRAM.replace("1.5", "0.5"))
    assert evaluate.main([*ask, "--trust"]) == 0
    other = pv.load(run, trust=True).stored_evidence
    mine.write_text(PROGRAM)
    loaded = pv.load(run)
    assert loaded.stored_evidence is None and "none yet" in repr(loaded)
    assert evaluate.main(ask) == 0
    own = pv.load(run).stored_evidence
    assert own["IS"].log_evidence != other["IS"].log_evidence
    mine.write_text(PROGRAM.replace("1.5", "0.5"))
    assert pv.load(run, trust=True).stored_evidence is None


def test_saving_is_ones_own_too(tmp_path):
    file = tmp_path / "saved.py"
    file.write_text(PROGRAM)
    data = pv.data.load("digits")
    scope = {}
    exec(PROGRAM, scope)
    fit = pv.fit(*scope["build"](data), data, epochs=1, compile=False)
    folder = pv.save(fit, tmp_path / "run", data=data, build=f"{file}:build")
    assert pv.load(folder).data.spec == data.spec


def test_an_unwritable_state_folder_costs_a_question(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PYROVAE_STATE", str(tmp_path / "file" / "state"))
    with pytest.warns(UserWarning, match="not recorded"):
        pv.runs.record_code("json:loads")
    with pytest.raises(pv.runs.NotTrusted):
        pv.runs.check_consent("json:loads", "run")


def test_a_user_without_a_home(monkeypatch):
    """As in containers: nothing is recorded, so that one's own code asks; and a place for data is asked for."""
    for name in ("PYROVAE_STATE", "XDG_STATE_HOME", "PYROVAE_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.warns(UserWarning, match="PYROVAE_STATE"):
        pv.runs.record_code("json:loads")
    with pytest.raises(pv.runs.NotTrusted):
        pv.runs.check_consent("json:loads", "run")
    with pytest.raises(ValueError, match="set HOME"):
        pv.data.load("mnist")


def test_resuming_asks_too(archive, capsys):
    """Named on the command line or trusted it runs; both are consent."""
    folder, mark = archive
    leave_unfinished(folder, model="other/payload.py:build")
    config = json.loads((folder / "unfinished.json").read_text())
    config["model"] = {"model": "other/payload.py:build"}
    (folder / "unfinished.json").write_text(json.dumps(config))
    argv = ["--out", "run", "--resume", *FLAGS]
    assert train.main(argv) == 2 and not mark.exists()
    assert "--trust" in capsys.readouterr().err
    assert train.main([*argv, "--trust"]) == 0 and mark.exists()
    assert evaluate.main(["run", "--num-samples", "5", "--limit", "5", *FLAGS]) == 0  # it is one's own now


@pytest.mark.parametrize("resumes", [False, True])
def test_a_folder_does_not_choose_where_data_are_put(archive, tmp_path, monkeypatch, resumes):
    """A root in a configuration is a hint to read; nothing is made or fetched there."""
    folder, _ = archive
    there, own = tmp_path / "there", tmp_path / "own"
    fetched = []
    monkeypatch.setattr(mnist, "_download", lambda reader, root, raw: fetched.append(root) or own.mkdir())
    monkeypatch.setenv("PYROVAE_DATA", str(own))
    for name in ("config.json", "unfinished.json"):
        config = json.loads((folder / "config.json").read_text())
        config["data"] |= {"data": "mnist", "root": str(there)}
        (folder / name).write_text(json.dumps(config))
    if resumes:
        assert train.main(["--out", "run", "--resume", *FLAGS]) == 2
    else:
        (folder / "unfinished.json").unlink()
        with pytest.raises((ValueError, FileNotFoundError)):
            pv.load(folder)
    assert not there.exists() and fetched == [own]


LINKS = {
    "score": ["scores.csv"],
    "evaluate": ["partial", "evidence.nc", "evidence.png", ".writable"],
    "train": [
        "checkpoints",
        "tensorboard",
        ".writable",
        ".lock",
        "metrics.csv",
        "weights.safetensors",
        "training.png",
    ],
}


@pytest.mark.parametrize(("script", "name"), [(s, n) for s, names in LINKS.items() for n in names])
def test_links_in_a_folder_lead_nowhere(archive, tmp_path, script, name):
    """A folder of a stranger's with links out of it: what they point to is neither written nor removed."""
    folder, _ = archive
    target = tmp_path / "precious"
    kept = {"checkpoint-000001.safetensors": b"mine", "a.claim-0": b"mine", "x.json": b"{}"}
    if "." in name:
        target.write_bytes(b"mine")
    else:
        target.mkdir()
        for file, content in kept.items():
            (target / file).write_bytes(content)
    remove(folder / name)
    (folder / name).symlink_to(target)
    before = outside(folder)
    if script == "evaluate":
        evaluate.main(["run", "--num-samples", "5", "--limit", "9", "--resume", *FLAGS])
    elif script == "score":
        assert score.main(["run", "rows.npy", "--num-samples", "5", "--out", f"run/{name}", *FLAGS]) == 0
    else:
        leave_unfinished(folder)
        train.main(["--out", "run", "--resume", "--tensorboard", *FLAGS])
        train.main(["--out", "run", "--overwrite", *QUICK])
    assert outside(folder) == before
    if target.is_dir():
        assert {p.name: p.read_bytes() for p in target.iterdir()} == kept
    else:
        assert target.read_bytes() == b"mine"


HARD = [
    "config.json",
    "gaps.json",
    "samples.npz",
    "partial/a.claim-0",
    "partial/.a.here",
    "partial/x.safetensors",
]
HARD += [
    "checkpoints/checkpoint-000001.safetensors",
    *(n for names in LINKS.values() for n in names if "." in n),
]


def test_hard_links_in_a_folder_lead_nowhere(archive, tmp_path):
    """Other names of the user's files, which tar makes: their content stays, and they are not truncated."""
    folder, _ = archive
    mine = tmp_path / "mine"
    mine.mkdir()
    kept = {}
    for number, name in enumerate(dict.fromkeys(HARD)):
        place, target = folder / name, mine / str(number)
        target.write_bytes(place.read_bytes() if place.exists() else b"mine")
        kept[target] = target.read_bytes()
        place.unlink(missing_ok=True)
        place.parent.mkdir(exist_ok=True)
        os.link(target, place)
    before = outside(folder)
    evaluate.main(["run", "--num-samples", "5", "--limit", "9", "--resume", *FLAGS])
    sample.main(["run", "--num", "2", "--only", "samples", *FLAGS])
    leave_unfinished(folder)
    train.main(["--out", "run", "--resume", "--tensorboard", *FLAGS])
    assert train.main(["--out", "run", "--overwrite", *QUICK]) == 0
    assert {p: p.read_bytes() for p in kept} == kept and outside(folder) == before


def test_dangling_links_make_nothing(archive, tmp_path):
    folder, _ = archive
    for name in (".writable", "partial", "checkpoints", "tensorboard", "samples.npz", ".lock"):
        remove(folder / name)
        (folder / name).symlink_to(tmp_path / f"made-{name}")
    sample.main(["run", "--num", "2", "--only", "samples", *FLAGS])
    evaluate.main(["run", "--num-samples", "5", "--limit", "9", "--resume", *FLAGS])
    leave_unfinished(folder)
    train.main(["--out", "run", "--resume", *FLAGS])
    assert not list(tmp_path.glob("made-*"))

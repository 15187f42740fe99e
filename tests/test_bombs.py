"""Small files that claim to be large: refused by their sizes, before any of it is read or inflated."""

import io
import json
import os
import shutil
import zipfile

import h5py
import numpy as np
import pytest
import torch

import pyrovae as pv
from pyrovae import files, runs
from pyrovae.inference import evaluate, train
from pyrovae.tensor_files import DamagedFile, read_tensors

from .small import EVALUATE, QUICK


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    assert train.main(["--out", str(folder), *QUICK]) == 0
    assert evaluate.main([str(folder), *EVALUATE]) == 0
    return folder


def header(shape, dtype="<f4"):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


def npz(path, *sizes):
    """Arrays of zeros, which deflate to a thousandth."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, rows in enumerate(sizes):
            archive.writestr(f"x{i}.npy", header((rows, 4)) + bytes(16 * rows))


def deflated(path):
    plain = io.BytesIO()
    torch.save(torch.zeros(100_000, 4), plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.infolist():
            archive.writestr(member.filename, source.read(member))


def sparse(path):
    """A file whose size is as claimed, of which nothing was written."""
    start = header((10**11, 4))
    path.write_bytes(start)
    os.truncate(path, len(start) + 16 * 10**11)


DATA = {
    "many.npz": lambda p: npz(p, 100_000),
    "several.npz": lambda p: npz(p, *[10_000] * 10),
    "claim.npz": lambda p: _zipped(p, header((10**12, 4)) + bytes(100)),
    "claim.npy": lambda p: p.write_bytes(header((10**12, 4)) + bytes(100)),
    "beyond.npy": lambda p: p.write_bytes(header((2**62, 2**62)) + bytes(100)),
    "wide.npy": lambda p: p.write_bytes(header((100, 4), "|S2000000000") + bytes(100)),
    "sparse.npy": sparse,
    "deflated.pt": deflated,
    "one.pt": lambda p: torch.save(torch.zeros(1).expand(10**12, 4), p),
    "one-of-several.pt": lambda p: torch.save({"x": torch.zeros(1).expand(10**12, 4)}, p),
}


def _zipped(path, content):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", content)


@pytest.mark.parametrize("name", DATA)
def test_data_that_would_fill_the_memory(tmp_path, capsys, monkeypatch, name):
    """One line that names the file; scaled down, so that nothing large is made here."""
    monkeypatch.setattr(files, "HARMLESS", 1 << 16, raising=False)
    try:
        DATA[name](tmp_path / name)
    except OSError as error:
        pytest.skip(f"no such file can be made here ({error})")
    argv = ["--data", str(tmp_path / name), "--out", str(tmp_path / "out"), *QUICK]
    assert train.main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and name in err and "expected" in err and not (tmp_path / "out").exists(), err
    with pytest.raises(ValueError, match=name):  # and no MemoryError, which the system may not give in time
        pv.data.load(tmp_path / name)


def test_honest_files_are_read(tmp_path):
    """Compressed ones too, and those of every format of numpy's headers."""
    x = np.random.default_rng(0).integers(0, 2, (600, 9)).astype("f4")
    np.savez_compressed(tmp_path / "a.npz", x=x)
    np.savez(tmp_path / "b.npz", x=x)
    np.save(tmp_path / "c.npy", x)
    torch.save(torch.from_numpy(x), tmp_path / "d.pt")
    for version in ((1, 0), (2, 0), (3, 0)):
        with (tmp_path / f"e{version[0]}.npy").open("wb") as file:
            np.lib.format.write_array(file, np.asfortranarray(x), version)
    found = [pv.data.load(p).spec.hash for p in sorted(tmp_path.iterdir())]
    assert len(found) == 7 and len(set(found)) == 1


def unwritten(group, name):
    del group[name]
    group.create_dataset(name, shape=(2 * 10**9,), dtype="f8", chunks=(1 << 20,), compression="gzip")


def elsewhere(group, name):
    del group[name]
    group.create_dataset(name, shape=(40,), dtype="f8", external=[("/dev/zero", 0, 320)])


def linked(group, name):
    del group[name]
    group[name] = h5py.ExternalLink("/dev/null", "/x")


def circle(group, name):
    group["again"] = group.file["/"]


def groups(group, name):
    for _ in range(200):
        group = group.create_group("g")


@pytest.mark.parametrize("change", [unwritten, elsewhere, linked, circle, groups])
def test_evidence_that_would_fill_the_memory_or_never_end(made, tmp_path, change):
    shutil.copy(made / "evidence.nc", tmp_path / "evidence.nc")
    with h5py.File(tmp_path / "evidence.nc", "r+") as file:
        change(file["sample_stats"], next(k for k in file["sample_stats"] if k.endswith("log_evidence")))
    with pytest.raises(ValueError, match="damaged or foreign"):
        runs.read_evidence(tmp_path / "evidence.nc")


def test_headers_of_weights_are_looked_at_before_the_file_is_read(tmp_path):
    file = tmp_path / "weights.safetensors"
    for size, error in ((10**9 + 8, DamagedFile), (1000, ValueError)):
        file.write_bytes(size.to_bytes(8, "little") + b"{}")
        os.truncate(file, 1 << 43)
        with pytest.raises(error, match="bytes"):
            read_tensors(file)


def test_tables_and_texts_of_any_size(made, tmp_path, capsys):
    run = shutil.copytree(made, tmp_path / "run")
    for name in ("metrics.csv", "sandwich.json", "gaps.json"):
        (run / name).touch()
        os.truncate(run / name, 1 << 40)
    assert evaluate.main([str(run), *EVALUATE]) == 0
    with pytest.raises(ValueError, match="bytes"):
        _ = pv.load(run, device="cpu").history
    os.truncate(run / "config.json", 1 << 40)
    assert evaluate.main([str(run), *EVALUATE]) == 2 and capsys.readouterr().err.count("\n") == 1


def test_code_that_never_ends(made, tmp_path, capsys):
    """A pipe or a device in the place of a code file, which would be hashed."""
    run = shutil.copytree(made, tmp_path / "run")
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "device.py").symlink_to("/dev/zero")
    config = json.loads((run / "config.json").read_text())
    for name in ("pipe.py", "device.py"):
        config["model"] = {"model": f"{tmp_path / name}:build"}
        (run / "config.json").write_text(json.dumps(config))
        assert evaluate.main([str(run), *EVALUATE]) == 2
        err = capsys.readouterr().err
        assert "--trust" in err and err.count("\n") == 1


def test_errors_are_not_of_any_length(tmp_path, capsys):
    np.savez(tmp_path / "names.npz", **{f"name{i}": np.zeros(1) for i in range(3000)})
    argv = ["--data", str(tmp_path / "names.npz"), "--out", str(tmp_path / "out"), *QUICK]
    assert train.main(argv) == 2
    err = capsys.readouterr().err
    assert len(err) < 2000 and "try to rename them" in err

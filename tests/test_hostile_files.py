"""Files that nobody of ours wrote: each is refused in one line, and no reader hangs, crashes or follows it."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import save

import pyrovae as pv
from pyrovae import runs
from pyrovae.inference import evaluate, gaps, sample, train
from pyrovae.json_files import parse_json, read_json
from pyrovae.tensor_files import hash_of_tensors

FLAGS = ["--device", "cpu", "--quiet"]
QUICK = ["--epochs", "1", "--hidden", "8", "--latent-dim", "2", "--compile", "off", *FLAGS]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "run"
    assert train.main(["--out", str(folder), *QUICK]) == 0
    return folder


@pytest.fixture
def run(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def said(capsys, main, argv):
    """Exit code, and what was said of an error."""
    capsys.readouterr()
    code = main(argv)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err and "internal" not in err, err
    assert not any(ord(c) < 32 and c not in "\n\t" for c in out + err)
    return code, err


# A file of the run, and what it holds: bytes, or changes of the config.
FILES = [
    ("config.json", {"model": {"model": "vae", "activation": "swish"}}),
    ("config.json", {"model": {"model": "vae", "prior": 3}}),
    ("config.json", {"model": {"model": "vae", "hidden": "wide"}}),
    ("config.json", {"model": {"model": "vae", "hidden": [0]}}),
    ("config.json", {"model": {"model": "vae", "hidden": [10**12]}}),
    ("config.json", {"model": {"model": "vae", "hidden": [10**30]}}),
    ("config.json", {"model": {"model": "vae", "latent_dim": True}}),
    ("config.json", {"model": {"model": "vae", "scale": "1"}}),
    ("config.json", {"model": {"model": ["vae"]}}),
    ("config.json", {"model": ["vae"]}),
    ("config.json", {"train": {"seed": -1}}),
    ("config.json", {"train": {"seed": 2**80}}),
    ("config.json", {"train": {"seed": "a"}}),
    ("config.json", {"data": {"data": "digits", "data_seed": "a"}}),
    ("config.json", {"data": {"data": "digits", "binarise": "sometimes"}}),
    ("config.json", {"data": {"data": ["digits"]}}),
    ("config.json", {"data": {"data": {"train": [1]}}}),
    ("config.json", {"data": {"data": 3}}),
    ("config.json", {"data": {"data": "digits\0"}}),
    ("config.json", {"data": {"data": "digits", "root": 3}}),
    ("config.json", {"spec": {"name": "digits"}}),
    ("config.json", {"spec": None}),
    ("config.json", {"spec.event_shape": [10**12]}),
    ("config.json", {"spec.event_shape": ["a"]}),
    ("config.json", {"spec.splits": {"train": -1}}),
    ("config.json", {"spec.splits": {}}),
    ("config.json", {"spec.splits": [1]}),
    ("config.json", {"spec.hash": 3}),
    ("config.json", {"spec.name": "mnist"}),
    ("config.json", {"spec.seed": 5}),
    ("config.json", {"spec.levels": 2}),
    ("config.json", {"spec.binarisation": "static"}),
    ("config.json", {"spec.support": ["levels"]}),
    ("config.json", "[" * 100_000),
    ("config.json", b"\xff\xfe"),
    ("config.json", "null"),
    ("config.json", {"program": ["\x1b]0;title\x07", "x"]}),
    ("weights.safetensors", b""),
    ("weights.safetensors", b"\xff" * 64),
    ("weights.safetensors", (2**62).to_bytes(8, "little") + b"{}"),
    ("weights.safetensors", (40).to_bytes(8, "little") + b"[" * 40),
    ("weights.safetensors", (2).to_bytes(8, "little") + b"{}"),
    ("weights.safetensors", (4).to_bytes(8, "little") + b"null"),
    ("config.json", {"model": {"model": "vae", "scale": float("nan")}}),
    ("config.json", {"data": {"data": "a/" * 5000 + "x.npy"}}),
    ("config.json", {"data": {"data": "~nobody-of-this-name/x.npy"}}),
    ("config.json", {"data": {"data": "/dev/zero"}}),
    ("config.json", {"data": {"data": "ising", "L": 64, "T": [2.0], "train_size": 10**9}}),
    ("config.json", {"data": {"data": "digits", "data_seed": 10**30}}),
    ("config.json", {"program": "\u202e"}),
    ("config.json", {"program": "a\nb"}),
    ("config.json", '{"format": 1, "x": ' + "[" * 900 + "]" * 900 + "}"),
    ("config.json", "9" * 5000),
    ("config.json", b"\xef\xbb\xbf{}"),
    ("config.json", "{}".encode("utf-16")),
    ("config.json", b"\0" * 100),
    ("weights.safetensors", b"\x80\x04c__builtin__\nexit\n."),
    ("weights.safetensors", (2**60).to_bytes(8, "little") + b"{}"),
]


def changed(content, changes):
    """The config with these options; `spec.splits` is one of the spec's."""
    config = json.loads(content)
    for key, value in changes.items():
        outer, _, inner = key.partition(".")
        if inner:
            config[outer][inner] = value
        else:
            within = isinstance(value, dict) and key != "spec"
            config[outer] = {**config[outer], **value} if within else value
    return json.dumps(config)


def test_files_with_what_this_version_does_not_know(run, capsys):
    """Unknown values, impossible sizes, huge headers, odd encodings: one line each."""
    wrong = []
    for name, change in FILES:
        whole = (run / name).read_bytes()
        new = changed(whole, change) if isinstance(change, dict) else change
        (run / name).write_bytes(new if isinstance(new, bytes) else new.encode())
        code, err = said(capsys, evaluate.main, [str(run), "--num-samples", "5", *FLAGS])
        wrong += [(name, str(change)[:80], code, err)] * (code != 2 or err.count("\n") != 1)
        (run / name).write_bytes(whole)
    assert not wrong, wrong


def weights_with(run, **about):
    """Rewrites the weights with a checksum that is right; `change` is made on the tensors."""
    file = run / "weights.safetensors"
    tensors, _ = runs.read_weights(file)
    tensors = about["change"](tensors)
    text = json.dumps({"format": 1, "kind": "weights", "sha256": hash_of_tensors(tensors)})
    file.write_bytes(save(tensors, {"pyrovae": about.get("text", text)}))


def first_as(make):
    def change(tensors):
        name = min(tensors)
        return tensors | {name: make(tensors[name])}

    return change


WEIGHTS = {
    "a missing one": lambda t: dict(list(t.items())[1:]),
    "one too many": lambda t: t | {"parameter:more": torch.zeros(3)},
    "of another kind": lambda t: t | {"other:more": torch.zeros(3)},
    "a name that acts": lambda t: t | {"parameter:\x1b[2J\nx": torch.zeros(3)},
    "a buffer that acts": lambda t: t | {"buffer:\x1b[2J\nx": torch.zeros(3)},
    "another shape": first_as(lambda v: v.flatten()[:-1]),
    "a scalar": first_as(lambda v: torch.tensor(1.0)),
    "none": lambda t: {},
    "of whole numbers": first_as(lambda v: v.long()),
    "of truths": first_as(lambda v: v.bool()),
    "not finite": first_as(lambda v: v + torch.inf),
    "no numbers": first_as(lambda v: v * torch.nan),
}


def test_weights_of_something_else(made, tmp_path, capsys):
    """Their checksum is right: a stranger can compute one, too."""
    wrong = []
    for number, (kind, change) in enumerate(WEIGHTS.items()):
        run = shutil.copytree(made, tmp_path / str(number))
        weights_with(run, change=change)
        code, err = said(capsys, evaluate.main, [str(run), "--num-samples", "5", "--limit", "5", *FLAGS])
        wrong += [(kind, code, err)] * (code != 2 or err.count("\n") != 1)
    run = shutil.copytree(made, tmp_path / "deep")
    weights_with(run, change=dict, text="[" * 100_000)
    code, err = said(capsys, evaluate.main, [str(run), "--num-samples", "5", *FLAGS])
    wrong += [("deep", code, err)] * (code != 2 or err.count("\n") != 1)
    assert not wrong, wrong


def a_pipe(path):
    os.mkfifo(path)


def a_folder(path):
    path.mkdir()
    (path / "x").write_text("x")


def a_loop(path):
    path.symlink_to(path.name)


def a_device(path):
    path.symlink_to("/dev/zero")


NEEDED = ("config.json", "weights.safetensors")
OTHERS = ("metrics.csv", "evidence.nc", "sandwich.json", "gaps.json", "partial", "unfinished.json", ".lock")


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="there are no pipes and devices in folders here")
@pytest.mark.parametrize("make", [a_pipe, a_folder, a_loop, a_device])
def test_what_is_no_file(made, tmp_path, capsys, make):
    """A pipe that nobody writes to, a device without an end, a loop: nothing waits for them."""
    wrong = []
    for name in (*NEEDED, *OTHERS):
        run = tmp_path / name
        shutil.copytree(made, run)
        if name == "partial":
            (run / "partial").mkdir()
            target = run / "partial" / "0.json"
        else:
            target = run / name
        target.unlink(missing_ok=True)
        make(target)
        small = ["--num-samples", "5", "--limit", "5", "--compile", "off", *FLAGS]
        for main, argv in (
            (evaluate.main, [str(run), *small, "--resume"]),
            (evaluate.main, [str(run), "--status"]),
            (train.main, ["--out", str(run), *QUICK]),
        ):
            code, err = said(capsys, main, argv)
            is_one = err.count("\n") == 1 if code else not err
            well = code in (1, 2) if name in NEEDED and main is evaluate.main and len(argv) > 3 else True
            wrong += [(name, argv[1:3], code, err)] * (not is_one or not well)
    assert not wrong, wrong


def test_a_folder_where_a_file_belongs_is_told_before_the_work(tmp_path, capsys, monkeypatch):
    (tmp_path / "run" / "weights.safetensors").mkdir(parents=True)
    monkeypatch.setattr(pv, "fit", lambda *_, **__: pytest.fail("work was done"))
    code, err = said(capsys, train.main, ["--out", str(tmp_path / "run"), *QUICK])
    assert code == 2 and "weights.safetensors" in err and err.count("\n") == 1


def test_links_that_go_round(tmp_path, capsys):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    for main in (evaluate.main, gaps.main, sample.main):
        code, err = said(capsys, main, [str(loop), *FLAGS])
        assert code == 2 and err.count("\n") == 1, err


def test_json_of_any_depth_and_size(tmp_path):
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for text in ("[" * 101 + "]" * 101, "[" * 10**6, '{"a":' * 10**5, "[", b"\xff"):
        with pytest.raises(ValueError):
            parse_json(text)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path)
    huge = tmp_path / "huge.json"
    huge.touch()
    os.truncate(huge, 1 << 40)
    with pytest.raises(ValueError, match="bytes"):
        read_json(huge)


def test_names_that_act_on_a_terminal_are_refused(tmp_path, capsys, run):
    for name in ("a\nb", "\x1b]0;title\x07", "a\u202eb", "\x9b2J"):
        folder = shutil.copytree(run, tmp_path / name)
        code, err = said(capsys, evaluate.main, [str(folder), *FLAGS])
        assert code == 2 and "without control characters" in err and err.count("\n") == 1, err
        code, err = said(capsys, train.main, ["--out", str(tmp_path / "out" / name), *QUICK])
        assert code == 2 and not (tmp_path / "out").exists()


def test_labels_of_files_do_not_act(run, capsys):
    loaded = pv.load(run, device="cpu")
    ev = pv.evidence(
        loaded.model, loaded.guide, loaded.data.test[:20], estimators=[pv.IS(5)], label="a\x1b[2J\rb"
    )
    runs.write_evidence(ev, run / "evidence.nc")
    found = runs.read_evidence(run / "evidence.nc")
    assert found.attributes["label"] == r"a\x1b[2J\rb" and "\x1b" not in found.table()

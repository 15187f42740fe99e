"""Help of the command line: a screenful first, everything on demand, and a hint after a slip."""

import subprocess
import sys
from dataclasses import fields, is_dataclass
from typing import get_type_hints

import pytest

from pyrovae.inference import cli, compare, evaluate, gaps, train
from pyrovae.inference.options.helping import called, parse
from tests.test_command_lines import MAINS

SHORTENED = {"train": train, "compare": compare, "evaluate": evaluate, "gaps": gaps}
MOST = 60  # lines of --help


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


def said(argv, capsys, code=0):
    """Text of `pyrovae ARGV`, before it ends with a code."""
    try:
        ended = cli.main(argv)
    except SystemExit as end:
        ended = end.code
    assert ended == code, argv
    return "".join(capsys.readouterr())


def flags(options):
    """Every option's name as it is typed."""
    for name, hint in get_type_hints(options).items():
        if name in {f.name for f in fields(options)}:
            yield from flags(hint) if is_dataclass(hint) else [name]


@pytest.mark.parametrize("asked", ["-h", "--help"])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_is_a_screenful(name, asked, capsys):
    text = said([name, asked], capsys)
    assert text.startswith(f"usage: pyrovae {name} ") and 10 < text.count("\n") <= MOST
    assert name not in SHORTENED or max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("asked", ["--help-all", "--help_all"])
@pytest.mark.parametrize("name", SHORTENED)
def test_help_all_shows_every_option(name, asked, capsys):
    options, words = SHORTENED[name].Options, set(said([name, asked], capsys).replace(",", " ").split())
    named = set(flags(options)) - {"folder", "folders"}
    assert {f"--{flag.replace('_', '-')}" for flag in named} <= words
    assert set(options.BASIC) <= set(flags(options)), "an option of the short help that is none"
    short = set(said([name, "--help"], capsys).split())
    for flag in named:
        assert (f"--{flag.replace('_', '-')}" in short) == (flag in options.BASIC), flag


def test_the_short_help_says_kind_choices_and_default(capsys):
    lines = {line.split()[0]: line for line in said(["train", "--help"], capsys).splitlines() if line.strip()}
    assert lines["--epochs"] == "  --epochs INT       Passes over the training data. (default: 100)"
    assert lines["--hidden"].startswith("  --hidden INT ...   Hidden widths")
    assert "Encoder and decoder (default mlp): mlp, gated, conv," in lines["--network"]
    assert "usage: pyrovae evaluate FOLDERS [options]" in said(["evaluate", "--help"], capsys)


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--diffusion-step", "3"], "--diffusion-steps"),  # not in the short help
        (["train", "--gibbs_chain", "3"], "--gibbs-chains"),
        (["compare", "--flow-hiden", "3"], "--flow-hidden"),
        (["evaluate", "runs/a", "--partition-chain", "3"], "--partition-chains"),
        (["gaps", "runs/a", "--leapfrogs", "3"], "--leapfrog"),
        (["trian"], "try pyrovae train"),
        (["free-enegry"], "try pyrovae free_energy"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(argv, hint, capsys):
    assert hint in said(argv, capsys, code=2)


@pytest.mark.parametrize("flag", ["--batch-size", "--batch_size"])
def test_hyphens_and_underscores_are_the_same(flag):
    assert parse(train.Options, [flag, "7"], "train", "").train.batch_size == 7


@pytest.mark.parametrize("name", ["free-energy", "free_energy", "rbm-study", "rbm_study"])
def test_commands_are_written_either_way(name, capsys):
    assert f"usage: pyrovae {name.replace('-', '_')}" in said([name, "--help"], capsys)


@pytest.mark.parametrize(("argv", "code"), [([], 2), (["--help"], 0)])
def test_the_map_has_an_example_of_each_command(argv, code, capsys):
    text = said(argv, capsys, code)
    for name, (_, example) in cli.COMMANDS.items():
        assert f"  pyrovae {name} {example}\n" in text


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_examples_are_understood(name):
    options = sys.modules[MAINS[name].__module__].Options
    parse(options, cli.COMMANDS[name][1].split(), name, "")


@pytest.mark.parametrize(
    ("word", "usage"),
    [
        ("/somewhere/bin/pyrovae", "pyrovae train"),
        ("inference/train.py", "python inference/train.py"),
        ("-c", "pyrovae train"),
    ],
)
def test_usage_is_in_the_words_of_the_call(word, usage, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [word])
    assert called("train") == usage
    assert f"usage: {usage} " in said(["train", "--help"], capsys)
    assert f"usage: {usage} " in said(["train", "--help-all"], capsys)


def test_the_map_needs_no_torch():
    program = "import sys; from pyrovae.inference import cli; cli.main(['--help']); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.DEVNULL)

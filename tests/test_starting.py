"""Ctrl-C before there is anything to keep, and a screen on which nothing acts but what we draw."""

import io
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from pyrovae.inference import cli
from pyrovae.inference.running.running import Screen, progress
from pyrovae.inference.running.streams import Patient
from pyrovae.text import has_controls, visible

SCRIPTS = Path(cli.__file__).parent
WAYS = {
    "script": [str(SCRIPTS / "evaluate.py")],
    "module": ["-m", "pyrovae.inference.evaluate"],
    "command": [str(Path(sys.executable).with_name("pyrovae")), "evaluate"],
}


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
@pytest.mark.parametrize("way", WAYS)
def test_an_interrupt_while_torch_is_imported_is_one_line(way, number, word):
    process = subprocess.Popen([sys.executable, *WAYS[way], "nowhere"], stderr=subprocess.PIPE, text=True)
    maps = Path(f"/proc/{process.pid}/maps")
    while maps.exists() and "libtorch" not in maps.read_text() and process.poll() is None:
        time.sleep(0.01)  # until it is in the middle of it
    process.send_signal(number)
    assert process.communicate(timeout=120)[1] == f"{word}\n"
    assert process.returncode == 128 + number


PARSING = """
import os, signal, sys
import pyrovae.inference.evaluate as evaluate
from pyrovae.inference.options import helping

helping.tyro.cli = lambda *_, **__: os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(evaluate.main(["nowhere"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals")
@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated")])
def test_an_interrupt_while_options_are_parsed_is_one_line(tmp_path, number, word):
    (tmp_path / "pyrovae").write_text(PARSING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "pyrovae"), str(int(number))], capture_output=True, text=True
    )
    assert done.returncode == 128 + number and done.stderr == f"{word}\n", done


def test_every_script_hears_it():
    """Each has the line that hands over to the command, which is there before torch is."""
    for name in cli.COMMANDS:
        lines = (SCRIPTS / f"{name}.py").read_text().splitlines()
        first = next(
            i for i, line in enumerate(lines) if line.startswith('if __name__ == "__main__" and not')
        )
        assert f'["{name}", *sys.argv[1:]]' in lines[first + 1]
        before = {w.split()[1].partition(".")[0] for w in lines[:first] if w.startswith(("import ", "from "))}
        assert before <= sys.stdlib_module_names, before


def test_what_merely_imports_pyrovae_keeps_its_signals():
    program = "import signal; was = signal.getsignal(2); import pyrovae; assert signal.getsignal(2) is was"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\nb", "a\rb", "\x9b1A", "\u202eabc", "\u2028", "\ud800", "\x07"]
)
def test_text_that_acts_is_written_out(text):
    assert has_controls(text) and visible(text).isprintable() and not has_controls(visible(text))


@pytest.mark.parametrize("text", ["läuft", "k̂ ≥ 0.7", "[bold]", "数字", "a b", "👩\u200d👩", ""])
def test_text_that_is_seen_stays(text):
    assert not has_controls(text) and visible(text) == text


def test_only_what_we_draw_acts():
    """Printed or shown, in a terminal or not: escape sequences of others are written out, colours of rich's stay."""
    raw = io.StringIO()
    stream = Patient(raw)
    print("a\x1b]0;title\x07b", file=stream)
    assert raw.getvalue() == "a\\x1b]0;title\\x07b\n"
    screen = Screen(
        file=stream.rich_proxied_file, force_terminal=True, color_system="standard", highlight=False
    )
    screen.print("\x1b[2Jred", style="red")
    assert raw.getvalue().count("\x1b") == 2 and "\\x1b[2Jred" in raw.getvalue()


def test_an_error_before_the_first_step_stands_alone(monkeypatch):
    """No dead bar above it."""
    raw = io.StringIO()
    monkeypatch.setattr("pyrovae.inference.running.running.console", Console(file=raw, width=100))
    with pytest.raises(ValueError, match="wrong"), progress(False, "epochs", 3):
        raise ValueError("wrong")
    assert not raw.getvalue().strip()
    with pytest.raises(ValueError, match="late"), progress(False, "epochs", 3) as update:
        update(completed=1)
        raise ValueError("late")
    assert "1/3" in raw.getvalue()


def test_the_package_is_a_command(monkeypatch):
    """`python -m pyrovae`, for whom the command is not on the path."""
    from pyrovae import starting

    done = subprocess.run([sys.executable, "-m", "pyrovae", "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.startswith("usage: pyrovae COMMAND")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", None, raising=False)
    for module, command in (("pyrovae", True), ("pyrovae.inference.train", True), ("pytest", False)):
        monkeypatch.setattr(sys, "argv", ["-m"])
        monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", module])
        assert starting._is_command() == command


def test_a_worker_is_no_command(monkeypatch):
    """It has the arguments of `compare`, ends by SIGTERM when all is done, and said "terminated" under the table."""
    from pyrovae import starting

    monkeypatch.setattr(sys.modules["__main__"], "__file__", "/somewhere/bin/pyrovae", raising=False)
    assert starting._is_command()
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", "spawn_main()", "--multiprocessing-fork"])
    assert not starting._is_command()

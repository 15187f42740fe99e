"""`make gpu`, rehearsed: it says where there is no GPU, and each of its checks runs in small on a CPU."""

import json

import pytest
import torch

from .gpu import __main__ as command
from .gpu.checks import CHECKS

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_says_so_and_runs_nothing(capsys, tmp_path):
    assert command.main(["--out", str(tmp_path)]) == 0
    assert "No CUDA device" in capsys.readouterr().out and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", CHECKS)
def test_each_check_is_met_in_small(interpreted, name):
    check, limit = CHECKS[name]
    assert limit <= command.TOTAL
    for what, _, met in check(CPU, True):
        assert met is not False, what


def test_a_step_that_fails_or_hangs_costs_itself(monkeypatch, tmp_path, capsys):
    import sys

    bodies = {
        "svi": "print('FINDING [\"a figure\", 1.5, true]', flush=True); print('FINDING [\"off\", 2.0, false]')",
        "training": "import time; print('FINDING [\"begun\", 1, null]', flush=True); time.sleep(60)",
        "tf32": "raise SystemExit('illegal memory access')",
    }
    monkeypatch.setattr(command, "command", lambda name, *_: [sys.executable, "-c", bodies[name]])
    monkeypatch.setitem(command.LIMITS, "training", 1.0)
    chosen = [word for name in bodies for word in ("--only", name)]
    assert command.main([*chosen, "--device", "cpu", "--quick", "--out", str(tmp_path)]) == 1
    kept = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert [f["met"] for f in kept["svi"]["findings"]] == [True, False]
    assert kept["training"]["failed"] == "not done within 1 s" and kept["training"]["findings"]
    assert "illegal memory access" in kept["tf32"]["failed"]
    assert "**missed**" in (tmp_path / "gpu.md").read_text() and "MISSED svi: off" in capsys.readouterr().out

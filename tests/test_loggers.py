"""Rows of a history, sent to TensorBoard, MLflow and Weights & Biases."""

import math
import sys
from types import SimpleNamespace

import pytest

from pyrovae.training import mlflow_writer, tensorboard_writer, wandb_writer


def test_tensorboard(tmp_path):
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        with pytest.raises(ImportError, match=r"pyrovae\[tensorboard\]"):
            tensorboard_writer(tmp_path)
        return
    tensorboard_writer(tmp_path)({"epoch": 1, "elbo": -3.0, "valid_elbo": math.nan})
    assert any("tfevents" in p.name for p in tmp_path.iterdir())


def test_mlflow_and_wandb(monkeypatch):
    """Stand-ins with the signatures of both: `log_metrics(metrics, step, run_id)`, `run.log(data, step)`."""
    row = {"epoch": 3, "elbo": -3.0, "valid_elbo": -4.0, "kl": math.nan}
    logged, expected = [], {"elbo/train": -3.0, "elbo/valid": -4.0}
    run = SimpleNamespace(
        info=SimpleNamespace(run_id="r1"), log=lambda data, step=None: logged.append((data, step))
    )
    wandb_writer(run)(row)
    standin = SimpleNamespace(
        log_metrics=lambda metrics, step=None, run_id=None: logged.append((metrics, step, run_id))
    )
    monkeypatch.setitem(sys.modules, "mlflow", standin)
    mlflow_writer()(row)
    mlflow_writer(run)(row)
    assert logged == [(expected, 3), (expected, 3, None), (expected, 3, "r1")]
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ImportError, match="pip install mlflow"):
        mlflow_writer()

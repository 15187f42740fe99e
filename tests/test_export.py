"""Evidence in ArviZ's containers and on disk: nothing is lost on the way."""

import json
import math
from dataclasses import replace

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
import xarray

import pyrovae as pv
from pyrovae.export import evidence_to_arviz
from pyrovae.export.containers import load_arviz
from pyrovae.runs import write_evidence

arviz = load_arviz()
N, K = 12, 40


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Normal(z.unsqueeze(-2), 0.5).expand([len(x), 3, 2]).to_event(2), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(0.9 * x.mean(1), 0.4).to_event(1))


@pytest.fixture(scope="module")
def ev():
    x = torch.randn(N, 3, 2, generator=torch.Generator().manual_seed(0))
    return pv.evidence(model, guide, x, estimators=[pv.ELBO(), pv.IS(K)])


def groups(tree):
    """Group name to data set, for both of ArviZ's containers."""
    if isinstance(tree, xarray.DataTree):
        return {name: child.to_dataset() for name, child in tree.children.items()}
    return {name: tree[name] for name in tree.groups()}


def test_the_container_is_that_of_the_installed_arviz(ev):
    tree = ev.to_arviz()
    kind = "InferenceData" if int(arviz.__version__.split(".")[0]) < 1 else "DataTree"
    assert type(tree).__name__ == kind
    assert set(groups(tree)) == {"observed_data", "sample_stats"}


def test_every_figure_is_in_its_variable(ev):
    tree = groups(evidence_to_arviz(ev))
    x = tree["observed_data"]["x"]
    assert x.dims == ("datum", "event_0", "event_1")
    np.testing.assert_array_equal(x, ev.x)
    stats = tree["sample_stats"]
    for name in ("ELBO", "IS"):
        for variable, tensor in (
            ("log_evidence", ev[name].per_datum),
            ("variance", ev[name].variance),
            ("bias", ev[name].bias),
        ):
            assert stats[f"{name}_{variable}"].dims == ("datum",)
            np.testing.assert_array_equal(stats[f"{name}_{variable}"], tensor)
    np.testing.assert_array_equal(stats["ess"], ev["IS"].ess)
    np.testing.assert_array_equal(stats["pareto_k"], ev["IS"].khat)
    np.testing.assert_array_equal(stats["num_samples"], list(ev["IS"].curve))
    assert stats["lk_curve"].dims == ("num_samples",)
    for k, value in ev["IS"].curve.items():
        assert float(stats["lk_curve"].sel(num_samples=k)) == value
    assert stats["IS_variance"].attrs["units"] == "nats^2" and stats["lk_curve"].attrs["units"] == "nats"
    assert set(map(str, stats.data_vars)) == {
        *(
            f"{n}_{v}"
            for n in ("ELBO", "IS")
            for v in ("log_evidence", "variance", "bias", "detail_rounding")
        ),
        *("ess", "pareto_k", "lk_curve", "IS_detail_tail_allowance"),
    }


def test_attributes_say_what_the_report_says(ev):
    attributes = evidence_to_arviz(ev).attrs
    assert set(ev.attributes) <= set(attributes)
    assert attributes["data_hash"] == ev.attributes["data_hash"] and attributes["seed"] == 0
    assert attributes["IS_mean"] == ev["IS"].log_evidence
    assert attributes["IS_se_data"] == ev["IS"].se_data and attributes["IS_se_mc"] == ev["IS"].se_mc
    assert attributes["IS_certificate"] == ev["IS"].certificate
    assert "ELBO_certificate" not in attributes and "ELBO_bias_indicator" not in attributes
    assert attributes["verdict"] == ev.verdict
    assert ev.warnings and attributes["warnings"].split("\n") == ev.warnings
    assert attributes["arviz"] == arviz.__version__ and attributes["inference_library"] == "pyrovae"
    assert attributes["torch"] == torch.__version__ and type(attributes["torch"]) is str


@pytest.mark.parametrize("warnings", [None, []])
def test_a_file_reads_back_equal(ev, warnings, tmp_path):
    if warnings is not None:
        ev = replace(ev, warnings=warnings)
    path = tmp_path / "evidence.nc"
    write_evidence(ev, path)
    assert [p.name for p in tmp_path.iterdir()] == ["evidence.nc"]
    written, read = evidence_to_arviz(ev), arviz.from_netcdf(path)
    assert dict(read.attrs) == written.attrs
    assert set(groups(read)) == set(groups(written))
    for name, data in groups(written).items():
        xarray.testing.assert_identical(groups(read)[name].load(), data)
    # Without ArviZ, too.
    with xarray.open_datatree(path, engine="h5netcdf") as tree:
        np.testing.assert_array_equal(tree["sample_stats/IS_log_evidence"], ev["IS"].per_datum)


def test_odd_values_are_written_as_what_netcdf_knows(ev, tmp_path):
    odd = {
        "none": None,
        "flag": np.bool_(True),
        "path": {"a": [1, None]},
        "seed": 2**64 - 1,
        "figure": np.float32(0.5),
        "inf": -math.inf,
    }
    path = tmp_path / "e.nc"
    write_evidence(replace(ev, attributes={**ev.attributes, **odd}), path)
    attributes = arviz.from_netcdf(path).attrs
    assert "none" not in attributes
    assert (attributes["flag"], attributes["seed"], attributes["figure"]) == (1, str(2**64 - 1), 0.5)
    assert json.loads(attributes["path"]) == odd["path"] and attributes["inf"] == -math.inf


def test_further_estimators_with_weights_keep_their_own_names(ev, tmp_path):
    other = replace(ev["IS"], name="Rényi(0.5)/k", curve={1: -9.0, 3: -8.0})
    both = replace(ev, estimates={**ev.estimates, other.name: other})
    write_evidence(both, tmp_path / "e.nc")
    stats = groups(arviz.from_netcdf(tmp_path / "e.nc"))["sample_stats"]
    name = "Rényi_0_5_k"
    assert {f"{name}_ess", f"{name}_pareto_k", f"{name}_lk_curve", "ess"} <= set(map(str, stats.data_vars))
    assert float(stats[f"{name}_lk_curve"].sel(num_samples=3)) == -8.0
    assert math.isnan(stats["lk_curve"].sel(num_samples=3))
    clash = replace(both, estimates={"A(1)": ev["IS"], "A/1": ev["IS"]})
    with pytest.raises(ValueError, match="differ in letters or digits"):
        evidence_to_arviz(clash)


def test_an_elbo_alone_has_no_weights_to_report(ev):
    alone = replace(ev, estimates={"ELBO": ev["ELBO"]})
    stats = groups(evidence_to_arviz(alone))["sample_stats"]
    assert set(map(str, stats.data_vars)) == {
        *(f"ELBO_{v}" for v in ("log_evidence", "variance", "bias", "detail_rounding"))
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.bool, torch.int64])
def test_data_of_any_type_are_kept(ev, dtype, tmp_path):
    x = ev.x.to(dtype)
    write_evidence(replace(ev, x=x), tmp_path / "e.nc")
    read = groups(arviz.from_netcdf(tmp_path / "e.nc"))["observed_data"]["x"]
    np.testing.assert_array_equal(read, x.double() if dtype == torch.bfloat16 else x)


def test_a_failing_write_leaves_the_former_file_and_nothing_else(ev, tmp_path):
    path = tmp_path / "e.nc"
    path.write_bytes(b"former")
    # The failure comes in the middle: attributes are written, and then text that HDF5 cannot hold.
    with pytest.raises((ValueError, UnicodeEncodeError, TypeError)):
        write_evidence(replace(ev, warnings=["\ud800"]), path)
    assert [p.name for p in tmp_path.iterdir()] == ["e.nc"] and path.read_bytes() == b"former"
    with pytest.raises(FileNotFoundError):
        write_evidence(ev, tmp_path / "none" / "e.nc")

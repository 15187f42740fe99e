# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Your own table
#
# A table of numbers, such as a `.csv` file with a header row, a data frame or an array: which likelihood suits it, which
# rows are unlike the others, and what do two latents say of it? The table here is of 178 wines, thirteen measured
# quantities each.

# %%
# %matplotlib inline
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_wine

import pyrovae as pv
from pyrovae.models.vae import VAE

wine = load_wine()
file = Path(tempfile.mkdtemp()) / "wine.csv"
np.savetxt(file, wine.data, delimiter=",", header=",".join(wine.feature_names), comments="")
data = pv.data.load(file)
data

# %% [markdown]
# ## Units
#
# Columns have units of their own, from thousandths to hundreds. The networks want numbers near one, so they are given
# standardised columns; the likelihood is of the data **as they are**. The same could be had by scaling the table: then
# `ln p` of the table as given is that of the scaled one less $\sum_j \ln s_j$, and forgetting that term is an error of
# many nats:

# %%
loc, scale = data.train.mean(0), data.train.std(0)
print(f"ln p of the scaled table is {float(scale.log().sum()):.1f} nats away from that of the table itself")

scaled = pv.data.load({name: (data.split(name) - loc) / scale for name in ("train", "valid", "test")})


def build(likelihood, latent_dim=2):
    def make(data):
        return VAE(
            prior=pv.priors.StandardNormal(latent_dim),
            likelihood=likelihood(pv.networks.MLP(latent_dim, (32,), data.train.shape[1])),
            guide=pv.guides.DiagonalGaussian(pv.networks.MLP(data.train.shape[1], (32,)), latent_dim),
        )

    return make


# %% [markdown]
# ## Which likelihood?
#
# A Gaussian of one learned scale for each column, or a Student t with learned degrees of freedom, which forgives
# outliers? Both are densities of the same scaled table, so their evidence can be compared. With so few test rows the error over
# data is what decides how much can be said.

# %%
result = pv.compare(
    {
        "Gaussian": build(lambda net: pv.likelihoods.Gaussian(net, learn_scale=True, event_shape=(13,))),
        "Student t": build(lambda net: pv.likelihoods.StudentT(net, event_shape=(13,))),
    },
    scaled,
    epochs=100,
    lr=3e-3,
    seeds=2,
    estimators=(pv.ELBO(), pv.IS(1000)),
    progress=False,
)
result

# %% [markdown]
# ## Evidence with two sides
#
# Two latents and few rows: `pv.Adaptive` takes as many draws as each row needs, and gives two-sided figures.

# %%
fit = result.best.at(0).fit
ev = fit.evidence(scaled.test, estimators=[pv.IS(1000), pv.Adaptive(0.05)], progress=False)
in_units = ev["Adaptive"].log_evidence - float(scale.log().sum())
print(f"mean ln p of a row of the table as given: {in_units:.2f} nats, a density in its own units")
assert ev["Adaptive"].log_evidence >= ev["IS"].log_evidence - 4 * (ev["IS"].se_mc + ev["Adaptive"].se_mc)
ev

# %% [markdown]
# ## Rows unlike the others
#
# The evidence of each row says how surprising it is to the model, outliers first:

# %%
by_row = ev["Adaptive"].per_datum
for i in by_row.argsort()[:3].tolist():
    row = scaled.test[i]
    odd = row.abs().argmax()
    print(
        f"test row {i}: ln p = {by_row[i]:.1f}; {wine.feature_names[odd]} is {float(row[odd]):+.1f} spreads off"
    )
assert by_row.min() < by_row.median() - 2

# %% [markdown]
# ## What the latents say
#
# The model was not told the three cultivars; its two latents find them. Held against the classes by the nearest
# neighbour in the plane:

# %%
everything = torch.cat([scaled.split(name) for name in ("train", "valid", "test")])
order = torch.cat([data.rows[name] for name in ("train", "valid", "test")])
labels = torch.tensor(wine.target)[order]
codes = fit.embed(everything)
distances = torch.cdist(codes, codes).fill_diagonal_(torch.inf)
agreement = float((labels[distances.argmin(1)] == labels).float().mean())
print(f"{agreement:.0%} of the wines have a neighbour of their own cultivar")
assert agreement > 0.8

figure, ax = plt.subplots(figsize=(4.6, 3.0), layout="constrained")
for k in range(3):
    ax.plot(*codes[labels == k].T, "os^"[k], markersize=4, alpha=0.8, label=f"cultivar {k}")
ax.set(xlabel="first latent", ylabel="second latent")
figure.legend(loc="outside right upper", frameon=False)
plt.show()

# %% [markdown]
# From a shell: `pyrovae train --data wine.csv --out runs/wine`, then `pyrovae evaluate runs/wine`.

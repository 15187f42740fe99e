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
# # Your own Pyro pair
#
# Any Pyro `model` and `guide` with one plate over the data can be trained and evaluated: nothing has to be inherited from
# or registered. This page writes a pair for counts, gets it wrong in three ways that are easy to get wrong, and looks at
# what is said of each.

# %%
# %matplotlib inline
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch

import pyrovae as pv

pv.seed(0)
rate = torch.distributions.LogNormal(1.0, 0.7).sample((400,))
counts = torch.poisson(rate * torch.tensor([1.0, 1.0, 2.0]).unsqueeze(-1)).T  # three exposures of each object
counts.shape, counts[:3]

# %% [markdown]
# ## A model and a guide
#
# Each object has a rate; it is seen three times, the third time twice as long. Population parameters are learned, and
# the guide is a Gaussian of ln rate whose mean and scale come from the three counts.

# %%
exposure = torch.tensor([1.0, 1.0, 2.0])


def model(counts):
    mean = pyro.param("mean", torch.tensor(0.0))
    scale = pyro.param("scale", torch.tensor(1.0), constraint=dist.constraints.positive)
    with pyro.plate("data", len(counts)):
        log_rate = pyro.sample("log_rate", dist.Normal(mean, scale))
        expected = exposure * log_rate.exp().unsqueeze(-1)
        pyro.sample("counts", dist.Poisson(expected).to_event(1), obs=counts)


def guide(counts):
    shift = pyro.param("shift", torch.tensor(0.5), constraint=dist.constraints.positive)
    width = pyro.param("width", torch.tensor(1.0), constraint=dist.constraints.positive)
    total = counts.sum(-1)
    with pyro.plate("data", len(counts)):
        loc = ((total + shift) / exposure.sum()).log()
        pyro.sample("log_rate", dist.Normal(loc, width / (total + shift).sqrt()))


fit = pv.fit(model, guide, counts[:300], epochs=40, lr=0.02, batch_size=50, seed=0)
with fit.store.active():
    learned = {name: float(pyro.param(name).detach()) for name in ("mean", "scale")}
print(learned, "drawn with 1.0 and 0.7")
assert abs(learned["mean"] - 1.0) < 0.2 and abs(learned["scale"] - 0.7) < 0.15

# %% [markdown]
# ## Its evidence
#
# With one latent number per object ln p(x) can be integrated: `pv.Exact()` has it without being told how, and everything
# else can be held against it.

# %%
held_out = counts[300:]
ev = fit.evidence(
    held_out, estimators=[pv.ELBO(), pv.IS(1000), pv.Jackknife(1000), pv.AIS(20, 16), pv.Exact()]
)
exact = ev["Exact"].log_evidence
assert ev["ELBO"].log_evidence <= exact
assert abs(ev["IS"].log_evidence - exact) < 4 * ev["IS"].se_mc + 1e-3
ev

# %% [markdown]
# The weights of the guide are even (see ESS), so importance sampling has hardly anything to lose; the ELBO has. Per
# object:

# %%
figure, ax = plt.subplots(figsize=(3.6, 2.6), layout="constrained")
for name, marker in (("ELBO", "v"), ("IS", "o")):
    ax.plot(
        ev["Exact"].per_datum, ev[name].per_datum - ev["Exact"].per_datum, marker, markersize=3, label=name
    )
ax.axhline(0, color="black", linewidth=0.6)
ax.set(xlabel="exact ln p(x) [nats]", ylabel="error [nats]")
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Mistakes
#
# **A latent that the guide forgets.** Pyro would draw it from the model, and the weights would be those of another
# program.


# %%
def forgetful(counts):
    with pyro.plate("data", len(counts)):
        pass


try:
    pv.evidence(fit.model, forgetful, held_out)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a guide without the latent was taken")

# %% [markdown]
# **β inside of the model.** A scale on the likelihood looks like annealing. In the model it would change p(x, z) itself,
# so evidence is taken without it, and a warning says so; training with it on one side is refused. β belongs to
# `pv.fit(..., beta=...)`.


# %%
def scaled(counts):
    with pyro.poutine.scale(scale=0.5):
        model(counts)


try:
    pv.fit(scaled, guide, counts[:300], epochs=1)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a scale on one side was taken")

# %% [markdown]
# **A guide of smaller support than the posterior.** A uniform distribution misses the tails: what importance sampling
# then estimates is less than p(x), by an amount that no weight shows. It is still a lower bound, and is called one; no
# interval is given.


# %%
def narrow(counts):
    total = counts.sum(-1)
    with pyro.plate("data", len(counts)):
        loc = ((total + 0.5) / exposure.sum()).log()
        half = 0.6 / (total + 0.5).sqrt()
        pyro.sample("log_rate", dist.Uniform(loc - half, loc + half))


import warnings

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    found = pv.evidence(fit.model, narrow, held_out, estimators=[pv.IS(1000)])
print(found["IS"].log_evidence, "against exactly", exact)
for line in {str(w.message) for w in caught} | set(found.warnings):
    print("-", line)
assert found["IS"].log_evidence < exact - 4 * found["IS"].se_mc
assert found["IS"].interval()[0].isnan().all()

# %% [markdown]
# Plates in other dims, masks, enumerated latents, context and subsampling: [programs](../programs.md).

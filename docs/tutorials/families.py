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
# # From VAE to hierarchy to diffusion
#
# A hierarchical VAE is a chain of VAEs; a variational diffusion is a hierarchical VAE with three restrictions: latents of
# the data's own size, a guide that is fixed Gaussian noise, and a last level that is pure noise. All three are trained
# here on the same 8×8 digits, for about ten seconds each, and measured alike. The trained figures, with time to converge,
# are in [three families](../families.md).

# %%
# %matplotlib inline
import math

import matplotlib.pyplot as plt
import pyro.distributions as dist
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.distributions import kl_divergence

import pyrovae as pv
from pyrovae import plots
from pyrovae.models.composing.architectures import Perceptrons
from pyrovae.models.composing.diffusion import compose_process
from pyrovae.models.composing.levels import compose_hierarchical
from pyrovae.models.composing.vae import compose
from pyrovae.models.diffusing.diffusion_process import bits_per_dim
from pyrovae.models.diffusing.level_denoiser import LevelDenoiser, log_marginals
from pyrovae.models.diffusing.level_networks import LevelMLP
from pyrovae.models.diffusion import DiffusionBound
from pyrovae.training import level_report, level_table

data = pv.data.load("digits")
shape = data.spec.image_shape
networks = Perceptrons((64,))

# %% [markdown]
# ## One level

# %%
pv.seed(0)
vae = compose(data, networks, latent_dim=12)
one = pv.fit(vae.model, vae.guide, data, epochs=60, lr=3e-3, beta=pv.Warmup(20), seed=0)

# %% [markdown]
# ## Three levels
#
# $p(x, z_{1:T}) = p(z_T) \prod_{t=2}^{T} p(z_{t-1} \mid z_t)\; p(x \mid z_1)$. The guide is top-down (a ladder), so the KL
# of each level has its closed form; a bottom-up guide $q(z_1 \mid x) \prod q(z_{t+1} \mid z_t)$ is the other way, and with
# it `TraceMeanField_ELBO` is refused, since it would be wrong without a sign.

# %%
pv.seed(0)
chain = compose_hierarchical(data, networks, (12, 8, 4), top_down=False)
try:
    pv.fit(chain.model, chain.guide, data, objective=TraceMeanField_ELBO(), epochs=1)
except ValueError as error:
    print(error)
else:
    raise AssertionError("a bottom-up guide was taken")

# %%
pv.seed(0)
ladder = compose_hierarchical(data, networks, (12, 8, 4))
three = pv.fit(
    ladder.model,
    ladder.guide,
    data,
    objective=TraceMeanField_ELBO(),
    epochs=40,
    lr=3e-3,
    beta=pv.Warmup(20),
    free_bits=0.2,
    seed=0,
)
levels = level_report(three.model, three.guide, data.test)
print(level_table(levels))
rate = sum(level.kl for level in levels)
assert sum(not level.collapsed for level in levels) >= 2

# %% [markdown]
# Test images, and what is left of them when only the upper levels are kept and the others are drawn again:

# %%
plots.plot_levels(three.model, three.guide, data.test[:8], shape).figure

# %% [markdown]
# ## The way to noise
#
# $q(z_t \mid x) = \mathcal{N}(\alpha_t x, \sigma_t^2)$, with the signal-to-noise ratio
# $\mathrm{SNR}(t) = \alpha_t^2 / \sigma_t^2 = e^{-\gamma_t}$ falling from left to right. Nothing of it is learned but the
# schedule, whose ends are fixed by the number of grey levels: at t = 0 neighbouring levels can just be told apart, at
# t = 1 the image is noise.

# %%
pv.seed(0)
denoiser = LevelDenoiser(log_marginals(data.train, 17), LevelMLP(64, 17, width=64, blocks=1), dropout=0.1)
process = compose_process(data, denoiser)
process.eval()
y = process.encode(data.test[:5])  # grey levels between -1 and 1
states = list(process.noising(data.test[:5], 100))
plots.plot_noising(states, shape, x=y, gammas=process.gammas(100).detach(), num=5).figure

# %% [markdown]
# ## Three terms
#
# $\ln p(x) \ge \mathbb{E}[\ln p(x \mid z_0)] - \mathrm{KL}(q(z_1 \mid x) \Vert p(z_1)) - L$: reconstruction, prior matching
# and diffusion. Both others enter with a minus. In continuous time one evaluation of the network, at a random t, gives an
# unbiased estimate of $L = \frac12 \mathbb{E}[\gamma'_t \Vert \epsilon - \hat\epsilon \Vert^2]$.

# %%
bound = DiffusionBound(process)
diffusion = pv.fit(bound.model, bound.guide, data, epochs=40, lr=3e-3, ema=0.99, batch_size=64, seed=0)
last = diffusion.history[-1]
terms = {name: round(value, 2) for name, value in last.items() if name.startswith("term_")}
print(terms, "add up to the bound", round(last["elbo"], 2))
assert abs(sum(v for k, v in last.items() if k.startswith("term_")) - last["elbo"]) < 1e-2

# %% [markdown]
# ## The way back
#
# $z_1 \sim \mathcal{N}(0, I)$, then $z_s \sim p(z_s \mid z_t)$ from right to left of the picture above, and $x$ drawn from
# $p(x \mid z_0)$:

# %%
process.eval()
back = list(process.chain(5, 100, seed=1))
x = process.encode(bound.sample(5, 100, seed=1))
plots.plot_chain(back, shape, x=x, gammas=process.gammas(100).detach(), num=5).figure

# %% [markdown]
# ## One measure
#
# Bits per pixel, each by a bound. The diffusion's is a mean of a surrogate: its exponential is no estimate of p(x), so
# importance sampling is refused. Its chain of 50 steps has the same weights, and a density.

# %%
rows = {
    "one level": one.evidence(estimators=[pv.ELBO(20), pv.IS(500)]),
    "three levels": three.evidence(estimators=[pv.ELBO(20), pv.IS(500)]),
    "diffusion": diffusion.evidence(estimators=[pv.ELBO(50)]),
}
for name, ev in rows.items():
    bits = {n: round(bits_per_dim(-ev[n].log_evidence, 64), 3) for n in ev.estimates}
    print(f"{name:13}", ", ".join(f"{n} ≤ {v}" for n, v in bits.items()), "bits a pixel")
try:
    diffusion.evidence(estimators=[pv.IS(10)])
except ValueError as error:
    print(error)
else:
    raise AssertionError("a surrogate was taken for a density")
assert rows["diffusion"]["ELBO"].log_evidence > -math.log(17) * 64  # better than uniform levels

# %% [markdown]
# ## Two forms of the middle term
#
# A lecture derives the bound step by step in two ways. In the **consistency** form each step compares
# $q(z_t \mid z_{t-1})$ with $p(z_t \mid z_{t+1})$: an average over three variables. In the **posterior** form each is
# $\mathrm{KL}(q(z_s \mid z_t, x) \Vert p(z_s \mid z_t))$, in closed form given $z_t$ alone. As averages
# of log ratios along whole chains both are the same bound. The consistency step is often written as a **KL** between $q(z_t \mid z_{t-1})$ and $p(z_t \mid z_{t+1})$, which would need $z_t$ to be independent of $z_{t+1}$
# given $z_{t-1}$: it is not, and the sum is another number.
#
# Which has the smaller variance depends on what is drawn. A training step draws **one** t: there the closed KL leaves out
# the noise of two of three variables. Along a **whole** chain the log ratios of neighbouring steps share that noise, and it
# cancels: their sum is a log-weight of the chain, which would be constant if the model were exact, while a sum of closed
# KLs would go on varying. Both are measured:

# %%
steps, copies = 20, 40
y = process.encode(data.test[:20]).repeat(copies, 1)
gammas = process.gammas(steps).detach()
alphas, sigmas = torch.sigmoid(-gammas).sqrt(), torch.sigmoid(gammas).sqrt()
with torch.no_grad():
    z = [s.double() for s in process.noising(data.test[:20].repeat(copies, 1), steps, seed=0)]
    y, gammas, alphas, sigmas = y.double(), gammas.double(), alphas.double(), sigmas.double()
    process.double()

    def backwards(t):  # p(z_{t-1} | z_t)
        noise = process.denoiser(z[t], gammas[t].expand(len(z[t])))
        return dist.Normal(*process.backward(z[t], noise, gammas[t - 1], gammas[t])).to_event(1)

    def given_x(t):  # q(z_{t-1} | z_t, x)
        noise = (z[t] - alphas[t] * y) / sigmas[t]
        return dist.Normal(*process.backward(z[t], noise, gammas[t - 1], gammas[t])).to_event(1)

    def forwards(t):  # q(z_t | z_{t-1}); of t = 0: q(z_0 | x)
        if t == 0:
            return dist.Normal(alphas[0] * y, sigmas[0]).to_event(1)
        c = -torch.expm1(gammas[t - 1] - gammas[t])
        return dist.Normal(alphas[t] / alphas[t - 1] * z[t - 1], sigmas[t] * c.sqrt()).to_event(1)

    noise_prior = dist.Normal(torch.zeros_like(y), 1.0).to_event(1)
    last_given_x = dist.Normal(alphas[-1] * y, sigmas[-1]).to_event(1)
    end = forwards(steps).log_prob(z[steps]) - noise_prior.log_prob(z[steps])
    consistency = torch.stack(
        [forwards(t).log_prob(z[t]) - backwards(t + 1).log_prob(z[t]) for t in range(steps)] + [end]
    )
    posterior = torch.stack(
        [kl_divergence(given_x(t), backwards(t)) for t in range(1, steps + 1)]
        + [kl_divergence(last_given_x, noise_prior)]
    )
    as_kl = torch.stack(
        [kl_divergence(forwards(t), backwards(t + 1)) for t in range(steps)]
        + [kl_divergence(forwards(steps), noise_prior)]
    )
process.float()
forms = {"consistency, log ratios": consistency, "posterior": posterior, "consistency as a KL": as_kl}
mean = {name: float(v.sum(0).mean()) for name, v in forms.items()}
# What varies between chains of one image; images differ for good.
chain_variance = {name: float(v.sum(0).reshape(copies, 20).var(0).mean()) for name, v in forms.items()}
step_variance = {}  # of (T + 1) times the term of one random step
for name, v in forms.items():
    one = (len(v) * v).reshape(len(v) * copies, 20)
    step_variance[name] = float(one.var(0).mean())
    print(
        f"{name:24} {mean[name]:8.2f} nats; standard deviation of one random step {step_variance[name] ** 0.5:6.1f}, "
        f"of a whole chain {chain_variance[name] ** 0.5:5.1f}"
    )
right, same, wrong = forms["posterior"], forms["consistency, log ratios"], forms["consistency as a KL"]
difference = (right.sum(0) - same.sum(0)).reshape(copies, 20).mean(1)  # paired, along the same chains
assert abs(difference.mean()) < 4 * difference.std() / copies**0.5
difference = (wrong.sum(0) - same.sum(0)).reshape(copies, 20).mean(1)
assert abs(difference.mean()) > 20 * difference.std() / copies**0.5
assert step_variance["posterior"] < step_variance["consistency, log ratios"]
assert chain_variance["posterior"] > chain_variance["consistency, log ratios"]

figure, ax = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
for name, marker in (("consistency, log ratios", "o-"), ("posterior", "s-")):
    ax.plot([t / steps for t in range(steps + 1)], forms[name].std(1), marker, markersize=3, label=name)
ax.set(xlabel="time t", ylabel="standard deviation of a step [nats]", yscale="log")
ax.legend(frameon=False)
plt.show()

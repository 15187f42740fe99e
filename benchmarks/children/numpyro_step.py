"""NumPyro's SVI step for the same network, jitted; or a whole epoch of them in one `lax.scan`."""

from __future__ import annotations

import sys
from typing import Any

from serve import Block, serve


def make(request: dict[str, Any]) -> tuple[Block, dict[str, Any]]:
    """Builds the step of `request["net"]`, with Adam at 1e-3 in float32."""
    import jax
    import jax.numpy as jnp
    import numpyro
    import numpyro.distributions as dist
    from numpyro.infer import SVI, Trace_ELBO

    if request["device"] == "cuda" and jax.default_backend() != "gpu":
        raise RuntimeError("JAX finds no GPU (its package is jax[cuda13])")
    net = request["net"]
    init_encoder, encode, init_decoder, decode = (_mlps if net["hidden"] else _convs)(net)
    size, latent, batch = net["data_dim"], net["latent_dim"], net["batch"]
    key_x, key_encoder, key_decoder, key = jax.random.split(jax.random.PRNGKey(0), 4)

    def model(x: Any) -> None:
        params = numpyro.param("decoder", lambda _: init_decoder(key_decoder))
        with numpyro.plate("data", batch):
            z = numpyro.sample("z", dist.Normal(jnp.zeros(latent), 1.0).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decode(params, z)).to_event(1), obs=x)

    def guide(x: Any) -> None:
        params = numpyro.param("encoder", lambda _: init_encoder(key_encoder))
        loc, raw = jnp.split(encode(params, x), 2, axis=-1)
        scale = jax.nn.softplus(raw + 0.5413248546129181) + 1e-4
        with numpyro.plate("data", batch):
            numpyro.sample("z", dist.Normal(loc, scale).to_event(1))

    rows = request.get("epoch", batch)
    data = jnp.round(jax.random.uniform(key_x, (rows, size))).astype(jnp.float32)
    svi = SVI(model, guide, numpyro.optim.Adam(1e-3), Trace_ELBO())
    state = svi.init(key, data[:batch])
    if "epoch" in request:

        def advance(state: Any, x: Any) -> tuple[Any, Any]:
            order = jax.random.permutation(jax.random.fold_in(state.rng_key, 1), rows)
            order = order[: rows // batch * batch].reshape(-1, batch)
            return jax.lax.scan(lambda s, i: svi.update(s, x[i]), state, order)
    else:
        advance = svi.update
    # Donated: the update happens in place, as everywhere else in the table.
    step = jax.jit(advance, donate_argnums=0)
    held = [state]

    def block(calls: int) -> None:
        state = held.pop()
        loss = None
        for _ in range(calls):
            state, loss = step(state, data)
        held.append(jax.block_until_ready(state))
        jax.block_until_ready(loss)

    return block, {"numpyro": numpyro.__version__, "jax": jax.__version__}


def _dense(key: Any, fan_in: int, fan_out: int) -> tuple[Any, Any]:
    import jax

    bound = fan_in**-0.5
    return jax.random.uniform(key, (fan_in, fan_out), minval=-bound, maxval=bound), jax.numpy.zeros(fan_out)


def _mlps(net: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    import jax

    hidden = net["hidden"]

    def init(widths: list[int]) -> Any:
        def of(key: Any) -> Any:
            keys = jax.random.split(key, len(widths) - 1)
            return [_dense(k, i, o) for k, i, o in zip(keys, widths, widths[1:], strict=False)]

        return of

    def apply(params: Any, x: Any) -> Any:
        for w, b in params[:-1]:
            x = jax.numpy.tanh(x @ w + b)
        w, b = params[-1]
        return x @ w + b

    data, latent = net["data_dim"], net["latent_dim"]
    return init([data, *hidden, 2 * latent]), apply, init([latent, *hidden[::-1], data]), apply


def _convs(net: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The Keras example's pair; channels last, XLA's own order."""
    import jax

    side, latent = net["side"], net["latent_dim"]
    small = (side + 3) // 4
    order = ("NHWC", "HWIO", "NHWC")

    def kernel(key: Any, fan_in: int, fan_out: int) -> tuple[Any, Any]:
        bound = (9 * fan_in) ** -0.5
        w = jax.random.uniform(key, (3, 3, fan_in, fan_out), minval=-bound, maxval=bound)
        return w, jax.numpy.zeros(fan_out)

    def init_encoder(key: Any) -> Any:
        k = jax.random.split(key, 4)
        dense = [_dense(k[2], 64 * small * small, 16), _dense(k[3], 16, 2 * latent)]
        return [kernel(k[0], 1, 32), kernel(k[1], 32, 64), *dense]

    def encode(params: Any, x: Any) -> Any:
        x = x.reshape(-1, side, side, 1)
        for w, b in params[:2]:
            out = jax.lax.conv_general_dilated(x, w, (2, 2), ((1, 1), (1, 1)), dimension_numbers=order)
            x = jax.nn.relu(out + b)
        x = x.reshape(len(x), -1)
        (w, b), (v, c) = params[2:]
        return jax.nn.relu(x @ w + b) @ v + c

    def init_decoder(key: Any) -> Any:
        k = jax.random.split(key, 4)
        first = _dense(k[0], latent, 64 * small * small)
        last = kernel(k[3], 32, 1)[0], jax.numpy.zeros(side * side)
        return [first, kernel(k[1], 64, 64), kernel(k[2], 64, 32), last]

    def decode(params: Any, z: Any) -> Any:
        (w, b), *middle, (last, bias) = params
        x = jax.nn.relu(z @ w + b).reshape(-1, small, small, 64)
        for w, b in middle:
            out = jax.lax.conv_transpose(x, w, (2, 2), "SAME", dimension_numbers=order)
            x = jax.nn.relu(out + b)
        x = jax.lax.conv_transpose(x, last, (1, 1), "SAME", dimension_numbers=order)
        return x.reshape(len(x), -1) + bias

    return init_encoder, encode, init_decoder, decode


if __name__ == "__main__":
    sys.exit(serve(make))

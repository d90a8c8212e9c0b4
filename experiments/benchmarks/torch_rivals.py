"""PyTorch's ways to train M independent MLPs, the job of `rivals.py`: a loop of eager runs, and `torch.func`.

torch is optional (`.venv/bin/pip install torch==2.13.0`). Two of its threads pay off on an idle machine only: where
another process wants a core, its OpenMP threads spin for each other, and a step takes up to a hundred times as long.

Tried and not kept, since not faster here: bmm written by hand instead of `vmap` (equal), `foreach` Adam (eager, twice
the fused kernel's time), all members' orders by one argsort (six times `randperm`'s), inductor's autotuned products
(MKL's win), widths below 64 in eager mode (each call costs too much). Adam through `torch.compile` needs no tricks.
"""

import itertools
import os
import time
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib.util import find_spec

import numpy as np

Outcome = tuple[float, np.ndarray]  # seconds per member-step, losses (M,)


def torch_loop(x, y, units: Sequence[int], batch: int, epochs: int, rates, *, threads: int = 1) -> Outcome:
    """Eager PyTorch, one member after another: nn.Sequential, cross_entropy, fused Adam."""
    torch = _torch()
    torch.set_num_threads(threads)
    x, y = torch.as_tensor(np.asarray(x, np.float32)), torch.as_tensor(np.asarray(y, np.int64))

    def train(rate: float, most: int) -> float:
        net = _torch_net(units, "cpu")
        for layer in net[::2]:
            torch.nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.Adam(net.parameters(), lr=rate, fused=True)
        for _ in range(epochs):
            order, losses = torch.randperm(len(x)), []
            # The whole epoch is gathered at once: one call instead of one a step.
            for xs, ys in list(zip(x[order].split(batch), y[order].split(batch), strict=True))[:most]:
                loss = torch.nn.functional.cross_entropy(net(xs), ys)
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()
                losses.append(loss.detach())
        return float(torch.stack(losses).mean())

    train(1e-3, 2)
    began = time.perf_counter()
    found = [train(float(rate), len(x)) for rate in rates]
    return (time.perf_counter() - began) / (len(rates) * epochs * (len(x) // batch)), np.array(found)


def torch_func(
    x, y, units: Sequence[int], batch: int, epochs: int, rates,
    *, threads: int = 1, width: int | None = None, compiled: bool = False,
) -> Outcome:  # fmt: skip
    """`torch.func`: `vmap(grad(loss))` over stacked parameters, `width` members at a time (None: all), Adam by hand.

    Eager, Adam is torch's fused kernel, which knows one learning rate only: it moves q by the rate 1, and the
    parameters are rate * q, which is the same update. Compiled, one program holds gather, gradient and Adam.
    """
    torch = _torch()
    torch.set_num_threads(threads)
    width = width or len(rates)
    if len(rates) % width:
        raise ValueError(f"width: got {width} for {len(rates)} members, expected a divisor: choose one")
    x, y = torch.as_tensor(np.asarray(x, np.float32)), torch.as_tensor(np.asarray(y, np.int64))
    rates = torch.as_tensor(np.asarray(rates, np.float32))
    train = partial(_train_stacked, torch, tuple(units), compiled, x, y, batch)
    with torch.no_grad():
        train(rates[:width], 1, 3)
        began = time.perf_counter()
        losses = torch.cat([train(part, epochs, len(x)) for part in rates.split(width)])
    return (time.perf_counter() - began) / (len(rates) * epochs * (len(x) // batch)), losses.numpy()


def _train_stacked(torch, units, compiled: bool, x, y, batch: int, rates, epochs: int, most: int):
    """One chunk of members, at most `most` steps an epoch."""
    names, gradient, step = _torch_step(units, compiled)
    params = []
    for m, n in itertools.pairwise(units):
        params += [torch.randn(len(rates), n, m) * (2 / m) ** 0.5, torch.zeros(len(rates), n)]
    scale = [rates.reshape(-1, *[1] * (p.ndim - 1)) for p in params]
    first, second = [torch.zeros_like(p) for p in params], [torch.zeros_like(p) for p in params]
    scaled = torch._foreach_div(params, scale)
    adam = torch.optim.Adam(scaled, lr=1.0, fused=True)
    count = 0
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(x)) for _ in rates])
        batches = orders.reshape(len(rates), -1, batch).transpose(0, 1).contiguous()
        losses = []
        for rows in batches[:most]:
            count += 1
            if compiled:
                corrections = torch.tensor(1 - 0.9**count), torch.tensor(1 - 0.999**count)
                losses.append(step(params, first, second, scale, x, y, rows, *corrections))
                continue
            grads, values = gradient(dict(zip(names, params, strict=True)), x[rows], y[rows])
            for q, name in zip(scaled, names, strict=True):
                q.grad = grads[name].contiguous()  # the fused kernel reads memory in order, whatever the strides
            adam.step()
            params = torch._foreach_mul(scaled, scale)
            losses.append(values)
    return torch.stack(losses).mean(0)


@lru_cache
def _torch_step(units: tuple[int, ...], compiled: bool):
    """The names of the parameters, their gradient function, and one compiled step."""
    torch = _torch()
    torch._dynamo.config.recompile_limit = 64  # per function, all cases together; beyond, it silently runs eagerly
    net = _torch_net(units, "meta")
    names = [name for name, _ in net.named_parameters()]

    def loss(params, x, y):
        logits = torch.func.functional_call(net, params, (x,))
        return (logits.logsumexp(-1) - logits.gather(1, y[:, None])[:, 0]).mean()  # faster here than F.cross_entropy

    gradient = torch.func.vmap(torch.func.grad_and_value(loss))

    def step(params, first, second, scale, x, y, rows, correction1, correction2):
        grads, values = gradient(dict(zip(names, params, strict=True)), x[rows], y[rows])
        for p, m, v, rate, name in zip(params, first, second, scale, names, strict=True):
            m.lerp_(grads[name], 0.1)
            v.lerp_(grads[name] ** 2, 0.001)
            p.sub_(rate * (m / correction1) / ((v / correction2).sqrt() + 1e-8))
        return values

    return names, gradient, torch.compile(step, dynamic=False, fullgraph=True) if compiled else None


def _torch_net(units: Sequence[int], device: str):
    torch, layers = _torch(), []
    for m, n in itertools.pairwise(units):
        layers += [torch.nn.Linear(m, n, device=device), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def _torch():
    if not find_spec("torch"):
        raise ModuleNotFoundError("torch is not installed: `.venv/bin/pip install torch==2.13.0` adds its contenders")
    os.environ.setdefault(
        "GOMP_SPINCOUNT", "20000"
    )  # idle: no difference; busy: OpenMP threads spin less for each other
    import torch

    return torch

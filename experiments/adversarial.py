"""Adversarial examples on Fashion-MNIST: accuracy against the size of the attack, before and after training on attacks.

    .venv/bin/python experiments/adversarial.py        (draws docs/pictures/adversarial.svg; needs the files:
                                                        apt-get install dataset-fashion-mnist)

Claim: the fast gradient sign attack with ε = 0.1 (a pixel is 0 to 1) takes a 784-256-128-10 network below 15 % test
accuracy; trained on attacked images it keeps at least 58 % (and 55 % under 20 steps of projected gradient ascent, the
stronger attack), for less than 6 points of clean accuracy (Goodfellow §7.13).
Both networks start alike and see the same 20,000 images in the same order. Half of the second one's loss is that of
attacked images, by 5 ascent steps from a random place of the box, anew for each batch. The attacks know the network
they attack and the right label; they are judged on the first 2,000 test images.

Result: 87.6 % clean and 6.5 % attacked by the sign (3.5 % by ascent); trained on attacks 84.2 %, 62.4 % (59.4 %).
35 s (2 cores, jax 0.10.2).
"""

import argparse
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxnet as jn
from jaxnet.gradients import fgsm, pgd

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "adversarial.svg"
EPSILON, EPSILONS = 0.1, (0.0, 0.0125, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2)
EPOCHS, BATCH, TRAIN, TEST = 10, 100, 20_000, 2_000
NET, LOSS, PIXELS = jn.mlp([256, 128, 10]), jn.losses.softmax_cross_entropy, (0.0, 1.0)
NAMES = ("t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot")


def images(part: str, number: int) -> tuple[jax.Array, jax.Array]:
    """The first images of a part, flat, and their labels."""
    x, y = jn.data.load("fashion_mnist", part=part)
    return jnp.asarray(x[:number]), jnp.asarray(y[:number])


def gradient_ascent(epsilon: Any, steps: int) -> Any:
    """Ascent whose steps together reach 2.5 times the radius of the box, so that it can turn at its walls."""
    return pgd(NET, LOSS, epsilon, steps=steps, rate=2.5 * epsilon / steps, bounds=PIXELS)


def trained(train: tuple, epochs: int, *, on_attacks: bool) -> Any:
    """The parameters of a network after training, half on attacked images where asked."""
    gradient = jn.loss_and_grad(NET, LOSS)
    if on_attacks:
        gradient = jn.adversarial(gradient, gradient_ascent(EPSILON, steps=5))
    optimizer = optax.adam(optax.cosine_decay_schedule(1e-3, epochs * -(-len(train[1]) // BATCH)))
    program = jn.program(NET, LOSS, optimizer, batch_size=BATCH, gradient=gradient)
    return jn.fit(jax.random.key(0), program, jn.Data(train), epochs=epochs).params


@jax.jit
def accuracies(params: Any, test: tuple, epsilons: jax.Array) -> dict[str, jax.Array]:
    """Per attack the accuracy at each ε, (epsilons,)."""
    x, y = test

    def under(attack):
        logits, _ = NET.apply(params, {}, attack(params, {}, (x, y)))
        return jn.metrics.accuracy(logits, y).mean()

    attacks = {
        "fast gradient sign": lambda epsilon: fgsm(NET, LOSS, epsilon, bounds=PIXELS),
        "gradient ascent": lambda epsilon: gradient_ascent(epsilon, steps=20),
    }
    return {name: jax.lax.map(lambda e, make=make: under(make(e)), epsilons) for name, make in attacks.items()}


def claim(before: dict[str, np.ndarray], after: dict[str, np.ndarray], epsilons: Any) -> None:
    """What the docstring says, from the accuracies of the two networks.

    Raises:
        SystemExit: it failed.
    """
    at, clean = int(np.argmin(np.abs(np.asarray(epsilons) - EPSILON))), int(np.argmin(epsilons))
    sign, ascent = "fast gradient sign", "gradient ascent"
    lost = before[sign][clean] - after[sign][clean]
    print(f"clean accuracy {before[sign][clean]:.1%} before, {after[sign][clean]:.1%} after")
    print(f"under the sign attack with ε = {EPSILON}: {before[sign][at]:.1%} before, {after[sign][at]:.1%} after")
    print(f"under gradient ascent with ε = {EPSILON}: {before[ascent][at]:.1%} before, {after[ascent][at]:.1%} after")
    if before[sign][at] > 0.15:
        raise SystemExit("the claim failed: the plain network keeps more than 15 % accuracy under the sign attack")
    if after[sign][at] < 0.58 or after[ascent][at] < 0.55:
        raise SystemExit("the claim failed: the network trained on attacks keeps less than 58 % or, of ascent, 55 %")
    if lost > 0.06:
        raise SystemExit("the claim failed: training on attacks costs more than 6 points of clean accuracy")


def draw(path: Path, before: dict, after: dict, epsilons: Any, networks: tuple, test: tuple) -> None:
    """Left the accuracy curves; right three images, attacked through each network, titled by what it then reads."""
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {"svg.hashsalt": path.stem, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(9, 4), layout="constrained")
        halves: Any = figure.subfigures(1, 2, width_ratios=(1.15, 1))
        left, right = halves
        panel = left.subplots()
        for found, network, colour in ((before, "plain", "#1f6fb4"), (after, "trained on attacks", "#d9600a")):
            for (attack, values), line in zip(found.items(), ("-", "--"), strict=True):
                panel.plot(epsilons, 100 * values, line, color=colour, marker=".", label=f"{network}: {attack}")
        panel.axvline(EPSILON, color="#888888", linewidth=0.8, linestyle=":")
        panel.set(xlabel="size of the attack ε (a pixel is 0 to 1)", ylabel="test accuracy, %", ylim=(0, 100))
        panel.legend(frameon=False, fontsize=8)

        # Images that the plain network reads rightly, one each of three classes.
        x, y = test
        read = jn.metrics.labels(NET.apply(networks[0], {}, x)[0])
        rows = [int(jnp.argmax((y == label) & (read == label))) for label in (0, 5, 8)]
        grid = right.subplots(3, len(rows))
        attack = fgsm(NET, LOSS, EPSILON, bounds=PIXELS)
        shown = [("plain: ", networks[0], x[jnp.array(rows)])]
        for name, params in zip(("plain: ", "trained: "), networks, strict=True):
            shown.append((name, params, attack(params, {}, (x[jnp.array(rows)], y[jnp.array(rows)]))))
        for axes, (name, params, pixels) in zip(grid, shown, strict=True):
            for cell, image, label in zip(
                axes, pixels, jn.metrics.labels(NET.apply(params, {}, pixels)[0]), strict=True
            ):
                cell.imshow(np.asarray(image).reshape(28, 28), cmap="gray_r", vmin=0, vmax=1, interpolation="none")
                cell.set_title(name + NAMES[int(label)], fontsize=8)
                cell.axis("off")
        right.suptitle(f"unharmed, then attacked through each network, ε = {EPSILON}", fontsize=9)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description="Adversarial examples on Fashion-MNIST.")
    parser.add_argument("--out", type=Path, default=PICTURE, help="where the picture goes")
    out = parser.parse_args().out

    began = time.perf_counter()
    train, test, epsilons = images("train", TRAIN), images("test", TEST), jnp.array(EPSILONS)
    networks = tuple(trained(train, EPOCHS, on_attacks=on_attacks) for on_attacks in (False, True))
    before, after = (jax.tree.map(np.asarray, accuracies(params, test, epsilons)) for params in networks)
    print(f"{'ε':>21}" + "".join(f"{e:>8g}" for e in EPSILONS))
    for found, network in ((before, "plain"), (after, "trained on attacks")):
        print(network)
        for attack, values in found.items():
            print(f"  {attack:<19}" + "".join(f"{value:>8.1%}" for value in values))
    print(f"{time.perf_counter() - began:.0f} s, compiling included")
    draw(out, before, after, EPSILONS, networks, test)
    claim(before, after, EPSILONS)


if __name__ == "__main__":
    main()

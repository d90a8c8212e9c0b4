"""The record of every head: what ends a network for one kind of target.

A `Head` brings the last layer, the loss on its outputs, and what can be read from them; `jn.program` and
`jn.evaluate` accept one as the loss and append its layer to the network:

    program = jn.program(trunk, head, optimizer, batch_size=32)         trained: head.on(trunk), by head.loss
    outputs = jn.predict(head.on(trunk), fitted, x)                     logits, or the parameters of a distribution
    head.probabilities(outputs), head.labels(outputs), head.mean(outputs), head.interval(outputs, 0.9)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jax import Array

from jaxnet.layers import Layer, serial
from jaxnet.losses import Loss, as_loss


@dataclass(frozen=True, eq=False)
class Head:
    """The last layer of a network, its loss, and what is predicted from its outputs.

    `layer` gives `outputs` numbers per example, from which `loss` reads `targets` columns of y; `labels` says that y
    holds class numbers. `predict` maps names to functions of the outputs; `metrics` are the ones reported unless
    others are named.

    >>> from jaxnet.heads import regression
    >>> regression(2)
    regression(2)
    """

    name: str
    layer: Layer
    loss: Loss
    predict: Mapping[str, Callable[..., Any]]
    outputs: int
    targets: int
    labelled: bool = False
    metrics: Mapping[str, Callable] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name

    def on(self, net: Layer) -> Layer:
        """`net` with the head's layer at its end.

        >>> import jaxnet as jn
        >>> from jaxnet.heads import binary
        >>> binary().on(jn.serial(jn.dense(4), jn.relu()))
        serial(serial(dense(4), relu()), dense(1))
        """
        return serial(net, self.layer)

    def probabilities(self, output: Array) -> Array:
        """The probability of each class, (n, classes), or of the label 1, of the outputs' shape.

        Raises:
            TypeError: for a head that predicts none; so do the others.
        """
        return self._predicted("probabilities")(output)

    def labels(self, output: Array) -> Array:
        """The most probable label of each example, int32."""
        return self._predicted("labels")(output)

    def mean(self, output: Array) -> Array:
        """The mean of the target, (n, targets)."""
        return self._predicted("mean")(output)

    def interval(self, output: Array, level: float = 0.95) -> tuple[Array, Array]:
        """(lower, upper) limits that hold the target with probability `level`, each (n, targets).

        Raises:
            ValueError: unless 0 < level < 1, or for a level that a quantile head wasn't made for.
        """
        function = self._predicted("interval")
        if not 0 < level < 1:
            raise ValueError(f"{self.name}: got level={level}; expected a probability between 0 and 1")
        return function(output, level)

    def tasks(self, output: Array) -> dict[str, Array]:
        """The outputs of each head of a `multitask` head, by name."""
        return self._predicted("tasks")(output)

    def _predicted(self, what: str) -> Callable:
        if what not in self.predict:
            raise TypeError(
                f"{self.name}: got a request for {what}; expected one of {', '.join(sorted(self.predict))}: another "
                "head gives it"
            )
        return self.predict[what]


def attached(
    net: Layer, loss: "Loss | Callable | Head", metrics: Mapping[str, Callable] | None = None
) -> tuple[Layer, Loss, Mapping[str, Callable] | None]:
    """(network, Loss, metrics): of a Head, the network with its layer, its loss and, for None, its metrics.

    >>> import jaxnet as jn
    >>> attached(jn.dense(3), jn.losses.squared_error)
    (dense(3), <loss squared_error>, None)
    """
    if isinstance(loss, Head):
        return loss.on(net), loss.loss, loss.metrics if metrics is None else metrics
    return net, as_loss(loss), metrics

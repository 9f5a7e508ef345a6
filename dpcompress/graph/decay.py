"""Fading a removed activation to the identity while the network trains."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from dpcompress.errors import IllegalMerge


class Decay(nn.Module):
    """The mix (1 − s)·σ(x) + s·x of an activation σ and the identity.

    s = `share` is 0 at first and 1 when the activation is gone (docs/method.md §7). A
    growing slope below 0 would not do: it leaves a ceiling such as ReLU6's. The module
    has no state: parameters of σ, if any, are constants here. So a state
    dict is the same with and without it.
    """

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.activation = copy.deepcopy(activation)
        self.share = 0.0
        for name, value in list(self.activation.named_parameters()):
            delattr(self.activation, name)
            self.activation.register_buffer(name, value.detach(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.share == 1.0:
            return x
        activated: Tensor = self.activation(x)
        if self.share == 0.0:
            return activated
        return activated.lerp(x, self.share)


def decays(network: nn.Module) -> list[Decay]:
    """List the decaying activations of a linearized network."""
    return [module for module in network.modules() if isinstance(module, Decay)]


def set_share(network: nn.Module, share: float) -> None:
    """Give every decaying activation of `network` the same s in 0..1."""
    for decay in decays(network):
        decay.share = share


def require_gone(network: nn.Module) -> None:
    """Raise IllegalMerge unless every decaying activation is the identity."""
    shares = [decay.share for decay in decays(network)]
    left = [share for share in shares if share != 1.0]
    if left:
        raise IllegalMerge(
            f"{len(left)} of {len(shares)} removed activations still work in part: their "
            f"share s of the identity is {min(left):g}, not 1.",
            "Train on until s is 1, or load the weights into "
            "dpcompress.linearize(model, plan).",
        )

"""A torch network while it is built from an ONNX graph."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import torch
from torch import fx, nn

from dpcompress.errors import BadInput


class Network:
    """The graph of a torch network, in the names of the ONNX graph that it comes from.

    constants: name → value of each tensor that the ONNX graph holds.
    values: name → node of each tensor that is computed so far.
    """

    def __init__(self, constants: dict[str, np.ndarray]) -> None:
        self.graph = fx.Graph()
        self.constants = constants
        self.values: dict[str, fx.Node] = {}
        self._modules = nn.Module()

    def input(self, name: str) -> None:
        """Add the next input."""
        self.values[name] = self.graph.placeholder(f"input{len(self.values)}")

    def tensor(self, name: str) -> fx.Node:
        """The node of a tensor; a constant becomes a buffer when it is first read.

        Raises:
            BadInput: no node before this one computes it.
        """
        if name not in self.values:
            if name not in self.constants:
                raise BadInput(
                    f"The ONNX graph reads {name}, which nothing before computes.",
                    "Export it again.",
                )
            place = self._free_name(name)
            value = torch.from_numpy(self.constants[name].copy())
            self._modules.register_buffer(place, value)
            self.values[name] = self.graph.get_attr(place)
        return self.values[name]

    def module(self, name: str, module: nn.Module, x: fx.Node) -> fx.Node:
        """Add `module`, applied to `x`, under a name like `name`."""
        place = self._free_name(name)
        self._modules.add_module(place, module)
        return self.graph.call_module(place, (x,))

    def finish(self, outputs: Sequence[str]) -> fx.GraphModule:
        """The network with these outputs, in eval mode."""
        self.graph.output(tuple(self.tensor(name) for name in outputs))
        return fx.GraphModule(self._modules, self.graph).eval()

    def _free_name(self, wanted: str) -> str:
        name = re.sub(r"\W", "_", wanted)
        while hasattr(self._modules, name):
            name += "_"
        return name

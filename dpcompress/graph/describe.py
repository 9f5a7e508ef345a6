"""The ops of a Blueprint, one for each node of a normal-form graph."""

from __future__ import annotations

import operator
from collections import Counter

from torch import fx, nn

from dpcompress.blueprint import Op
from dpcompress.graph.handlers import Call, Meaning, Shape, meaning, pools_all


def describe(
    network: fx.GraphModule, shapes: dict[fx.Node, Shape], leaves: dict[str, str]
) -> tuple[list[Op], dict[fx.Node, int]]:
    """The network's ops, and the index among them of each node but the output.

    Args:
        network: a graph in normal form.
        shapes: each node's output shape without the batch.
        leaves: submodules that could not be traced into, with the reason.
    """
    return _Describer(network, shapes, leaves).run()


class _Describer:
    def __init__(
        self,
        network: fx.GraphModule,
        shapes: dict[fx.Node, Shape],
        leaves: dict[str, str],
    ) -> None:
        self.network, self.shapes, self.leaves = network, shapes, leaves
        nodes = network.graph.nodes
        modules = dict(network.named_modules(remove_duplicate=False))
        self.modules = {n: modules[n.target] for n in nodes if n.op == "call_module"}
        self.calls = Counter(map(id, self.modules.values()))
        called = {n.target for n in self.modules}
        self.owners = Counter(
            id(p) for path in called for p in modules[path].parameters(recurse=False)
        )
        self.owners.update(
            id(operator.attrgetter(n.target)(network))
            for n in nodes
            if n.op == "get_attr"
        )
        # Nodes that only see what has been pooled over the whole image.
        self.pooled: set[fx.Node] = set()

    def run(self) -> tuple[list[Op], dict[fx.Node, int]]:
        ops: list[Op] = []
        index: dict[fx.Node, int] = {}
        for node in self.network.graph.nodes:
            if node.op == "output":
                continue
            call = self._call(node)
            if call.pooled or pools_all(call):
                self.pooled.add(node)
            index[node] = len(ops)
            name = str(node.target) if node.op == "call_module" else node.name
            inputs = tuple(index[source] for source in node.all_input_nodes)
            fields = self._meaning(call)._asdict()
            ops.append(Op(name=name, inputs=inputs, shape=call.shape, **fields))
        return ops, index

    def _call(self, node: fx.Node) -> Call:
        sources, module = node.all_input_nodes, self.modules.get(node)
        return Call(
            node=node,
            module=module,
            inputs=tuple(self.shapes[source] for source in sources),
            shape=self.shapes[node],
            shared="" if module is None else self._shared(module),
            pooled=bool(sources) and self.pooled.issuperset(sources),
        )

    def _meaning(self, call: Call) -> Meaning:
        node = call.node
        if node.op == "placeholder":
            return Meaning("input", why="the network's input")
        if node.op == "call_module" and node.target in self.leaves:
            return Meaning("opaque", why=self.leaves[str(node.target)])
        found = meaning(call)
        if found.kind != "opaque" and any(
            len(shape) != 3 for shape in (call.shape, *call.inputs)
        ):
            keeps = found.kind in ("act", "identity")
            why = "it does not work on images"
            return Meaning("opaque", why=why, role="keeps" if keeps else "")
        return found

    def _shared(self, module: nn.Module) -> str:
        """Say why the module's weights are not its own; "" if they are."""
        if self.calls[id(module)] > 1:
            return f"the module is used {self.calls[id(module)]} times"
        if any(self.owners[id(p)] > 1 for p in module.parameters(recurse=False)):
            return "its parameters are also used elsewhere"
        return ""

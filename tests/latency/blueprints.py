"""Blueprints made by hand, without torch."""

from __future__ import annotations

from dpcompress.blueprint import Blueprint, ConvSpec, Op, find_chains


class Builder:
    """Adds ops one after the other; every method returns the new op's index."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        self.ops = [Op(name="input", kind="input", shape=(channels, height, width))]

    def conv(
        self, x: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> int:
        channels, height, width = self.ops[x].shape
        pad = (kernel - 1) // 2
        spec = ConvSpec(
            in_channels=channels,
            out_channels=out,
            kernel=(kernel, kernel),
            stride=(stride, stride),
            padding=((pad, pad), (pad, pad)),
            groups=groups,
            bias=False,
        )
        size = [(n + 2 * pad - kernel) // stride + 1 for n in (height, width)]
        return self._add("conv", (x,), (out, *size), conv=spec)

    def norm(self, x: int) -> int:
        return self._add("norm", (x,), self.ops[x].shape)

    def act(self, x: int, act: str = "relu6") -> int:
        return self._add("act", (x,), self.ops[x].shape, act=act)

    def plus(self, x: int, y: int) -> int:
        return self._add("add", (x, y), self.ops[x].shape)

    def opaque(self, x: int, shape: tuple[int, ...]) -> int:
        return self._add("opaque", (x,), shape, why="it is not linear")

    def finish(self) -> Blueprint:
        layers, chains = find_chains(self.ops)
        channels, height, width = self.ops[0].shape
        return Blueprint(
            input=(channels, height, width),
            output=len(self.ops) - 1,
            ops=tuple(self.ops),
            layers=layers,
            chains=chains,
        )

    def _add(
        self, kind: str, inputs: tuple[int, ...], shape: object, **rest: object
    ) -> int:
        name = f"{kind}{len(self.ops)}"
        op = dict(name=name, kind=kind, inputs=inputs, shape=shape, **rest)
        self.ops.append(Op.model_validate(op))
        return len(self.ops) - 1


def small_residual(act: str = "relu6", size: int = 16) -> Blueprint:
    """Stem, an inverted residual with a skip, a basic block with a projection."""
    net = Builder(3, size, size)
    x = net.act(net.norm(net.conv(0, 16, 3, 2)), act)
    y = net.act(net.norm(net.conv(x, 32)), act)
    y = net.act(net.norm(net.conv(y, 32, 3, groups=32)), act)
    x = net.plus(x, net.norm(net.conv(y, 16)))
    y = net.act(net.norm(net.conv(x, 32, 3, 2)), act)
    y = net.norm(net.conv(y, 32, 3))
    shortcut = net.norm(net.conv(x, 32, 1, 2))
    x = net.act(net.plus(y, shortcut), act)
    net.opaque(x, (32,))
    return net.finish()


def mobilenet_v2(size: int = 224, act: str = "relu6") -> Blueprint:
    """MobileNetV2-1.0 (Sandler et al. 2018, Table 2): 52 convs and a classifier."""
    net = Builder(3, size, size)
    x = net.act(net.norm(net.conv(0, 32, 3, 2)), act)
    settings = (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    )
    for expansion, out, count, first_stride in settings:
        for i in range(count):
            channels, stride = net.ops[x].shape[0], first_stride if i == 0 else 1
            wide = channels * expansion
            y = net.act(net.norm(net.conv(x, wide)), act) if expansion > 1 else x
            y = net.act(net.norm(net.conv(y, wide, 3, stride, groups=wide)), act)
            y = net.norm(net.conv(y, out))
            x = net.plus(x, y) if stride == 1 and channels == out else y
    x = net.act(net.norm(net.conv(x, 1280)), act)
    net.opaque(x, (1280,))
    return net.finish()

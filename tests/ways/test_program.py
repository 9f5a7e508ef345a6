from dpcompress.blueprint import ConvSpec
from dpcompress.ways.program import Program, Source, Step

SHAPE = (4, 8, 8)


def test_asymmetric_padding_makes_another_program() -> None:
    def label(padding: tuple[tuple[int, int], tuple[int, int]]) -> str:
        conv = ConvSpec(in_channels=4, out_channels=4, kernel=(3, 3), padding=padding)
        return Step("conv", (0,), SHAPE, conv=conv).label

    assert label(((1, 1), (1, 1))) == "conv4k3p1(0)"
    assert label(((0, 2), (1, 1))) == "conv4k3pt0b2l1r1(0)"


def test_the_networks_own_input_makes_another_program() -> None:
    step = Step("act", (0,), SHAPE, act="relu")
    signatures = [
        Program((Source(SHAPE, raw),), (step,)).signature for raw in (False, True)
    ]
    assert signatures == ["4x8x8 > relu(0)", "raw4x8x8 > relu(0)"]

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from dpcompress.blueprint import Blueprint, Span, candidates
from dpcompress.errors import BadInput
from dpcompress.latency import Store, bench, profile
from dpcompress.onnxio.write import Graph, add_program
from dpcompress.runner import NETWORKS, Engine, OpTiming, Session, Target, measure
from dpcompress.runner.onnxruntime import OnnxRuntime
from dpcompress.tables import Key, LatencyTable
from dpcompress.ways import merge
from tests.latency.blueprints import Builder, small_residual

PROFILE = import_module("dpcompress.latency.profile")

QUICK = OpTiming(min_samples=5, max_samples=5, max_disturbed=0)


def chain(layers: int, channels: int = 64) -> Blueprint:
    net = Builder(channels, 16, 16)
    x = 0
    for _ in range(layers):
        x = net.act(net.norm(net.conv(x, channels, 3)), "relu")
    net.opaque(x, (channels,))
    return net.finish()


def network(blueprint: Blueprint, batch: int) -> bytes:
    """The original network of a plain chain."""
    graph = Graph("network", batch)
    tensor = graph.input(blueprint.input)
    for i in range(blueprint.depth):
        merged = candidates(blueprint)[Span(i, i + 1)]
        tensor = add_program(graph, merge.program(blueprint, merged, True), [tensor])
    return graph.finish({tensor: blueprint.input})


@pytest.fixture(scope="module")
def quick_table() -> LatencyTable:
    return profile(
        small_residual(),
        original=network(chain(1), 1),
        target=Target(threads=1),
        timing=QUICK,
    )


def test_has_every_candidate_with_the_flags_that_matter(
    quick_table: LatencyTable,
) -> None:
    blueprint, frame = small_residual(), quick_table.frame
    assert {*zip(frame["start"], frame["stop"], strict=True)} == {*candidates(blueprint)}
    flags = frame.groupby(["start", "stop"])["act_stop"].agg(list).to_dict()
    assert flags[3, 4] == [0, 1]  # after an add the activation is a pass of its own
    assert len(flags[0, 1]) == 1 and frame["act_stop"].isna().any()
    assert (frame["latency_ms"] >= 0).all() and (frame["samples"] == 5).all()


def test_header_says_how_it_was_made(quick_table: LatencyTable) -> None:
    header = quick_table.header
    assert header["engine"] == "onnxruntime" and header["threads"] == "1"
    assert header["blueprint"] == small_residual().digest
    assert quick_table.input == (3, 16, 16)
    times = quick_table.span_times(small_residual())
    singles = [ms for span, ms in times.items() if span.length == 1]
    closed = enumerate([True, True, True, False, True, True])
    rows = quick_table.times()
    assert singles == [rows[Key(n, n + 1, "merge", flag)] for n, flag in closed]
    total = sum(singles)
    assert float(header["single_layers_ms"]) == pytest.approx(total, abs=1e-5)
    assert quick_table.e2e_ms is not None
    left = max(quick_table.e2e_ms - total, 0)
    assert quick_table.fixed_ms == pytest.approx(left, abs=1e-5)


def test_survives_a_file(quick_table: LatencyTable, tmp_path: Path) -> None:
    quick_table.write(tmp_path / "T.csv")
    assert LatencyTable.read(tmp_path / "T.csv").to_csv() == quick_table.to_csv()


def test_measures_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(subjects, timing, log, **options):  # type: ignore[no-untyped-def]
        asked.append(sum(log.known(subject.key) is None for subject in subjects))
        return measure(subjects, timing, log, **options)

    monkeypatch.setattr(PROFILE, "measure", counted)
    with Store(tmp_path / "times.sqlite") as store:
        tables = [
            profile(
                chain(depth, 8),
                original=network(chain(depth, 8), 1),
                target=Target(threads=1),
                timing=QUICK,
                store=store,
            )
            for depth in (2, 2, 3)
        ]
    # Deeper: a new original, and the spans (1, 3] and (0, 3]. The first layer differs
    # from the others because it reads the network's own input.
    assert asked[1:] == [0, 3]
    assert tables[0].frame.equals(tables[1].frame)


def test_a_layer_that_the_engine_rejects_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = Target(threads=1).open()

    class Picky(Engine):
        name, identity = "picky", {"engine": "picky"}

        def load(self, onnx: bytes) -> Session:
            if self.refused in onnx:
                raise BadInput("The kernel is too large for this engine.")
            return opened.load(onnx)

        refused = b""

    engine = Picky()
    monkeypatch.setattr(Target, "open", lambda target: engine)
    blueprint = chain(3, 8)
    original = network(blueprint, 1)

    def make() -> LatencyTable:
        return profile(blueprint, original=original, target=Target(), timing=QUICK)

    # The shapes of kernels are attributes of the graph: (0, 3] is the only 7×7.
    engine.refused = bytes([0x40, 7, 0x40, 7])
    made = make()
    assert (0, 3) not in {*zip(made.frame["start"], made.frame["stop"], strict=True)}
    assert made.header["rejected_ops"] == "raw8x16x16 > conv8k7p3(0) relu(1)"
    engine.refused = bytes([0x40, 3, 0x40, 3])
    with pytest.raises(BadInput, match="too large"):
        make()


@pytest.mark.slow
def test_the_sum_predicts_a_network_that_was_not_measured() -> None:
    """A table of 4 layers predicts the network with its two middle layers merged."""
    blueprint = chain(4)
    latency = profile(
        blueprint, original=network(blueprint, 4), target=Target(threads=1, batch=4)
    )
    graph = Graph("merged", 4)
    tensor = graph.input(blueprint.input)
    predicted_ms = latency.fixed_ms
    for start, stop in ((0, 1), (1, 3), (3, 4)):
        merged = candidates(blueprint)[Span(start, stop)]
        tensor = add_program(graph, merge.program(blueprint, merged, True), [tensor])
        row = latency.frame.query(f"start == {start} and stop == {stop}")
        predicted_ms += row["latency_ms"].item()
    networks = {
        "original": network(blueprint, 4),
        "merged": graph.finish({tensor: blueprint.input}),
    }
    times = bench(networks, Target(threads=1))
    # How well is for experiments/latency; this finds a frame or a call counted twice.
    assert predicted_ms == pytest.approx(times["merged"].median_ms, rel=0.4)


def test_whole_networks_are_loaded_as_often_as_sessions_take_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loaded, load = [], OnnxRuntime.load

    def spy(self: OnnxRuntime, onnx: bytes) -> Session:
        loaded.append(load(self, onnx))
        return loaded[-1]

    monkeypatch.setattr(OnnxRuntime, "load", spy)
    timing = replace(NETWORKS, max_rounds=5, min_rounds=5)
    bench({"original": network(chain(2), 1)}, Target(threads=1), timing=timing)
    assert len({*map(id, loaded)}) == NETWORKS.sessions > 1

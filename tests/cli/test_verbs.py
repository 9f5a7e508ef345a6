"""The verbs on a small network, each reading what the one before it wrote."""

import json

import pytest

from dpcompress.blueprint import Limits, Plan, keep_everything
from dpcompress.graph import trace
from dpcompress.models import (
    Origin,
    load_model,
    read_metadata,
    read_origin,
    read_state_dict,
    save_weights,
)
from dpcompress.tables import LatencyTable


@pytest.fixture
def files(tmp_path, net):
    model = load_model(net)
    save_weights(tmp_path / "trained.safetensors", model.state_dict())
    blueprint = trace(model, (3, 8, 8))
    plan = Plan.build((0, 2, 3), (2, 3), blueprint=blueprint.digest, input=(3, 8, 8))
    (tmp_path / "plan.json").write_text(plan.to_json())
    everything = keep_everything(blueprint)
    (tmp_path / "everything.json").write_text(everything.to_json())
    return tmp_path


def test_inspect_counts_what_can_be_counted_by_hand(run, net):
    facts = run("inspect", net, "--input", "3x8x8", "--spans", "--json").json
    assert [layer["conv"] for layer in facts["layers"]] == [
        *("3x3 3>4", "3x3 4>4 stride 2", "3x3 4>4"),
    ]
    assert [layer["macs"] for layer in facts["layers"]] == [
        *(9 * 3 * 4 * 64, 9 * 4 * 4 * 16, 9 * 4 * 4 * 16),
    ]
    spans = {(span["start"], span["stop"]): span for span in facts["spans"]}
    assert len(spans) == 6
    assert spans[0, 2]["conv"] == "5x5 3>4 stride 2"
    assert spans[0, 2]["macs"] == 25 * 3 * 4 * 16
    assert spans[1, 3]["kernel"] == [7, 7]
    assert facts["spans_legal"] == 6


def test_inspect_prints_layers_and_spans(run, net):
    shown = run("inspect", net, "--input", "3x8x8", "--spans", "--model-args", "width=2")
    assert shown.code == 0
    assert "3x3 2>2 stride 2" in shown.out
    assert "relu" in shown.out
    assert "candidate" in shown.out


def test_inspect_says_why_a_convolution_is_no_layer_and_which_side_a_stride_is(
    run, tmp_path
):
    (tmp_path / "odd.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    twice = nn.Conv2d(4, 4, 1)\n"
        "    first = nn.Conv2d(3, 4, 3, stride=(2, 1), dilation=(1, 3))\n"
        "    return nn.Sequential(first, nn.ReLU(), twice, twice)\n"
    )
    asked = ("inspect", f"{tmp_path / 'odd.py'}:net", "--input", "3x9x9")
    facts = run(*asked, "--json").json
    assert facts["layers"][0]["conv"] == "3x3 3>4 stride 2x1 dilation 1x3"
    assert facts["left_alone"] == [{"name": "2", "why": "the module is used 2 times"}]
    assert "No layers: 2 (the module is used 2 times)." in run(*asked).out


def test_inspect_of_a_file_with_a_fault_says_where(run, tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("x = 1\nimport no_such_package\n")
    failed = run("inspect", f"{path}:net", "--input", "3x8x8")
    assert failed.code == 4
    assert f"{path}, line 2" in failed.err


@pytest.mark.slow
def test_merge_export_bench(run, net, files):
    trained, merged = files / "trained.safetensors", files / "merged.safetensors"
    plan = files / "plan.json"
    done = run("merge", net, "--plan", plan, "--weights", trained, "-o", merged, "--json")
    assert done.code == 0
    assert (done.json["layers_before"], done.json["layers"]) == (3, 2)
    assert json.loads((files / "certificate.json").read_text())["holds"] is True
    assert read_state_dict(merged)["3.weight"].shape == (4, 3, 5, 5)
    assert read_metadata(merged)["model"] == net

    small, large = files / "merged.onnx", files / "original.onnx"
    done = run("export", net, "--plan", plan, "--weights", merged, "-o", small, "--json")
    assert done.code == 0
    assert done.json["check"]["max_error"] <= done.json["check"]["tolerance"]
    done = run("export", net, "--weights", trained, "--input", "3x8x8", "-o", large)
    assert done.code == 0

    done = run("bench", large, small, "--threads", 1, "--json")
    assert done.code == 0
    rows = done.json["networks"]
    assert [row["input"] for row in rows] == ["1x3x8x8"] * 2
    assert rows[0]["speedup"] == 1
    assert all(0 < row["median_ms"] <= row["p90_ms"] for row in rows)


def test_limits_decide_what_is_a_candidate_and_travel_with_the_table(run, net, files):
    def candidates(*limits):
        facts = run("inspect", net, "--input", "3x8x8", *limits, "--json").json
        return facts["spans_candidate"], facts["spans_legal"]

    usual, legal = candidates()
    fewer, same = candidates("--max-growth", 1)
    assert fewer < usual and same == legal
    table = files / "few.csv"
    asked = ("--input", "3x8x8", "--max-growth", 1, "--threads", 1)
    run("profile", net, *asked, "-o", table)
    assert LatencyTable.read(table).limits == Limits(max_growth=1)
    assert len(LatencyTable.read(table).frame) == fewer


def test_export_refuses_weights_that_were_not_merged(run, net, files):
    plan, trained = files / "plan.json", files / "trained.safetensors"
    target = files / "x.onnx"
    failed = run("export", net, "--plan", plan, "--weights", trained, "-o", target)
    assert failed.code == 4
    assert not target.exists()


def test_weights_of_one_plan_are_not_taken_for_another(run, net, files):
    plan = Plan.from_json((files / "plan.json").read_text())
    other = Plan.build((0, 1, 3), (1, 3), blueprint=plan.blueprint, input=plan.input)
    (files / "other.json").write_text(other.to_json())
    state = read_state_dict(files / "trained.safetensors")
    tuned, merged = files / "tuned.safetensors", files / "merged.safetensors"
    origin = Origin(form="linearized", original="12ab", plan=plan.digest)
    save_weights(tuned, state, origin)

    def merge(plan_file, weights=tuned):
        asked = ("--plan", files / plan_file, "--weights", weights, "-o", merged)
        return run("merge", net, *asked)

    failed = merge("other.json")
    assert failed.code == 4 and not merged.exists()
    assert plan.digest in failed.err and other.digest in failed.err
    assert merge("plan.json").code == 0
    assert read_origin(merged) == origin.model_copy(update={"form": "merged"})
    assert merge("plan.json", merged).code == 4
    for plan_file, weights in (("plan.json", tuned), ("other.json", merged)):
        asked = ("--plan", files / plan_file, "--weights", weights)
        failed = run("export", net, *asked, "-o", files / "x.onnx")
        assert failed.code == 4 and plan.digest in failed.err
    failed = run("export", net, "--weights", tuned, "-o", files / "x.onnx")
    assert failed.code == 4 and "holds linearized weights" in failed.err
    assert not (files / "x.onnx").exists()


def test_weights_of_a_loop_of_ones_own_are_merged_with_a_word(run, net, files):
    merged = files / "merged.safetensors"
    asked = ("merge", net, "--plan", files / "plan.json", "-o", merged, "--weights")
    done = run(*asked, files / "trained.safetensors")
    assert done.code == 0 and "could not be checked" in done.err
    assert read_origin(merged).original is None
    original = Origin(form="original", original="12ab")
    state = read_state_dict(files / "trained.safetensors")
    save_weights(files / "trained.safetensors", state, original)
    done = run(*asked, files / "trained.safetensors")
    assert done.code == 0 and "could not be checked" not in done.err
    assert read_origin(merged).original == "12ab"


def test_export_refuses_another_input_size(run, net, files):
    failed = run(
        *("export", net, "--plan", files / "plan.json", "--input", "3x16x16"),
        *("--weights", files / "trained.safetensors", "-o", files / "x.onnx"),
    )
    assert failed.code == 2
    assert "3x8x8" in failed.err


def test_merge_refuses_a_plan_of_another_network(run, net, files):
    failed = run(
        *("merge", net, "--plan", files / "plan.json", "--model-args", "width=2"),
        *("--weights", files / "trained.safetensors", "-o", files / "x.safetensors"),
    )
    assert failed.code == 4
    assert not (files / "x.safetensors").exists()


def test_a_damaged_plan_names_the_field(run, net, files):
    text = (files / "everything.json").read_text()
    (files / "plan.json").write_text(text.replace('"choices"', '"borders"'))
    failed = run(
        *("merge", net, "--plan", files / "plan.json"),
        *("--weights", files / "trained.safetensors", "-o", files / "x.safetensors"),
    )
    assert failed.code == 4
    assert "plan.json" in failed.err and "choices" in failed.err


def test_bench_refuses_a_truncated_file(run, tmp_path):
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch:\xff\xff")
    failed = run("bench", tmp_path / "cut.onnx")
    assert failed.code == 4
    assert "cut.onnx" in failed.err


def test_doctor_finds_the_engine_that_the_tests_run_on(run):
    facts = run("doctor", "--json").json
    findings = {finding["what"]: finding for finding in facts["findings"]}
    assert facts["works"] and findings["onnxruntime"]["works"]
    units = facts["units"]
    told = ", ".join(f"{name}: {'yes' if units[name] else 'no'}" for name in units or {})
    assert findings["processor's units"]["found"] == (told or "unknown")
    for finding in findings.values():
        assert finding["works"] or finding["remedy"]

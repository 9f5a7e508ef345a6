"""Reading the inspector: its layouts from 8.5 to 11."""

import json

import pytest

from dpcompress.errors import EngineUnavailable
from dpcompress.runner.tensorrt.precision import check_precision


def engine(*layers: object) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]})


def layer(kind: str, weights: str | None = None, **output: str) -> dict[str, object]:
    made: dict[str, object] = {"Name": "a", "LayerType": kind, "Outputs": [output]}
    if weights:
        made["Weights"] = {"Type": weights, "Count": 12}
    return made


OLD = "Format/Datatype"
HALF_8 = {OLD: "Channel major FP16 format where channel % 8 == 0"}
FULL_8 = {OLD: "Row major linear FP32"}
HALF_11 = {"DataType": "Half", "Format": "Row major linear FP16 format (kLINEAR)"}


def test_layers_with_weights_count_and_mere_moves_do_not() -> None:
    layers = [
        layer("CaskConvolution", "Half", **HALF_8),
        layer("CaskConvolution", "Half", **HALF_8),
        layer("CaskConvolution", "Float", **FULL_8),
        *[layer("Reformat", None, **FULL_8)] * 9,
    ]
    assert check_precision(engine(*layers), "fp16") == {"fp16": 2, "fp32": 1}


@pytest.mark.parametrize("output", [HALF_8, HALF_11, {OLD: "Half"}])
def test_without_weights_the_outputs_tell(output: dict[str, str]) -> None:
    moved = layer("Reformat", None, **FULL_8)
    found = engine(moved, layer("PointWise", None, **output))
    assert check_precision(found, "fp16") == {"fp16": 1}
    with pytest.raises(EngineUnavailable, match="for fp32 but built 1 layers in fp16"):
        check_precision(found, "fp32")


def test_mostly_fp32_is_no_fp16_engine() -> None:
    layers = [layer("CaskConvolution", t, **FULL_8) for t in ("Half", "Float", "Float")]
    with pytest.raises(EngineUnavailable, match="1 layers in fp16, 2 layers in fp32"):
        check_precision(engine(*layers), "fp16")


def test_tf32_tactics_are_no_fp32() -> None:
    conv = layer("CaskConvolution", "Float", **FULL_8)
    conv["TacticName"] = "sm80_xmma_fprop_implicit_gemm_tf32f32_tf32f32_f32"
    assert check_precision(engine(conv), "tf32") == {"fp32": 1}
    with pytest.raises(EngineUnavailable, match="built 1 layers in tf32"):
        check_precision(engine(conv), "fp32")


def test_layers_that_tell_nothing_do_not_pass_for_fp16() -> None:
    """As with a profiling verbosity below DETAILED, where layers are names only."""
    names = engine("conv1", "conv2")
    assert check_precision(names, "fp32") == {"unknown": 2}
    with pytest.raises(EngineUnavailable, match="2 layers in unknown"):
        check_precision(names, "fp16")
    for text in ("", "[]", "{}"):
        with pytest.raises(EngineUnavailable, match="gives no layers"):
            check_precision(text, "fp32")

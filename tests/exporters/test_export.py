import numpy as np
import onnx
import pytest
import torch
from torch import nn

from dpcompress.errors import (
    UntraceableModel,
    UsageError,
    VerificationFailed,
)
from dpcompress.exporters import check_onnx, export
from dpcompress.models import load_model
from dpcompress.runner import Target

SHAPE = (3, 8, 8)


def small(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU6(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    net[1].running_mean.normal_()
    net[1].running_var.uniform_(0.5, 2)
    return net


def images(count, seed=1):
    return torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def exported():
    return export(small(), SHAPE, batch=4)


def test_shape_names_and_folded_norm(exported):
    graph = onnx.load_from_string(exported).graph
    assert [node.op_type for node in graph.node][:2] == ["Conv", "Clip"]
    assert "BatchNormalization" not in {node.op_type for node in graph.node}
    dims = graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [4, *SHAPE]
    assert (graph.input[0].name, graph.output[0].name) == ("input", "output")


def test_tensorrt_8_can_read_it(exported):
    """Its parser ignores axes that are an input, as they are from opset 18 on."""
    model = onnx.load_from_string(exported)
    assert (model.opset_import[0].version, model.ir_version) == (17, 8)
    (mean,) = (node for node in model.graph.node if node.op_type == "ReduceMean")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in mean.attribute}
    assert attributes == {"axes": [-1, -2], "keepdims": 1} and len(mean.input) == 1
    used = {name for node in model.graph.node for name in node.input}
    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert check_onnx(exported, small(), images(5)).images == 5


def test_a_newer_operator_keeps_its_opset():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Upsample(scale_factor=2)).eval()
    data = export(net, SHAPE, batch=2)
    assert onnx.load_from_string(data).opset_import[0].version == 18
    assert check_onnx(data, net, images(2)).images == 2


@pytest.mark.slow
def test_same_module_same_bytes(exported):
    export(nn.Sequential(nn.Conv2d(3, 2, 1)), SHAPE)  # no counter carries over
    assert export(small(), SHAPE, batch=4) == exported
    assert export(small(seed=1), SHAPE, batch=4) != exported


def test_nothing_of_the_machine_is_in_the_file(exported):
    model = onnx.load_from_string(exported)
    text = str(model)
    assert "doc_string" not in text and "metadata_props" not in text
    assert b".py" not in exported and b"site-packages" not in exported


def test_export_leaves_the_module_alone():
    net = small().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    export(net, SHAPE)
    assert net.training and net[1].training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_check_counts_every_image(exported):
    net = small().train()
    check = check_onnx(exported, net, images(10))  # not a multiple of the batch
    assert check.images == check.clear == check.same_top1 == 10
    assert 0 < check.max_error <= check.tolerance == 1e-4 * check.max_output
    assert net.training and net[3].training
    wanted = net.eval()(images(10)).detach().numpy()
    session = Target(threads=1).open().load(exported)
    found = session.infer({"input": images(10)[:4].numpy()})["output"]
    assert np.allclose(found, wanted[:4], atol=check.tolerance)


def test_check_finds_a_small_change(exported):
    net = small()
    with torch.no_grad():
        net[6].bias[2] += 2e-3
    with pytest.raises(VerificationFailed, match="differs from torch"):
        check_onnx(exported, net, images(4))


def test_check_finds_nan(exported):
    net = small()
    with torch.no_grad():
        net[6].bias[2] = float("nan")
    with pytest.raises(VerificationFailed):
        check_onnx(exported, net, images(4))


def test_check_needs_images_and_a_whole_file(exported):
    with pytest.raises(UsageError):
        check_onnx(exported, small(), images(0))
    with pytest.raises(VerificationFailed, match="not valid ONNX"):
        check_onnx(exported[: len(exported) // 2], small(), images(1))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class TwoOutputs(nn.Module):
    def forward(self, x):
        return x, x + 1


def test_what_cannot_be_exported_is_one_sentence():
    with pytest.raises(UntraceableModel, match="Branching"):
        export(Branching(), SHAPE)
    with pytest.raises(UntraceableModel, match="2 outputs"):
        export(TwoOutputs(), SHAPE)
    with pytest.raises(UntraceableModel, match="3x8x8"):
        export(nn.Conv2d(4, 1, 1), SHAPE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("mobilenet_v2", 32), ("resnet18", 64), ("vgg11_bn", 32)]
)
def test_real_networks(name, size):
    torch.manual_seed(0)
    net = load_model(f"torchvision:{name}", num_classes=10)
    if name.startswith("vgg"):  # its classifier alone has 120 million weights
        net.classifier = nn.Linear(512 * 7 * 7, 10)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    data = export(net, (3, size, size), batch=2)
    check = check_onnx(data, net, torch.randn(4, 3, size, size))
    assert check.same_top1 == check.clear == 4

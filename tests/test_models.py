import re
import sys
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from dpcompress.errors import (
    BadInput,
    CannotWrite,
    DpcompressWarning,
    MissingPackage,
    UsageError,
)
from dpcompress.models import (
    ModelTransform,
    Origin,
    default_input,
    load_model,
    load_weights,
    model_transform,
    read_metadata,
    read_origin,
    read_state_dict,
    require_origin,
    save_weights,
    weights_digest,
)

SPEC = "torchvision:squeezenet1_1"


def own(tmp_path, code):
    path = tmp_path / "own.py"
    path.write_text(code)
    return path


@pytest.fixture(scope="module")
def squeezenet():
    torch.manual_seed(0)
    return load_model(SPEC, num_classes=10)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_torchvision_with_arguments():
    model = load_model("torchvision:mobilenet_v2", None, {"width_mult": 0.35}, 7)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert not model.training


def test_unknown_names_get_the_nearest():
    with pytest.raises(UsageError, match="mobilenet_v2"):
        load_model("torchvision:mobilenetv2")
    with pytest.raises(UsageError, match="torchvision:NAME"):
        load_model("mobilenet_v2")
    with pytest.raises(UsageError, match="'wdth'"):
        load_model("torchvision:mobilenet_v2", None, {"wdth": 1})


def test_timm():
    pytest.importorskip("timm")
    model = load_model("timm:mobilenetv3_small_050", num_classes=4)
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 4)
    with pytest.raises(UsageError, match="mobilenetv3_small_050"):
        load_model("timm:mobilenetv3_smal_050")
    with pytest.raises(UsageError, match="4 classes"):
        load_model("timm:mobilenetv3_small_050", "default", num_classes=4)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackage, match="dpcompress\\[timm\\]") as failed:
        load_model("timm:mobilenetv3_small_050")
    assert failed.value.exit_code == 5


def test_own_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "parts.py").write_text("WIDTH = 5\n")
    path = own(
        tmp_path,
        "from torch import nn\nfrom parts import WIDTH\n"
        "def net(kernel=1):\n    return nn.Conv2d(3, WIDTH, kernel)\n",
    )
    assert load_model(f"{path}:net", None, {"kernel": 3}).weight.shape == (5, 3, 3, 3)
    with pytest.raises(UsageError, match="Did you mean net"):
        load_model(f"{path}:nett")
    with pytest.raises(UsageError, match="'width'"):
        load_model(f"{path}:net", None, {"width": 3})
    with pytest.raises(UsageError, match="default"):
        load_model(f"{path}:net", "default")
    with pytest.raises(UsageError, match="no file"):
        load_model(f"{tmp_path}/absent.py:net")


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("def net():\n    return 1 / 0\n", 2),
        ("import no_such_package\n", 1),
        ("x = 1\ny = (\n", 2),
    ],
)
def test_fault_in_an_own_file_names_the_line(tmp_path, code, line):
    path = own(tmp_path, code)
    with pytest.raises(BadInput, match=f"own.py, line {line}: "):
        load_model(f"{path}:net")


def test_own_function_must_return_a_module(tmp_path):
    path = own(tmp_path, "def net():\n    return 3\n")
    with pytest.raises(UsageError, match="returned int"):
        load_model(f"{path}:net")


@pytest.mark.parametrize("kind", ["safetensors", "pt", "checkpoint", "parallel"])
def test_weights_come_back(tmp_path, squeezenet, kind):
    state = squeezenet.state_dict()
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pt")
    if kind == "safetensors":
        save_weights(path, state)
    elif kind == "pt":
        torch.save(state, path)
    elif kind == "checkpoint":
        torch.save({"state_dict": state, "epoch": 3}, path)
    else:
        torch.save({f"module.{key}": value for key, value in state.items()}, path)
    assert same(load_model(SPEC, path, num_classes=10).state_dict(), state)


def test_weights_without_batch_counters_load(tmp_path):
    norm = nn.BatchNorm2d(4)
    nn.init.normal_(norm.weight)
    state = dict(norm.state_dict())
    del state["num_batches_tracked"]
    save_weights(tmp_path / "w.safetensors", state)
    other = nn.BatchNorm2d(4)
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.weight, norm.weight)


def test_equal_content_is_equal_bytes(tmp_path, squeezenet):
    state, facts = squeezenet.state_dict(), {"a": 1, "b": [2, None], "c": "x"}
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    origin = Origin(form="merged", original="12ab", plan="34cd")
    save_weights(first, state, origin, **facts)
    backwards = dict(reversed(facts.items()))
    save_weights(second, dict(reversed(state.items())), origin, **backwards)
    assert first.read_bytes() == second.read_bytes()
    assert read_metadata(first) == {**facts, "origin": origin.model_dump()}
    assert read_origin(first) == origin


def test_the_digest_of_weights_is_that_of_their_bits(squeezenet):
    state = squeezenet.state_dict()
    assert weights_digest(state) == weights_digest(dict(reversed(state.items())))
    name = next(iter(state))
    for other in (state[name] * (1 + 1e-6), state[name].double(), state[name][None]):
        assert weights_digest({**state, name: other}) != weights_digest(state)


def test_weights_are_held_against_their_origin(tmp_path):
    path, state = tmp_path / "w.safetensors", {"weight": torch.ones(1)}
    origin = Origin(form="linearized", original="12ab", plan="34cd")
    save_weights(path, state, origin)
    forms = ("original", "linearized")
    assert require_origin(path, form=forms, plan="34cd", original="12ab") == origin
    assert require_origin(path, form="linearized") == origin
    for asked, words in (
        ({"form": "merged"}, "linearized weights (of plan 34cd), not merged ones"),
        ({"form": "original"}, "linearized weights (of plan 34cd), not the original's"),
        ({"form": forms, "plan": "56ef"}, "the plan 34cd, not for the plan 56ef"),
        (
            {"form": forms, "original": "56ef"},
            "the original 12ab, not for the original 56ef",
        ),
    ):
        with pytest.raises(BadInput, match=re.escape(words)):
            require_origin(path, **asked)


@pytest.mark.parametrize("kind", ["ours", "foreign", "torch"])
def test_weights_without_an_origin_are_taken_with_a_warning(tmp_path, kind):
    path = tmp_path / ("w.pt" if kind == "torch" else "w.safetensors")
    state = {"weight": torch.ones(1)}
    if kind == "ours":
        save_weights(path, state, plan="of a former release")
    else:
        torch.save(state, path) if kind == "torch" else save_file(state, path)
    with pytest.warns(DpcompressWarning, match="could not be checked"):
        assert require_origin(path, form="merged", plan="34cd") is None
    with warnings.catch_warnings(action="error"):
        assert require_origin(path, form="original") is None


def test_a_malformed_origin_is_refused(tmp_path):
    path, state = tmp_path / "w.safetensors", {"weight": torch.ones(1)}
    for header in ('{"origin": {"form": "merged", "original": null}}', "{", "[]"):
        save_file(state, path, {"dpcompress": header})
        with pytest.raises(BadInput, match="w.safetensors"):
            read_origin(path)


def test_weights_of_another_class_count_say_so(tmp_path, squeezenet):
    save_weights(tmp_path / "w.safetensors", squeezenet.state_dict())
    with pytest.raises(BadInput, match="num_classes=10") as failed:
        load_model(SPEC, tmp_path / "w.safetensors")
    assert "10x512x1x1 in the file" in failed.value.message
    assert "1000x512x1x1 in the network" in failed.value.message


def test_missing_and_unknown_entries_are_refused(tmp_path):
    net = nn.Conv2d(1, 1, 1)
    state = net.state_dict()
    save_weights(tmp_path / "less.safetensors", {"weight": state["weight"]})
    with pytest.raises(BadInput, match="lacks bias"):
        load_weights(net, tmp_path / "less.safetensors")
    save_weights(tmp_path / "more.safetensors", {**state, "scale": torch.ones(1)})
    with pytest.raises(BadInput, match="unknown scale"):
        load_weights(net, tmp_path / "more.safetensors")


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.99])
def test_truncated_weights_are_one_sentence(tmp_path, name, part):
    path = tmp_path / name
    state = {"weight": torch.ones(100, 100)}
    save_weights(path, state) if name.endswith("s") else torch.save(state, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(BadInput, match=name):
        read_state_dict(path)


def test_a_pickled_model_is_not_unpickled(tmp_path):
    torch.save(nn.Linear(1, 1), tmp_path / "model.pt")
    with pytest.raises(BadInput, match="state_dict"):
        read_state_dict(tmp_path / "model.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(BadInput, match="other than a state dict"):
        read_state_dict(tmp_path / "list.pt")


def test_absent_weights_and_unwritable_folder(tmp_path):
    with pytest.raises(BadInput, match="no weights file"):
        read_state_dict(tmp_path / "absent.pt")
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotWrite, match="cannot be written"):
        save_weights(tmp_path / "file" / "w.safetensors", {"a": torch.ones(1)})


def test_preparation_is_that_of_the_pretrained_weights(tmp_path):
    imagenet = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    found = model_transform("torchvision:mobilenet_v2")
    assert found == ModelTransform(232, 224, *imagenet)
    assert default_input("torchvision:inception_v3") == (3, 299, 299)
    path = own(tmp_path, "")
    assert model_transform(f"{path}:net") is None
    assert default_input(f"{path}:net") == (3, 224, 224)

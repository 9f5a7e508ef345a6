"""Plans and blueprints as files."""

import pytest

from dpcompress.blueprint import Blueprint, Plan
from dpcompress.blueprint.data import Op
from dpcompress.errors import BadInput


def test_a_plan_comes_back_from_its_file():
    plan = Plan.build(
        (0, 2, 3), (2,), added_activations=(2,), budget_ms=1.5, input=(3, 8, 9)
    )
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.spans == ((0, 2), (2, 3))
    assert plan.merged == ((0, 2),)


def test_the_digest_of_a_plan_is_that_of_its_network():
    plan = Plan.build((0, 2, 3), (2, 3), blueprint="ab", budget_ms=1.5)
    assert plan.digest == Plan.build((0, 2, 3), (2, 3), blueprint="ab").digest
    others = [
        Plan.build((0, 1, 3), (3,), blueprint="ab"),
        Plan.build((0, 2, 3), (3,), blueprint="ab"),
        Plan.build((0, 2, 3), (2, 3), added_activations=(3,), blueprint="ab"),
        Plan.build((0, 2, 3), (2, 3), blueprint="cd"),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "plan"),
        ("{", "plan"),
        ("[]", "plan"),
        ('{"version": 2}', "version"),
        (Plan.build((0, 1), ()).to_json().replace("[\n  0,\n  1\n ]", "[1]"), "plan"),
    ],
)
def test_a_file_that_is_no_plan_is_refused_with_the_place(text: str, words: str):
    with pytest.raises(BadInput, match=words):
        Plan.from_json(text)


@pytest.mark.parametrize(
    "fault",
    [
        {"boundaries": (1, 2), "activations": ()},
        {"boundaries": (0, 2), "activations": (1,)},
        {"boundaries": (0, 2), "activations": (), "added_activations": (2,)},
    ],
)
def test_an_impossible_plan_is_refused(fault: dict):
    with pytest.raises(ValueError, match="boundar|activation"):
        Plan.build(**fault)


def test_a_truncated_blueprint_is_refused():
    with pytest.raises(BadInput, match="blueprint"):
        Blueprint.from_json('{"version": 1, "input": [3, 8, 8]', "b.json")


def test_tables_outlive_the_wording_of_a_barrier():
    def digest(why: str, kind: str = "opaque") -> str:
        image = Op(name="x", kind="input", shape=(3, 8, 8))
        last = Op(name="f", kind=kind, inputs=(0,), shape=(3, 8, 8), why=why)
        return Blueprint(
            input=(3, 8, 8), ops=(image, last), output=1, layers=(), chains=()
        ).digest

    assert digest("no convolution") == digest("is not a convolution")
    assert digest("", "norm") != digest("", "opaque")

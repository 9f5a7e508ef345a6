"""Plans and blueprints as files."""

import pytest

from dpcompress.blueprint import Blueprint, Choice, Plan
from dpcompress.blueprint.data import Op
from dpcompress.errors import BadInput


def test_a_plan_comes_back_from_its_file():
    plan = Plan.build(
        (0, 2, 3), (2,), added_activations=(2,), budget_ms=1.5, input=(3, 8, 9)
    )
    assert Plan.from_json(plan.to_json()) == plan
    assert plan.spans == ((0, 2), (2, 3))
    assert plan.merged == ((0, 2),)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "plan"),
        ("{", "plan"),
        ("[]", "plan"),
        ('{"version": 3}', "version"),
        (Plan.build((0, 1), ()).to_json().replace('"start": 0', '"start": 1'), "plan"),
        ('{"version": 2, "activations": []}', "choices"),
        ('{"version": 2, "choices": [], "activations": []}', "choices"),
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


VERSION_1 = """{
 "version": 1,
 "budget_ms": 2.0,
 "latency_ms": 1.5,
 "importance": -0.25,
 "spans": [[0, 2], [2, 3]],
 "boundaries": [0, 2, 3],
 "activations": [2, 3],
 "added_activations": [2],
 "blueprint": "0123456789abcdef",
 "input": [3, 8, 8]
}"""


def test_a_plan_of_version_1_is_read():
    assert Plan.from_json(VERSION_1) == Plan.build(
        (0, 2, 3),
        (2, 3),
        added_activations=(2,),
        budget_ms=2.0,
        predicted_ms=1.5,
        importance=-0.25,
        blueprint="0123456789abcdef",
        input=(3, 8, 8),
    )


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[0, 2, 3]", "[0, 1, 3]", "neighbours of boundaries"),
        ("[[0, 2], [2, 3]]", "[[0, 2], [1, 3]]", "rise"),
        ("[[0, 2], [2, 3]]", "[[0, 2], [3]]", "pairs"),
        ("[[0, 2], [2, 3]]", "3", "pairs"),
        ('"spans"', '"spam"', "pairs"),
        ("1.5", '"soon"', "predicted_ms"),
        ("[2, 3],", "[1, 3],", "activation"),
    ],
)
def test_a_faulty_plan_of_version_1_is_refused(old: str, new: str, words: str):
    with pytest.raises(BadInput, match=words):
        Plan.from_json(VERSION_1.replace(old, new))


def test_a_plans_lists_stand_on_one_line_each():
    text = Plan.build((0, 2, 3), (2, 3), predicted_ms=0.5).to_json()
    assert text.splitlines()[:8] == [
        "{",
        ' "version": 2,',
        ' "choices": [',
        '  {"start": 0, "stop": 2, "way": "merge"},',
        '  {"start": 2, "stop": 3, "way": "merge"}',
        " ],",
        ' "activations": [2, 3],',
        ' "added_activations": [],',
    ]


def test_the_digest_is_of_the_network_and_not_of_times():
    plan = Plan.build((0, 2, 3), (2, 3), added_activations=(2,))
    timed = plan.model_copy(update={"budget_ms": 2.0, "measured_ms": 1.9})
    assert plan.digest == timed.digest == Plan.from_json(timed.to_json()).digest
    choices = (Choice(start=0, stop=2, way="drop"), plan.choices[1])
    others = [
        Plan.build((0, 1, 3), (3,)),
        Plan.build((0, 2, 3), (2, 3)),
        Plan.build((0, 2, 3), (3,)),
        plan.model_copy(update={"blueprint": "0123456789abcdef"}),
        plan.model_copy(update={"choices": choices}),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 6


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

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.cli.options import (
    InputShape,
    parse_channels,
    parse_input,
    parse_model_arg,
)
from dpcompress.errors import UsageError


@given(st.tuples(*[st.integers(1, 5000)] * 3))
def test_input_reads_what_it_means(shape):
    assert parse_input("x".join(map(str, shape))) == InputShape(*shape)


@given(st.text(alphabet="0123456789xX.- ", max_size=12))
def test_input_is_positive_or_refused(text):
    try:
        assert min(parse_input(text)) > 0
    except UsageError as error:
        assert text in error.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", 1),
        ("a=0.5", 0.5),
        ("a=true", True),
        ("a=False", False),
        ("a=None", None),
        ("a=[[1,2],[3]]", [[1, 2], [3]]),
        ("a=relu", "relu"),
        ("a=", ""),
        ("a=b=c", "b=c"),
        ("a=__import__('os')", "__import__('os')"),
    ],
)
def test_model_arguments_are_typed(text, value):
    read = parse_model_arg(text)
    assert read == ("a", value)
    assert type(read.value) is type(value)


@pytest.mark.parametrize("text", ["a", "=1", "1a=2", "a b=2"])
def test_model_arguments_need_a_name(text):
    with pytest.raises(UsageError):
        parse_model_arg(text)


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=4))
def test_channels_round_trip(values):
    assert list(parse_channels(",".join(map(str, values)))) == values


def test_channels_must_be_numbers():
    with pytest.raises(UsageError):
        parse_channels("0.1,red")

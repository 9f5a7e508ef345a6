"""Settings that are written as text: sizes, channels, arguments, ranges."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpcompress.settings.network import parse_channels, parse_model_args, parse_size
from dpcompress.settings.solving import parse_numbers, parse_ranges


@given(st.tuples(*[st.integers(1, 5000)] * 3))
def test_a_size_reads_what_it_means(shape):
    assert parse_size("x".join(map(str, shape))) == shape
    assert parse_size(shape) is shape


@given(st.text(alphabet="0123456789xX.- ", max_size=12))
def test_a_size_is_positive_or_refused(text):
    try:
        assert min(parse_size(text)) > 0
    except ValueError as error:
        assert "CHANNELSxHEIGHTxWIDTH" in str(error)


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
    read = parse_model_args([text])
    assert read == {"a": value}
    assert type(read["a"]) is type(value)


@pytest.mark.parametrize("text", ["a", "=1", "1a=2", "a b=2"])
def test_model_arguments_need_a_name(text):
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_model_args([text])


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=4))
def test_channels_round_trip(values):
    assert list(parse_channels(",".join(map(str, values)))) == values


def test_channels_must_be_numbers():
    with pytest.raises(ValueError, match="one number per channel"):
        parse_channels("0.1,red")


def test_numbers_and_ranges():
    assert parse_numbers("3,5-7") == (3, 5, 6, 7)
    assert parse_ranges("4, 6-9") == ((4, 4), (6, 9))
    assert parse_numbers("") == ()
    for text in ("a", "3-", "-3", "7-5", "1-2-3", "٣"):
        with pytest.raises(ValueError, match="is no number or range"):
            parse_ranges(text)

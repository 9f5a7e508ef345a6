"""Tables round-trip exactly, and every fault is refused with its place."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpcompress.errors import BadTable
from dpcompress.runner import Target
from dpcompress.tables import ImportanceTable, Key, LatencyTable, ScoreKey

LATENCY = """# version: 1
# engine: onnxruntime
# input: 3x32x32
# fixed_ms: 0.5
# note: a key: of tomorrow
start,stop,latency_ms,spread_ms,op,samples
0,1,1.5,0.1,"conv, 3x3",30
0,2,2.25,0.1,abc,30
1,2,1.0,0.1,abc,30
"""
IMPORTANCE = """# version: 1
# alpha: 1.6
start,stop,act_start,act_stop,importance,accuracy,note
0,1,1,0,-0.01,0.7,
0,1,1,1,-0.02,0.71,x
1,2,0,1,0.125,,y
"""
TABLES = [(LatencyTable, LATENCY), (ImportanceTable, IMPORTANCE)]
Table = type[LatencyTable] | type[ImportanceTable]
anyfile = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(kind: Table, text: str | bytes, folder: Path) -> LatencyTable | ImportanceTable:
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return kind.read(path)


@pytest.mark.parametrize(("kind", "text"), TABLES)
def test_round_trip(kind: Table, text: str, tmp_path: Path) -> None:
    table = read(kind, text, tmp_path)
    table.write(tmp_path / "again.csv")
    again = kind.read(tmp_path / "again.csv")
    pd.testing.assert_frame_equal(again.frame, table.frame)
    assert again.header == table.header
    assert again.digest == table.digest
    assert (tmp_path / "again.csv").read_text() == again.to_csv()


def test_what_the_header_and_rows_say(tmp_path: Path) -> None:
    table = read(LatencyTable, LATENCY, tmp_path)
    assert isinstance(table, LatencyTable)
    assert (table.depth, table.input, table.blueprint) == (2, (3, 32, 32), "")
    assert (table.fixed_ms, table.single_layers_ms) == (0.5, 2.5)
    assert (table.e2e_ms, table.original_ms) == (None, 3.0)
    assert table.header["note"] == "a key: of tomorrow"
    with pytest.raises(BadTable, match="measured with"):
        _ = table.target
    on = {"device": "cuda: X", "precision": "fp16", "threads": 3, "batch": 8}
    measured = LatencyTable(table.frame, {**table.header, "e2e_ms": 4.25, **on})
    assert measured.target == Target("onnxruntime", "cuda", "fp16", 3, 8)
    assert (measured.e2e_ms, measured.original_ms) == (4.25, 4.25)
    assert LatencyTable(table.frame.iloc[:2]).original_ms is None
    scores = read(ImportanceTable, IMPORTANCE, tmp_path)
    assert isinstance(scores, ImportanceTable)
    assert scores.linear_positions == {1}


@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(1, 5),
            st.floats(0, 1e300),
            st.floats(0, 1e300),
            st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"])),
            st.sampled_from([None, 0, 1]),
        ),
        min_size=1,
        unique_by=lambda row: (row[0], row[1]),
    )
)
@settings(anyfile, max_examples=40)
def test_what_is_written_is_read_back(rows: list[tuple], tmp_path: Path) -> None:
    columns = ["start", "stop", "latency_ms", "spread_ms", "op", "act_stop"]
    frame = pd.DataFrame(rows, columns=columns)
    frame["stop"] += frame["start"]
    frame = frame.drop_duplicates(["start", "stop"])
    frame["op"] = frame["op"].str.strip()
    table = LatencyTable(frame, {"blueprint": "abc", "e2e_ms": 0.1 + 0.2})
    table.write(tmp_path / "table.csv")
    again = LatencyTable.read(tmp_path / "table.csv")
    pd.testing.assert_frame_equal(again.frame, table.frame, check_exact=True)
    assert again.header == table.header
    assert again.digest == table.digest


def test_the_published_layouts(tmp_path: Path) -> None:
    text = 'id,st,end,time,stdev,breaks\n0,0,1,1.25,0.5,"0,1"\n1,0,2,2,0.1,"0,1,2"\n'
    latency = read(LatencyTable, text, tmp_path)
    columns = ["start", "stop", "latency_ms", "spread_ms", "op", "samples"]
    assert list(latency.frame) == columns
    assert latency.frame["latency_ms"].tolist() == [1.25, 2.0]
    text = ",st,end,st_act,end_act,imp,acc\n0,0,1,1,1,-0.5,70.1\n1,0,1,1,0,0.25,71\n"
    scores = read(ImportanceTable, text, tmp_path)
    assert scores.frame["importance"].tolist() == [0.25, -0.5]
    assert scores.frame["acc"].tolist() == [71, 70.1]


@pytest.mark.parametrize(
    ("old", "new", "row", "column"),
    [
        ("1,2,1.0,", "1,2,nan,", 9, "latency_ms"),
        ("1,2,1.0,", "1,2,-1.0,", 9, "latency_ms"),
        ("1,2,1.0,", "1,2,inf,", 9, "latency_ms"),
        ("1,2,1.0,", "1,2,1e999,", 9, "latency_ms"),
        ("1,2,1.0,", "1,2,,", 9, "latency_ms"),
        ("1,2,1.0,", "1,2,1_0,", 9, "latency_ms"),
        ("1,2,1.0,0.1", "1,2,1.0,-0.1", 9, "spread_ms"),
        ("0,2,2.25,0.1,abc,30", "0,2,2.25,0.1,abc,-3", 8, "samples"),
        ("1,2,1.0,", "2,2,1.0,", 9, "stop"),
        ("1,2,1.0,", "1.5,2,1.0,", 9, "start"),
        ("1,2,1.0,", "-1,2,1.0,", 9, "start"),
        ("1,2,1.0,", "1,2000000000,1.0,", 9, "stop"),
        ("1,2,1.0,", "1,99999999999999999999999,1.0,", 9, "stop"),
        ("1,2,1.0,", "0,2,1.0,", 9, "stop"),
        ("1,2,1.0,0.1", "1,2,1.0", 9, None),
        ("latency_ms", "latency", None, "latency_ms"),
        ("spread_ms", "start", None, "start"),
        ("# version: 1", "# version: 2", None, "version"),
        ("# fixed_ms: 0.5", "# fixed_ms: nan", None, "fixed_ms"),
        ("# fixed_ms: 0.5", "# fixed_ms: -1", None, "fixed_ms"),
        ("# input: 3x32x32", "# input: 3x32", None, "input"),
        ("# engine: onnxruntime", "# engine", 2, None),
        ("# engine: onnxruntime", "# version: 1", 2, None),
        ('"conv, 3x3"', '"conv, 3x3', 9, None),
    ],
)
def test_a_faulty_latency_is_refused(
    old: str, new: str, row: int | None, column: str | None, tmp_path: Path
) -> None:
    assert old in LATENCY
    with pytest.raises(BadTable) as caught:
        read(LatencyTable, LATENCY.replace(old, new, 1), tmp_path)
    assert (caught.value.row, caught.value.column) == (row, column)
    assert str(tmp_path / "table.csv") in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "row", "column"),
    [
        ("0,1,1,0,", "0,1,1,2,", 4, "act_stop"),
        ("0,1,1,0,", "0,1,0.5,0,", 4, "act_start"),
        ("0,1,1,0,", "0,1,True,0,", 4, "act_start"),
        ("0,1,1,0,", "0,1,1,1,", 5, "act_stop"),
        ("-0.01", "-inf", 4, "importance"),
        ("-0.01", "", 4, "importance"),
    ],
)
def test_a_faulty_importance_is_refused(
    old: str, new: str, row: int, column: str, tmp_path: Path
) -> None:
    with pytest.raises(BadTable) as caught:
        read(ImportanceTable, IMPORTANCE.replace(old, new, 1), tmp_path)
    assert (caught.value.row, caught.value.column) == (row, column)


@pytest.mark.parametrize("flag", ["0", "1", ""])
def test_a_span_has_a_latency_for_both_flags_or_for_each(
    flag: str, tmp_path: Path
) -> None:
    text = f"start,stop,latency_ms,act_stop\n0,1,1,0\n0,1,2,{flag}\n"
    if flag == "1":
        frame = read(LatencyTable, text, tmp_path).frame
        assert frame["act_stop"].tolist() == [0, 1]
    else:
        with pytest.raises(BadTable, match="act_stop"):
            read(LatencyTable, text, tmp_path)


def test_a_blank_flag_and_an_absent_one_hold_for_both(tmp_path: Path) -> None:
    text = "start,stop,latency_ms,act_stop\n0,1,1,\n1,2,2,0\n1,2,3,1\n"
    times = read(LatencyTable, text, tmp_path).times()
    merge = [Key(0, 1, "merge", False), Key(0, 1, "merge", True)]
    merge += [Key(1, 2, "merge", False), Key(1, 2, "merge", True)]
    assert times == dict(zip(merge, [1, 1, 2, 3], strict=True))
    table = read(LatencyTable, LATENCY, tmp_path)
    assert table.times()[Key(0, 2, "merge", True)] == 2.25
    assert table.times()[Key(0, 2, "merge", False)] == 2.25
    scores = read(ImportanceTable, IMPORTANCE, tmp_path).scores()
    assert list(scores) == [
        ScoreKey(0, 1, "merge", True, False),
        ScoreKey(0, 1, "merge", True, True),
        ScoreKey(1, 2, "merge", False, True),
    ]
    assert list(scores.values()) == [-0.01, -0.02, 0.125]


def test_rows_of_several_ways(tmp_path: Path) -> None:
    text = "start,stop,way,latency_ms,act_stop\n"
    text += "0,1,merge,3,\n0,1,narrow:48,2,0\n0,1,narrow:48,2.5,1\n"
    table = read(LatencyTable, text, tmp_path)
    assert table.times() == {
        Key(0, 1, "merge", False): 3.0,
        Key(0, 1, "merge", True): 3.0,
        Key(0, 1, "narrow:48", False): 2.0,
        Key(0, 1, "narrow:48", True): 2.5,
    }
    assert table.single_layers_ms == 3.0
    assert read(LatencyTable, table.to_csv(), tmp_path).to_csv() == table.to_csv()
    for more in ("0,1,narrow:48,1,\n", "0,1,narrow:48,1,1\n", "0,1,,1,\n", "0,1,7,1,\n"):
        with pytest.raises(BadTable, match="way|act_stop"):
            read(LatencyTable, text + more, tmp_path)


def test_ways_are_written_only_where_there_are_several(tmp_path: Path) -> None:
    merge = LATENCY.replace("stop,", "stop,way,").replace(",1,", ",1,merge,", 1)
    merge = merge.replace("0,2,2", "0,2,merge,2").replace("1,2,1", "1,2,merge,1")
    plain = read(LatencyTable, LATENCY, tmp_path)
    assert read(LatencyTable, merge, tmp_path).to_csv() == plain.to_csv()
    scores = IMPORTANCE.replace("stop,act", "stop,way,act").replace("0,1,1", "0,1,drop,1")
    scores = scores.replace("1,2,0", "1,2,merge,0")
    found = read(ImportanceTable, scores, tmp_path)
    assert [key.way for key in found.scores()] == ["drop", "drop", "merge"]


@pytest.mark.parametrize(
    "content", [b"", b"\n\n", b"# version: 1\n", b"\xff\xfe", b"a\0b", b"start\n" * 9]
)
def test_what_is_no_table_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(BadTable):
        read(LatencyTable, content, tmp_path)
    with pytest.raises(BadTable):
        ImportanceTable.read(tmp_path)
    with pytest.raises(BadTable):
        LatencyTable.read(tmp_path / "absent.csv")


PIECES = st.one_of(
    st.sampled_from(["0", "1", "2", "-1", "nan", "inf", "1e400", "1e-400", "0x1", ""]),
    st.sampled_from([",", "\n", "\r", '"', "# ", ": ", "\0", "\ufeff", "\u2028", "٣"]),
    st.sampled_from(LATENCY.splitlines(keepends=True)),
    st.sampled_from(IMPORTANCE.splitlines(keepends=True)),
    st.sampled_from(["st,end,time,stdev\n", "st,end,st_act,end_act,imp\n"]),
    st.sampled_from(["start,stop,latency_ms,act_stop\n", "9" * 400, "\n0,1,1,1\n"]),
    st.sampled_from(["start,stop,way,latency_ms\n", "\n0,1,drop,1\n", ",merge,"]),
    st.text(max_size=8),
)


@pytest.mark.parametrize("kind", [LatencyTable, ImportanceTable])
@given(content=st.one_of(st.binary(max_size=200), st.lists(PIECES, max_size=30)))
@anyfile
def test_readers_survive_anything(
    kind: Table, content: bytes | list[str], tmp_path: Path
) -> None:
    if isinstance(content, list):
        content = "".join(content).encode("utf-8", "surrogatepass")
    try:
        table = read(kind, content, tmp_path)
    except BadTable as error:
        assert str(tmp_path) in str(error)
        return
    table.write(tmp_path / "again.csv")
    again = kind.read(tmp_path / "again.csv")
    assert again.to_csv() == table.to_csv()


@pytest.mark.parametrize(("kind", "text"), TABLES)
@given(data=st.data())
@anyfile
def test_readers_survive_any_change(
    kind: Table, text: str, data: st.DataObject, tmp_path: Path
) -> None:
    place = data.draw(st.integers(0, len(text)))
    removed = data.draw(st.integers(0, 20))
    changed = text[:place] + data.draw(PIECES) + text[place + removed :]
    try:
        table = read(kind, changed.encode("utf-8", "surrogatepass"), tmp_path)
    except BadTable:
        return
    assert table.depth >= 1

import json

from dpcompress.cli.output import _duration, emit, print_table, progress_bar


def test_emit_is_one_line_of_json(capsys):
    emit({"name": "größe", "value": 1.5, "none": None})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"name": "größe", "value": 1.5, "none": None}


def test_table_shows_cells_with_brackets_and_long_text(capsys):
    long = "x" * 120
    print_table(("name", "ms"), [("conv[0]", 1.23456), (long, 2.0)])
    out = capsys.readouterr().out
    assert "conv[0]" in out and "1.235" in out and long in out


def test_progress_off_a_terminal_is_few_plain_lines(capsys):
    with progress_bar("measure") as progress:
        for done in range(1, 1001):
            progress(done, 1000, "conv [1]")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "measure: 1000/1000, took 0 s  conv [1]\n"


def test_durations():
    assert [_duration(s) for s in (0.4, 59.4, 60, 3725)] == [
        *("0 s", "59 s", "1 min 00 s", "62 min 05 s"),
    ]

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMMAND = [sys.executable, "-m", "dpcompress"]


def test_help_names_every_registered_verb(run):
    shown = run("--help")
    assert shown.code == 0
    files = (ROOT / "dpcompress/cli").glob("*.py")
    verbs = {path.stem for path in files if f"\ndef {path.stem}(" in path.read_text()}
    verbs -= {"main"}
    lines = {line.strip("│ ").split(" ")[0] for line in shown.out.splitlines()}
    assert {"inspect", "merge", "export", "bench", "doctor"} <= verbs
    assert verbs <= lines


@pytest.mark.parametrize("verb", ["inspect", "merge", "export", "bench", "doctor"])
def test_every_verb_has_help_with_an_example(run, verb):
    shown = run(verb, "--help")
    assert shown.code == 0
    assert f"dpcompress {verb}" in shown.out
    assert "--json" in shown.out


def test_wrong_usage_is_exit_2(run):
    assert run("inspect").code == 2
    assert run("no-such-verb").code == 2
    assert run("inspect", "m", "--input", "3x3").code == 2


def test_an_expected_error_is_one_sentence_on_stderr(run):
    failed = run("inspect", "torchvision:mobilenetv2")
    assert failed.code == 2
    assert failed.out == ""
    assert failed.err.startswith("error: There is no model torchvision:mobilenetv2.")
    assert failed.err.count("\n") == 1
    assert "mobilenet_v2" in failed.err


def test_with_json_the_error_is_an_object_on_stdout(run):
    failed = run("bench", "absent.onnx", "--json")
    assert failed.code == 4 == failed.json["error"]["exit_code"]
    assert failed.json["error"]["kind"] == "BadInput"
    assert "absent.onnx" in failed.json["error"]["message"]
    assert failed.err == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a full device")
def test_a_full_disk_is_one_sentence():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "--version"], stdout=full, stderr=subprocess.PIPE, cwd=ROOT
        )
    assert done.returncode == 4
    assert done.stderr.startswith(b"error: The output cannot be written")
    assert done.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away_is_quiet():
    process = subprocess.Popen(
        [*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.wait()


@pytest.mark.slow
def test_interrupt_is_exit_130_without_traceback(tmp_path):
    code = "import time\ndef net():\n    print('made', flush=True)\n    time.sleep(60)\n"
    (tmp_path / "net.py").write_text(code)
    process = subprocess.Popen(
        [*COMMAND, "inspect", f"{tmp_path / 'net.py'}:net", "--input", "3x8x8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        # Tests that run in the background would hand on that interrupts are ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"made\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err

"""Run an experiment: ``python -m experiments NAME [options]``; without a name, list them.

A NAME is a folder and a file, as in ``cifar10.compare``; ``--help`` after it says more.
"""

import ast
import runpy
import sys
from pathlib import Path

HERE = Path(__file__).parent


def experiments() -> dict[str, str]:
    """The first sentence of each experiment's docstring, by name."""
    found = {}
    for path in sorted(HERE.glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if '__name__ == "__main__"' in text:
            about = ast.get_docstring(ast.parse(text)) or ""
            paragraph = " ".join(about.partition("\n\n")[0].split())
            found[f"{path.parent.name}.{path.stem}"] = paragraph
    return found


def main() -> None:
    known = experiments()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in known:
        sys.argv[:2] = [f"python -m experiments {name}"]
        runpy.run_module(f"experiments.{name}", run_name="__main__")
        return
    lines = [f"{key}\n    {about}" for key, about in known.items()]
    usage = "python -m experiments NAME [options]\n\n" + "\n".join(lines)
    if name in ("", "-h", "--help"):
        print(usage)
    else:
        sys.exit(f"There is no experiment {name}. Choose from: {', '.join(known)}.")


if __name__ == "__main__":
    main()

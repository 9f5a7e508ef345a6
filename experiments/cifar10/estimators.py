"""How alike two importance tables rank the spans of two and more layers: Kendall's τ.

    python -m experiments.cifar10.estimators RUN/importance_fit_….csv \\
        experiments/cifar10/finetune_importance.csv
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scipy.stats import kendalltau

from dpcompress.tables import ImportanceTable

ENTRY = ["start", "stop", "act_start", "act_stop"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", type=Path, nargs=2)
    one, other = (ImportanceTable.read(path).frame for path in parser.parse_args().tables)
    both = one.merge(other, on=ENTRY)
    both = both[(both["stop"] - both["start"] > 1) & (both["via_x"] == -1)]
    found = kendalltau(both["loss_x"], both["loss_y"])
    print(f"{len(both)} spans: tau {found.statistic:.2f} (p {found.pvalue:.1g})")


if __name__ == "__main__":
    main()

"""Every ranker on six public histories, each task left out in turn; nothing of it is observed.

Writes one JSON file a history as ``recsys-ms evaluate --json`` does, without its cells::

    python -m tests.benchmarks.leave_one_out results/leave_one_task_out/DATE-COMMIT
"""

import argparse
import json
from pathlib import Path
from typing import Final

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.evaluation.backtest import backtest
from tests.benchmarks.public_histories import load

#: Name in :mod:`tests.benchmarks.public_histories`, and the heading in ``docs/results.md``.
HISTORIES: Final = {
    "parc_controlled": "PARC controlled",
    "parc_all": "PARC all",
    "transfergraph_jobs": "TransferGraph jobs",
    "transfergraph_records": "TransferGraph records",
    "spider": "Model Spider",
    "zoo": "embedded zoo",
}
RANKERS: Final = ("popularity", "random", "static", "nmf", "lr", "fm", "gbdt", "auto")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--histories", default=",".join(HISTORIES))
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in args.histories.split(","):
        interactions, catalog = load(name)
        used = catalog if name == "zoo" else Catalog.empty()
        measured = backtest(interactions, RANKERS, catalog=used).to_json()
        kept = {key: value for key, value in measured.items() if key not in ("cells", "scenario")}
        kept["n_models"] = interactions.n_models
        (args.folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What tests ask of runs that a recorder wrote."""

import json

import pandas as pd

from recsys_ms.history.history import History


def only(history: History) -> pd.Series:
    """The one run of a history."""
    runs = history.runs()
    assert len(runs) == 1
    return runs.iloc[0]


def tags(run: pd.Series) -> dict[str, str]:
    """The tags of a run, none where none were written."""
    return json.loads(run["tags"]) if isinstance(run["tags"], str) else {}

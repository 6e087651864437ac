"""Says why nothing can be learned from a history as a whole."""

from recsys_ms.history.history import History


def pairing_problem(history: History, metric: str | None = None) -> str | None:
    """Why no two models can be compared in any task; ``None`` where some can, or with one task.

    Parameters
    ----------
    history : History
        Its finished runs with a value count.
    metric : str, optional
        Only runs in this metric count.

    Returns
    -------
    str or None
        The counts, the probable cause and the way out.
    """
    counts = history.query(
        "SELECT task_id, metric, count(DISTINCT model_id) AS n FROM runs "
        "WHERE status = 'finished' AND value IS NOT NULL "
        "GROUP BY ALL ORDER BY task_id, metric"
    )
    if metric is not None:
        counts = counts[counts["metric"] == metric]
    n_tasks = counts["task_id"].nunique()
    if n_tasks < 2 or (counts["n"] > 1).any():
        return None
    first = counts["task_id"].iloc[0]
    return (
        f"{n_tasks} tasks, none with two models in one metric, so that nothing can be compared: "
        f"was the task taken from the folder of each run (the first is {first!r})? Name the data "
        "set instead, for example with --map task_id='{args.dataset}', and take the wrong ingest "
        "back: 'recsys-ms ingests' lists them, 'recsys-ms retract' takes one back"
    )

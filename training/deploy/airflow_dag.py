"""Airflow: the nightly job once a day; copy this file into the folder of DAGs.

Needs ``apache-airflow-providers-standard``. The worker needs recsys-ms in an environment of its own
(Airflow pins many packages) and the disk with history and registry.
"""

from datetime import timedelta

import pendulum
from airflow import DAG
from airflow.providers.standard.operators.bash import BashOperator

RECSYS_MS = "/opt/recsys-ms/.venv/bin/recsys-ms"
CONFIG = "/etc/recsys-ms/nightly.toml"

with DAG(
    dag_id="recsys_ms_nightly",
    description="Retrain, judge and publish the ranker of recsys-ms",
    schedule="0 3 * * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="UTC"),
    # A job takes in all that came since the last: nights that were missed are not made up.
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 1, "retry_delay": timedelta(minutes=10)},
):
    BashOperator(
        task_id="nightly",
        bash_command=f"{RECSYS_MS} nightly --config {CONFIG}",
        # 4: the published ranker stays, or another job is at work
        skip_on_exit_code=4,
        execution_timeout=timedelta(hours=4),
        do_xcom_push=False,
    )

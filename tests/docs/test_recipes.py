"""Recipes of ``training/deploy``: each is what its system reads, and says what we mean."""

import ast
import configparser
import fcntl
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import ROOT

from recsys_ms.history.embedded import embedded_folder
from recsys_ms.history.history import History
from recsys_ms.history.readers.table import read_table
from recsys_ms.nightly.settings import NightlyConfig

DEPLOY = ROOT / "training" / "deploy"
EXECUTABLE = Path(sys.executable).with_name("recsys-ms")
INSTALLED = "/opt/recsys-ms/.venv/bin/recsys-ms"
NIGHTLY = "nightly --config /etc/recsys-ms/nightly.toml"


def test_settings_are_read() -> None:
    settings = NightlyConfig.from_toml(DEPLOY / "nightly.toml")
    assert settings.history == Path("/var/lib/recsys-ms/history")
    assert settings.registry == Path("/var/lib/recsys-ms/registry")
    assert settings.backtest.executor == "processes:2"


# cron


def cron_command() -> str:
    lines = (DEPLOY / "recsys-ms.cron").read_text(encoding="utf-8").splitlines()
    jobs = [line for line in lines if line and line[0] in "0123456789*"]
    assert len(jobs) == 1
    minute, hour, day, month, weekday, user, command = jobs[0].split(maxsplit=6)
    assert (minute, hour, day, month, weekday) == ("0", "3", "*", "*", "*")
    assert user == "recsys-ms"
    # cron ends a command at a percent sign
    assert "%" not in command
    return command


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a history and settings that train in a moment."""
    folder = tmp_path_factory.mktemp("deploy")
    runs = embedded_folder() / "runs.parquet"
    History.open(folder / "history").ingest(read_table(runs), curves=False)
    (folder / "nightly.toml").write_text(
        'history = "history"\nregistry = "registry"\n[ranker]\nranker = "popularity"\n'
        "[backtest]\nmax_tasks = 3\n[report]\nlearning_curve = []\n"
    )
    return folder


def run_cron(place: Path) -> subprocess.CompletedProcess[str]:
    command = cron_command()
    for installed, here in (
        (INSTALLED, str(EXECUTABLE)),
        ("/etc/recsys-ms", str(place)),
        ("/var/lib/recsys-ms", str(place)),
    ):
        assert installed in command
        command = command.replace(installed, here)
    return subprocess.run(
        ["/bin/bash", "-c", command], capture_output=True, text=True, check=False, timeout=300
    )


def test_cron_is_silent_when_all_is_well(place: Path) -> None:
    done = run_cron(place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert '"outcome": "published"' in (place / "nightly.json").read_text(encoding="utf-8")


def test_cron_is_silent_when_another_job_is_at_work(place: Path) -> None:
    (place / "registry").mkdir(exist_ok=True)
    with (place / "registry" / ".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run_cron(place)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "held by another process" in (place / "nightly.log").read_text(encoding="utf-8")


def test_cron_prints_the_log_of_a_failure(place: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(place, tmp_path / "broken", symlinks=True)
    (broken / "nightly.toml").write_text('history = "history"\n')
    done = run_cron(broken)
    assert done.returncode == 1
    assert "registry is not set" in done.stdout


# systemd


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name, encoding="utf-8")
    return parser


def test_systemd_units_say_what_we_mean() -> None:
    service, timer = unit("recsys-ms-nightly.service"), unit("recsys-ms-nightly.timer")
    assert service["Service"]["ExecStart"] == f"{INSTALLED} {NIGHTLY}"
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["SuccessExitStatus"] == "4"
    assert timer["Timer"]["OnCalendar"] == "*-*-* 03:00"
    assert timer["Timer"]["Persistent"] == "true"
    # what the settings write to is what the unit may write to
    assert service["Service"]["StateDirectory"] == "recsys-ms"
    settings = NightlyConfig.from_toml(DEPLOY / "nightly.toml")
    assert settings.history.is_relative_to("/var/lib/recsys-ms")


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not here")
    for name in ("recsys-ms-nightly.service", "recsys-ms-nightly.timer"):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(text.replace(INSTALLED, str(EXECUTABLE)))
    done = subprocess.run(
        [analyze, "verify", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    # an unknown key is a warning, and the exit code stays 0
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# Kubernetes


def test_cronjob_says_what_we_mean(tmp_path: Path) -> None:
    with (DEPLOY / "cronjob.yaml").open(encoding="utf-8") as handle:
        documents = {each["kind"]: each for each in yaml.safe_load_all(handle)}
    assert set(documents) == {"PersistentVolumeClaim", "ConfigMap", "CronJob"}
    cronjob = documents["CronJob"]
    assert cronjob["apiVersion"] == "batch/v1"
    assert cronjob["spec"]["schedule"] == "0 3 * * *"
    assert cronjob["spec"]["concurrencyPolicy"] == "Forbid"
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    sources = {each["name"]: each for each in pod["volumes"]}
    assert set(mounts.values()) == set(sources)
    claim = sources[mounts["/data"]]["persistentVolumeClaim"]["claimName"]
    assert claim == documents["PersistentVolumeClaim"]["metadata"]["name"]
    config_map = sources[mounts["/etc/recsys-ms"]]["configMap"]["name"]
    assert config_map == documents["ConfigMap"]["metadata"]["name"]
    (tmp_path / "nightly.toml").write_text(documents["ConfigMap"]["data"]["nightly.toml"])
    settings = NightlyConfig.from_toml(tmp_path / "nightly.toml")
    assert settings.history.is_relative_to("/data")
    assert settings.registry.is_relative_to("/data")
    # as many processes as the container has processors
    processors = container["resources"]["limits"]["cpu"]
    assert settings.backtest.executor == f"processes:{processors}"
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["OMP_NUM_THREADS"] == processors


@pytest.mark.parametrize(("answer", "wanted"), [(0, 0), (3, 1), (4, 0)])
def test_cronjob_takes_a_refusal_for_no_failure(answer: int, wanted: int, tmp_path: Path) -> None:
    with (DEPLOY / "cronjob.yaml").open(encoding="utf-8") as handle:
        (cronjob,) = (d for d in yaml.safe_load_all(handle) if d["kind"] == "CronJob")
    pod = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    shell, flag, command = pod["containers"][0]["command"]
    assert command.startswith(f"recsys-ms {NIGHTLY} ")
    program = tmp_path / "recsys-ms"
    program.write_text(f"#!/bin/sh\nexit {answer}\n")
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([shell, flag, command], check=False, env=environment, timeout=60)
    assert done.returncode == wanted


def test_containerfile_installs_the_package_and_starts_it() -> None:
    text = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
    words = [shlex.split(line) for line in text.splitlines() if line and line[0] != "#"]
    assert [line[0] for line in words] == ["FROM", "RUN", "COPY", "RUN", "USER", "ENTRYPOINT"]
    assert "/src" in words[3]
    assert words[-1][1] == "[recsys-ms]"


# Airflow


def test_dag_compiles_and_says_what_we_mean() -> None:
    # Airflow pins many packages and is not installed here: the file is compiled and read.
    path = DEPLOY / "airflow_dag.py"
    source = path.read_text(encoding="utf-8")
    compile(source, str(path), "exec")
    tree = ast.parse(source)
    names = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert f"{names['RECSYS_MS']} nightly --config {names['CONFIG']}" == f"{INSTALLED} {NIGHTLY}"
    calls = {
        node.func.id: {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls["DAG"]["schedule"] == "'0 3 * * *'"
    assert calls["DAG"]["catchup"] == "False"
    assert calls["DAG"]["max_active_runs"] == "1"
    assert calls["BashOperator"]["bash_command"] == "f'{RECSYS_MS} nightly --config {CONFIG}'"
    assert calls["BashOperator"]["skip_on_exit_code"] == "4"

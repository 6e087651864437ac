"""Every verb as a user calls it: answers on stdout, everything else on stderr, exit codes."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from nightly_history import logged_history
from warm import warm

from recsys_ms.catalog.catalog import Catalog
from recsys_ms.cli.app import VERBS
from recsys_ms.history.embedded import embedded_folder
from recsys_ms.history.history import History
from recsys_ms.history.inbox.inbox import record_run

EXECUTABLE = Path(sys.executable).with_name("recsys-ms")


def run(*arguments: object, cwd: Path, columns: int = 200) -> subprocess.CompletedProcess[str]:
    return warm().run(*arguments, cwd=cwd, env={"COLUMNS": str(columns), "NO_COLOR": "1"})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a history, a catalog, a published ranker and an artifact."""
    folder = tmp_path_factory.mktemp("cli")
    logged_history(folder / "h")
    (folder / "cards.csv").write_text(
        "model_id,n_parameters,gmacs,licence\n"
        + "".join(f"m{j},{(j + 1) * 1_000_000},0.{j + 1},mit\n" for j in range(8))
    )
    done = run("ingest", "cards.csv", "--as", "model-cards", "--catalog", "c", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "n.toml").write_text(
        'history = "h"\nregistry = "r"\ncatalog = "c"\n[ranker]\nranker = "nmf"\n'
    )
    done = run("nightly", "--config", "n.toml", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "published"
    return folder


@pytest.mark.parametrize(
    "verb",
    [None, *VERBS],
)
def test_help_of_every_verb(verb: str | None, tmp_path: Path) -> None:
    done = run(*([verb] if verb else []), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "--help" in done.stdout
    assert not done.stderr


def test_version_by_the_installed_script(tmp_path: Path) -> None:
    command = [str(EXECUTABLE), "--version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == run("--version", cwd=tmp_path).stdout
    assert done.stdout.strip()[0].isdigit()


def test_the_line_of_the_design_page(tmp_path: Path, shared_data: Path) -> None:
    source = shared_data / "histories" / "raw" / "parc_controlled.csv"
    line = [
        *("ingest", source, "--history", "H", "--map", "model_id={Architecture}@{Source Dataset}"),
        *("--map", "task_id={Target Dataset}", "--map", "value={Oracle}"),
        *("--set", "metric=accuracy", "--set", "direction=max", "--unit", "percent", "--json"),
    ]
    first = run(*line, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout)["sources"][str(source)]["n_new"] == 196
    again = json.loads(run(*line, cwd=tmp_path).stdout)["sources"][str(source)]
    assert (again["n_new"], again["n_duplicate"]) == (0, 196)


@pytest.mark.parametrize(
    ("preset", "file", "options", "n_new", "n_left_out"),
    [
        ("parc", "parc_controlled.csv", (), 196, 0),
        ("parc", "parc_all.csv", (), 469, 0),
        ("transfergraph-ftrecords", "transfergraph/ftrecords_img.csv", (), 6936, 35),
        (
            "transfergraph-records",
            "transfergraph/records.csv",
            ("--where", "finetuned_dataset <> 'food101'"),
            2141,
            112,
        ),
        ("spider-multisource", "spider_multisource_accuracy.csv", (), 462, 0),
    ],
)
def test_public_histories_from_the_command_line_alone(
    tmp_path: Path,
    shared_data: Path,
    preset: str,
    file: str,
    options: tuple[str, ...],
    n_new: int,
    n_left_out: int,
) -> None:
    source = shared_data / "histories" / "raw" / file
    done = run("ingest", source, "-H", "H", "--preset", preset, *options, "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)["sources"][str(source)]
    assert (report["n_new"], report["n_left_out"]) == (n_new, n_left_out)
    assert report["n_quarantined"] == 0


def test_timm_results_and_their_cards(tmp_path: Path, shared_data: Path) -> None:
    raw = shared_data / "histories" / "raw" / "timm"
    files = sorted(raw.glob("results-*.csv"))
    done = run("ingest", *files, "-H", "H", "--preset", "timm-results", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)["sources"]
    assert [report["n_new"] for report in reports.values()] == [1556] * 6
    benchmark = next(raw.glob("benchmark-infer*.csv"))
    for preset, file in (
        ("timm-models", raw / "results-imagenet.csv"),
        ("timm-benchmark", benchmark),
        ("timm-metadata", raw / "model_metadata-in1k.csv"),
    ):
        done = run("ingest", file, "-H", "H", "--catalog", "C", "--preset", preset, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    from recsys_ms.catalog.catalog import Catalog

    card = Catalog.read(tmp_path / "C").model_card("resnet50.a1_in1k")
    assert card.architecture == "resnet50"
    assert card.n_parameters == 25_560_000
    assert card.gmacs is not None


def test_cards_of_timms_architectures_for_the_models_of_a_history(tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        "model_id,task_id,value\nresnet50@birds,cats,0.5\nresnet50.a1_in1k,cats,0.6\nown,cats,0.7\n"
    )
    sets = ("--set", "metric=accuracy", "--set", "direction=max")
    assert run("ingest", "runs.csv", "-H", "h", *sets, cwd=tmp_path).returncode == 0
    timm = embedded_folder("timm")
    cards = ("--as", "model-cards", "-C", "c", "-H", "h", "--json")
    done = run("ingest", "embedded:timm", *cards, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    catalog = Catalog.read(tmp_path / "c")
    given = [catalog.model_card(name) for name in ("resnet50@birds", "resnet50.a1_in1k")]
    assert given[0].embedding == given[1].embedding is not None
    assert [card.family for card in given] == ["resnet", "resnet"]
    assert given[1].licence == "apache-2.0"
    assert catalog.find_model_card("own") is None
    again = run("ingest", timm, "--as", "model-cards", "-C", "d", "--unit", "percent", cwd=tmp_path)
    assert again.returncode == 2
    assert "has cards already" in again.stderr
    unknown = run("ingest", "embedded:nosuch", *cards, cwd=tmp_path)
    assert unknown.returncode == 3
    assert "embedded data (nosuch)" in unknown.stderr
    (tmp_path / "empty").mkdir()
    empty = run("ingest", "empty", "--as", "model-cards", "-C", "d", cwd=tmp_path)
    assert empty.returncode == 3
    assert "holds no model cards" in empty.stderr


def test_recommend_for_people_and_for_programs(place: Path) -> None:
    done = run("recommend", "-R", "r", "--task", "new", "--top", 3, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [row["rank"] for row in answer["models"]] == [1, 2, 3]
    assert answer["models"][0]["model_id"] == "m7"
    assert answer["known_task"] is False
    assert all(row["reasons"] for row in answer["models"])
    short = run("recommend", "-R", "r", "--task", "new", "--top", 3, "--no-reasons", cwd=place)
    assert "why" not in short.stdout
    assert "m7" in short.stdout
    bare = run(
        *("recommend", "-R", "r", "--task", "new", "--top", 3, "--no-reasons", "--json"), cwd=place
    )
    assert json.loads(bare.stdout)["models"] == [
        {name: value for name, value in row.items() if name != "reasons"}
        for row in answer["models"]
    ]
    table = run("recommend", "-R", "r", "--task", "t1", "--top", 2, cwd=place)
    assert "known task" in table.stdout
    assert "m7" in table.stdout
    warm = run(
        *("recommend", "-R", "r", "--task", "new", "--observed", "m7=0.9", "--json"),
        *("--max-params", 3, "--licence", "MIT"),
        cwd=place,
    )
    assert {row["model_id"] for row in json.loads(warm.stdout)["models"]} == {"m0", "m1", "m2"}


def test_a_table_fits_a_narrow_terminal(place: Path) -> None:
    # A terminal of its own, since a pipe has no width.
    parent, child = pty.openpty()
    with open(parent, "rb", closefd=True):
        done = subprocess.run(
            [str(EXECUTABLE), "recommend", "-R", "r", "--task", "new", "--top", "2"],
            cwd=place,
            stdout=child,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "dumb"},
        )
        os.close(child)
        seen = os.read(parent, 65536).decode()
    assert done.returncode == 0
    lines = [line.rstrip() for line in re.sub("\x1b[^m]*m", "", seen).splitlines()]
    assert max(map(len, lines)) <= 80
    assert any("m7" in line and "…" in line for line in lines), "one line a model"
    assert "1. m7" in lines


def test_recommend_by_card(place: Path) -> None:
    (place / "card.json").write_text('{"task_id": "birds", "n_classes": 200}')
    done = run("recommend", "-R", "r", "--card", "card.json", "--json", cwd=place)
    assert json.loads(done.stdout)["task"] == "birds"
    (place / "bad.json").write_text('{"task_id": "birds", "classes": 200}')
    done = run("recommend", "-R", "r", "--card", "bad.json", cwd=place)
    assert done.returncode == 3
    assert "a card has no field classes" in done.stderr


def test_evaluate_writes_the_documented_json(place: Path) -> None:
    done = run(
        *("evaluate", "-H", "h", "--rankers", "popularity,nmf", "--json", "out.json"), cwd=place
    )
    assert done.returncode == 0, done.stderr
    assert "oracle" in done.stdout
    document = json.loads((place / "out.json").read_text())
    assert document["protocol"] == "leave-one-task-out"
    assert document["history_version"] == 1
    nmf = document["rankers"]["nmf"]
    metrics = {"pearson", "spearman", "weighted_tau", "ndcg@5", "regret@1", "regret@5", "seconds"}
    assert set(nmf["mean"]) == metrics
    assert set(nmf["per_task"]) == {f"t{i}" for i in range(6)}
    low, high = nmf["interval"]["pearson"]
    assert low <= nmf["mean"]["pearson"] <= high
    early = run("evaluate", "-H", "no history", "--json", "no folder/out.json", cwd=place)
    assert early.returncode == 2
    assert "--json no folder/out.json: the folder no folder does not exist" in early.stderr
    piped = run("evaluate", "-H", "h", "--rankers", "popularity", "--json", "-", cwd=place)
    assert json.loads(piped.stdout)["rankers"]["oracle"]["mean"]["regret@1"] == 0


def test_evaluate_compares_with_any_row(place: Path) -> None:
    asked = ("evaluate", "-H", "h", "--rankers", "nmf,lr", "--against")
    done = run(*asked, "nmf", "--markdown", "--json", "against.json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "better / worse than nmf" in done.stdout
    document = json.loads((place / "against.json").read_text())
    assert document["reference"] == "nmf"
    assert document["rankers"]["nmf"]["difference_to_nmf"]["pearson"]["mean"] == 0
    refused = run(*asked, "gbdt", cwd=place)
    assert refused.returncode == 2
    assert "choose from popularity, random, static, nmf, lr, oracle" in refused.stderr


def test_train_then_recommend_from_the_artifact(place: Path) -> None:
    done = run("train", "-H", "h", "--ranker", "popularity", "--out", "art", cwd=place)
    assert done.returncode == 0, done.stderr
    again = run("train", "-H", "h", "--ranker", "popularity", "--out", "art", cwd=place)
    assert again.returncode == 3
    assert "never overwritten" in again.stderr
    done = run("recommend", "--artifact", "art", "--task", "x", "--json", cwd=place)
    assert json.loads(done.stdout)["models"][0]["model_id"] == "m7"


def test_inbox_quarantine_and_replay(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("model,task,acc\na,t,0.5\nb,t,91\nc,t,oops\n")
    line = [
        *("ingest", "log.csv", "-H", "H", "--map", "model_id={model}", "--map", "task_id={task}"),
        *("--map", "value={acc}", "--set", "metric=accuracy", "--set", "direction=max"),
    ]
    done = run(*line, "--unit", "fraction", cwd=tmp_path)
    assert done.returncode == 3
    assert "--unit percent" in done.stderr
    assert "log.csv:3" in done.stderr
    assert "2 rows wait in quarantine" in done.stderr
    assert "Traceback" not in done.stderr
    replay = run(
        *("ingest", "--replay", "-H", "H", "--json", *line[4:], "--unit", "percent"), cwd=tmp_path
    )
    report = json.loads(replay.stdout)
    assert report["sources"]["replay"]["n_new"] == 1
    assert report["n_in_quarantine"] == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("frobnicate",), 2, "No such command"),
        (("ingest",), 2, "nothing to ingest"),
        (("ingest", "x.csv", "--map", "value"), 2, "expected FIELD=TEXT"),
        (("ingest", "x.csv", "--preset", "parcc"), 2, "did you mean 'parc'"),
        (("ingest", "absent.csv", "--preset", "parc"), 3, "absent.csv"),
        (("ingest", "empty.csv", "--preset", "parc"), 3, "empty"),
        (("ingest", "semi.csv", "--preset", "parc"), 3, "delimiter"),
        (("ingest", "comma.csv", "--map", "model_id={nope}"), 2, "nope"),
        (("recommend", "--task", "t"), 3, "no registry"),
        (("recommend",), 2, "no task is named"),
        (("recommend", "--task", "t", "--observed", "m0"), 2, "expected MODEL=VALUE"),
        (("evaluate", "-H", "absent"), 3, "there is no history"),
        (("train", "-H", "absent", "-o", "x"), 3, "there is no history"),
        (("train", "-H", "absent", "-o", "x", "--ranker", "best"), 2, "no ranker is named"),
        (("nightly", "--config", "absent.toml"), 3, "cannot be read"),
        (("nightly", "-H", "absent"), 3, "there is no history"),
        (("nightly", "-H", "made", "-R", "file"), 3, "registry folder cannot be created"),
    ],
)
def test_bad_usage_and_bad_data(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "semi.csv").write_text(
        "Architecture;Source Dataset;Target Dataset;Oracle\na;b;c;1\n"
    )
    (tmp_path / "comma.csv").write_text("a,b\n1,2\n")
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    (tmp_path / "file").write_text("")
    History.open(tmp_path / "made")
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_unknown_ids_and_protocols(place: Path) -> None:
    done = run("recommend", "-R", "r", "--task", "x", "--observed", "m77=0.5", cwd=place)
    assert done.returncode == 3
    assert "did you mean" in done.stderr
    done = run("evaluate", "-H", "h", "--protocol", "leave-one-out", cwd=place)
    assert done.returncode == 2
    done = run("evaluate", "-H", "h", "--rankers", "nmff", cwd=place)
    assert done.returncode == 2
    assert "choose from" in done.stderr


def test_a_worse_candidate_exits_4(place: Path) -> None:
    done = run("nightly", "--config", "n.toml", "--json", cwd=place)
    assert (done.returncode, json.loads(done.stdout)["outcome"]) == (0, "unchanged")
    (place / "worse.toml").write_text(
        'history = "h"\nregistry = "r"\n[ranker]\nranker = "random"\n'
    )
    done = run("nightly", "--config", "worse.toml", cwd=place)
    assert done.returncode == 4
    assert "not published" in done.stderr
    current = json.loads(run("recommend", "-R", "r", "--task", "x", "--json", cwd=place).stdout)
    assert current["models"][0]["model_id"] == "m7"


def test_doctor_on_sound_absent_and_damaged(place: Path, tmp_path: Path) -> None:
    sound = run("doctor", "-H", "h", "-R", "r", "--json", cwd=place)
    assert sound.returncode == 0, sound.stderr
    assert "48 runs" in json.loads(sound.stdout)["facts"]["history"]
    absent = run("doctor", cwd=tmp_path)
    assert absent.returncode == 0
    (tmp_path / "r" / "versions" / "000001").mkdir(parents=True)
    (tmp_path / "r" / "current").symlink_to("versions/000001")
    damaged = run("doctor", "-R", "r", cwd=tmp_path)
    assert damaged.returncode == 3
    assert "manifest.json" in damaged.stderr


@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("ingest --inbox -H new", 3, "there is no history"),
        ("ingest --replay -H new", 3, "there is no history"),
        ("ingest nothing.csv -H new", 3, "no such file"),
        ("ingest notes.txt -H new", 3, "no log found"),
        ("nightly -H new -R r", 3, "there is no history"),
        ("nightly --config nothing.toml", 3, "check --config"),
        ("nightly --config wrong.toml", 3, "there is no history"),
        ("evaluate -H new", 3, "there is no history"),
        ("evaluate -H .", 3, "so it is not a history"),
        ("doctor -H .", 3, "so it is not a history"),
        ("doctor -H new", 3, "there is no history"),
        ("doctor --yes", 2, "--repair"),
        ("doctor notes.txt --repair", 2, "--repair is for a history"),
        ("doctor -H new --repair", 3, "there is no history"),
    ],
)
def test_what_is_not_there_is_told_and_not_made(
    tmp_path: Path, line: str, code: int, told: str
) -> None:
    (tmp_path / "notes.txt").write_text("no log")
    (tmp_path / "wrong.toml").write_text('history = "new"\nregistry = "r"\n')
    done = run(*line.split(), cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "wrong.toml"]


def test_a_lost_pointer_and_an_old_damaged_version_are_told(place: Path, tmp_path: Path) -> None:
    copied = tmp_path / "r"
    shutil.copytree(place / "r", copied, symlinks=True)
    shutil.copytree(copied / "versions" / "000001", copied / "versions" / "000000")
    (copied / "versions" / "000000" / "manifest.json").write_text("{")
    warned = run("doctor", "-R", "r", cwd=tmp_path)
    assert warned.returncode == 0
    assert "000000/manifest.json" in warned.stderr
    (copied / "current").unlink()
    lost = run("doctor", "-R", "r", cwd=tmp_path)
    assert lost.returncode == 3
    assert "points to no version" in lost.stderr


def test_a_path_that_this_locale_cannot_write(tmp_path: Path) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [str(EXECUTABLE), "ingest", "--inbox", "-H", "Ист ü"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, check=False, env={**os.environ, **plain}
    )
    assert done.returncode == 3, done.stderr
    assert b"LC_ALL=C.UTF-8" in done.stderr
    assert b"Traceback" not in done.stderr


def test_a_closed_pipe_is_no_error(place: Path) -> None:
    command = f"{EXECUTABLE} ingest --presets | head -1"
    done = subprocess.run(
        ["bash", "-c", command], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_without_a_traceback(place: Path) -> None:
    job = subprocess.Popen(
        # Long enough that it never ends by itself.
        [
            *(str(EXECUTABLE), "evaluate", "-H", "h", "--rankers", "random"),
            *("--protocol", "unseen-models", "--n-repeats", "100000"),
        ],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A job in the background of a shell inherits an interrupt that is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        time.sleep(5)
        job.send_signal(signal.SIGINT)
        _, err = job.communicate(timeout=60)
    finally:
        job.kill()
    assert job.returncode == 130
    assert "Traceback" not in err


LOGS = {
    "timm/run/summary.csv": "epoch,train_loss,eval_loss,eval_top1,eval_top5,lr\n"
    "0,2.0,1.9,40.0,80.0,0.1\n1,1.5,1.6,55.0,85.0,0.05\n",
    "timm/run/args.yaml": "model: vit_tiny\nepochs: 2\neval_metric: top1\nseed: 3\n",
    "keras/training.log": "epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1.0,0.4,1.1\n",
    "notes.csv": "a,b\n1,2\n",
    "weights.bin": "x",
}


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    for name, text in LOGS.items():
        path = tmp_path / "logs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_doctor_tells_what_it_would_read_and_what_is_missing(logs: Path) -> None:
    done = run("doctor", "logs", cwd=logs)
    assert done.returncode == 3
    assert "--set task_id=TEXT" in done.stdout + done.stderr
    assert "notes.csv" in done.stdout
    told = json.loads(run("doctor", "logs", "--json", cwd=logs).stdout)
    (folder,) = told.values() if "logs" not in told else (told["logs"],)
    assert "eval_top1" in json.dumps(folder)
    assert not (logs / "history").exists()
    said = ["--set", "task_id=birds", "--set", "model_id=m", "--set", "direction=max"]
    ready = run("doctor", "logs", *said, "--set", "metric=accuracy", "--format", "keras", cwd=logs)
    assert ready.returncode == 0, ready.stdout + ready.stderr
    assert run("doctor", "nowhere", cwd=logs).returncode == 3


def test_a_folder_of_logs_from_the_command_line(logs: Path) -> None:
    line = ["ingest", "logs/timm", "-H", "H", "--set", "task_id=birds", "--json"]
    first = json.loads(run(*line, cwd=logs).stdout)["sources"]["logs/timm"]
    assert (first["n_new"], first["n_curve_points"]) == (1, 10)
    again = json.loads(run(*line, cwd=logs).stdout)["sources"]["logs/timm"]
    assert (again["n_duplicate"], again["n_curve_points"]) == (1, 0)
    plain = [*line[:2], "-H", "P", *line[4:], "--no-curves"]
    assert json.loads(run(*plain, cwd=logs).stdout)["sources"]["logs/timm"]["n_curve_points"] == 0


def test_logs_that_lack_something_are_asked_about_and_nothing_is_written(logs: Path) -> None:
    done = run("ingest", "logs/timm", "-H", "H", cwd=logs)
    assert done.returncode == 2
    assert "--map task_id=" in done.stderr
    assert not done.stdout
    listed = run("ingest", "logs", "-H", "H", "--set", "task_id=birds", cwd=logs)
    assert listed.returncode == 2
    assert "keras" in listed.stderr
    other = run("ingest", "logs", "-H", "H", "--format", "mlflow", cwd=logs)
    assert other.returncode == 3
    assert "mlflow" in other.stderr


def test_a_curve_that_is_named_by_itself_is_a_log(logs: Path) -> None:
    done = run("ingest", "logs/timm/run/summary.csv", "-H", "H", cwd=logs)
    assert done.returncode == 2
    assert "1 timm run does not say task_id" in done.stderr
    log = ["ingest", "logs/timm/run/summary.csv", "-H", "H"]
    assert run(*log, "--set", "task_id=birds", cwd=logs).returncode == 0
    table = run("ingest", "logs/timm", "-H", "H", "--delimiter", ";", cwd=logs)
    assert table.returncode == 2
    cards = run("ingest", "logs", "--as", "model-cards", "--format", "timm", cwd=logs)
    assert cards.returncode == 2


def test_recorded_runs_are_replayed_with_what_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "H"
    History.open(folder)
    own = {"model_id": "m", "task_id": "t"}
    curve = [(1, None, "score", "val", 0.25)]
    record_run(folder, **own, metric="score", value=0.25, curve=curve)
    record_run(folder, **own, metric="loss", value=0.5, direction="max")
    record_run(folder, **own, metric="accuracy", value=61, seed=1)
    done = run("ingest", "--inbox", "-H", "H", cwd=tmp_path)
    assert done.returncode == 3
    assert "3 rows wait in quarantine" in done.stderr
    assert "run again with --replay and --set FIELD=TEXT" in done.stderr
    replay = ("ingest", "--replay", "-H", "H")
    wrong = run(*replay, "--set", "seed=x", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "seed for recorded runs (got 'x'" in wrong.stderr
    done = run(*replay, "--unit", "percent", "--set", "direction=max", cwd=tmp_path)
    assert done.returncode == 3
    assert "1 row waits in quarantine" in done.stderr
    assert run(*replay, "--set", "direction=min", "--set", "seed=3", cwd=tmp_path).returncode == 0
    history = History.open(folder)
    rows = history.runs(["metric", "direction", "value", "seed"]).fillna(0).to_dict("split")["data"]
    assert sorted(rows) == [
        ["accuracy", "max", 0.61, 1],
        ["loss", "min", 0.5, 3],
        ["score", "max", 0.25, 0],
    ]
    assert history.curves()["value"].tolist() == [0.25]


def test_runs_of_a_log_that_lack_something_are_replayed_with_a_mapping(logs: Path) -> None:
    broken = logs / "logs/timm/other"
    broken.mkdir()
    for name in ("summary.csv", "args.yaml"):
        (broken / name).write_text(LOGS[f"timm/run/{name}"].replace("model: vit_tiny\n", ""))
    line = ["ingest", "logs/timm", "-H", "H", "--set", "task_id=birds"]
    first = run(*line, cwd=logs)
    assert first.returncode == 3
    assert "model_id" in first.stderr
    assert f"in quarantine: {broken}: " in first.stderr
    replay = ["ingest", "-H", "H", "--replay", "--set", "task_id=birds", "--set", "model_id=m"]
    done = run(*replay, "--json", cwd=logs)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sources"]["replay"]["n_new"] == 1
    assert told["n_in_quarantine"] == 0

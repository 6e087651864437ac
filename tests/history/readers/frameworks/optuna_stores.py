"""Study files that several versions of Optuna wrote, kept as SQL in one JSON file.

``python optuna_stores.py PYTHON ...`` (in this folder) writes them anew, one version an interpreter
that has Optuna.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    from sql_texts import dumped
else:
    from history.readers.frameworks.sql_texts import dumped, restored

HERE = Path(__file__).parent
KEPT = HERE / "recorded_optuna.json"
#: Runs with every version since 2.4.
_SCRIPT = """
import json, sys, warnings
warnings.simplefilter("ignore")
import optuna
optuna.logging.set_verbosity(optuna.logging.ERROR)

def objective(trial):
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_categorical("model", ["resnet18", "vit"])
    trial.suggest_int("layers", 1, 4)
    for step in range(3):
        trial.report(lr * step, step)
    if trial.number == 2:
        raise optuna.TrialPruned()
    if trial.number == 3:
        raise ValueError("diverged")
    return float("inf") if trial.number == 4 else lr

storage = "sqlite:///study.db"
study = optuna.create_study(
    storage=storage, study_name="tuned", direction="maximize",
    sampler=optuna.samplers.RandomSampler(seed=0),
)
study.set_user_attr("dataset", "pets")
study.optimize(objective, n_trials=5, catch=(ValueError,))
pair = optuna.create_study(
    storage=storage, study_name="pair", directions=["minimize", "maximize"],
    sampler=optuna.samplers.RandomSampler(seed=0),
)
pair.optimize(lambda trial: (trial.suggest_float("x", 0, 1), 0.25), n_trials=2)
told = {
    each.study_name: [
        [t.number, t.state.name, t.values, t.params, sorted(t.intermediate_values.items())]
        for t in each.trials
    ]
    for each in (study, pair)
}
print(json.dumps([optuna.__version__, told]))
"""


def versions() -> list[str]:
    """Versions that are kept."""
    return list(json.loads(KEPT.read_text(encoding="utf-8")))


def lay_out(version: str, folder: Path) -> tuple[Path, dict]:
    """Put a study file down; give it, and what its version of Optuna told of the trials."""
    kept = json.loads(KEPT.read_text(encoding="utf-8"))[version]
    return restored(kept["sql"], folder / "study.db"), kept["told"]


def record(python: str) -> None:
    """Keep what the Optuna of an interpreter writes now."""
    with tempfile.TemporaryDirectory() as name:
        command = [python, "-c", _SCRIPT]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=name)
        version, told = json.loads(done.stdout)
        entry = {"told": told, "sql": dumped(Path(name, "study.db"))}
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    kept[version] = entry
    document = json.dumps(kept, indent=0, ensure_ascii=False, sort_keys=True) + "\n"
    KEPT.write_text(document, encoding="utf-8")


if __name__ == "__main__":
    for each in sys.argv[1:]:
        record(each)

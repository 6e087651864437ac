"""The nightly job: retrain on new logs, compare, publish or keep."""

"""The nightly job: retrain on new logs, compare, publish the new ranker or keep the old one."""

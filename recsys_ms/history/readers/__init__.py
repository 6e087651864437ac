"""Readers of tables of runs and of the logs of training frameworks."""

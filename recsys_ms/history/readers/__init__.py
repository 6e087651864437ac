"""Readers of the logs that people have, one file a format."""

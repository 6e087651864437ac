"""The folder into which training jobs drop runs, read by the next ingest."""

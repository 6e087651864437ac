"""The public ranker: artifact, registry, answer, reasons."""

"""Protocols, metrics, back-tests and their report."""

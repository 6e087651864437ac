"""Rankers order models for a task; :mod:`recsys_ms.rankers.base` tells their life cycle."""

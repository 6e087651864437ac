"""Rankers: popularity, factors, heads, their blend, and the public one with its artifact."""

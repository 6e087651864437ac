"""The report: one HTML page of the history, the back-test and the ranker."""

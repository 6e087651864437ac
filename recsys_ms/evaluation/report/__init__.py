"""The report of a nightly run or a back-test: one HTML file, or Markdown."""

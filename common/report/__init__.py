"""A run folder as one HTML file that opens offline, and all runs as tables."""

from common.report.pages import find_runs, write_index, write_report

__all__ = ["find_runs", "write_index", "write_report"]

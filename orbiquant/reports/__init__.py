"""Parameterised report notebooks: which there are, how to run one, what came of it."""

from orbiquant.cards import Tiles
from orbiquant.reports.batch import batch_table, run_reports
from orbiquant.reports.catalogue import Report, ReportParameter, find_report, list_reports
from orbiquant.reports.result import ReportFailure, ReportRun, list_runs, read_run, record
from orbiquant.reports.run import run_report

__all__ = [
    "ReportFailure",
    "Report",
    "ReportParameter",
    "ReportRun",
    "Tiles",
    "batch_table",
    "find_report",
    "list_reports",
    "list_runs",
    "read_run",
    "record",
    "run_report",
    "run_reports",
]

"""Reports: one self-contained HTML file, and tables for the console."""

from .charts import Dot, Series, bar, front_chart, interval_bar, line_chart, reliability_chart, stacked_bar
from .client import python_client
from .heat import heat_map
from .markup import Cell, Column, Html, Section, code, element, figure, table
from .page import report_html, write_report
from .pictures import moving_picture
from .report import Command, DataSummary, FileRow, Mistake, PartRow, Report
from .text import bytes_text, interval_text, ms_text, points_interval, points_text, rate_text, text_table

__all__ = [
    "Cell",
    "Column",
    "Command",
    "DataSummary",
    "Dot",
    "FileRow",
    "Html",
    "Mistake",
    "PartRow",
    "Report",
    "Section",
    "Series",
    "bar",
    "bytes_text",
    "code",
    "element",
    "figure",
    "front_chart",
    "heat_map",
    "interval_bar",
    "interval_text",
    "line_chart",
    "moving_picture",
    "ms_text",
    "points_interval",
    "points_text",
    "python_client",
    "rate_text",
    "reliability_chart",
    "report_html",
    "stacked_bar",
    "table",
    "text_table",
    "write_report",
]

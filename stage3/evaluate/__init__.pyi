from .report import evaluation_report as evaluation_report
from .report import item_values as item_values
from .words import report_lines as report_lines

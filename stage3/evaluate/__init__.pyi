from .items import item_values as item_values
from .report import evaluation_report as evaluation_report
from .words import report_lines as report_lines

from .check import check as check
from .readers import DataSource as DataSource
from .readers import read as read
from .readers import source_of as source_of
from .splits import split_books as split_books
from .table import DataReport as DataReport
from .table import PanelTable as PanelTable

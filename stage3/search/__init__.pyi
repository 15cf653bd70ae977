from .answers import Answer as Answer
from .answers import answer_lines as answer_lines
from .answers import answers as answers
from .failures import failures as failures
from .searcher import Filters as Filters
from .searcher import Query as Query
from .searcher import Results as Results
from .searcher import Searcher as Searcher

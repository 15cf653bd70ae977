from .api import Run as Run
from .api import check_data as check_data
from .api import convert_checkpoint as convert_checkpoint
from .api import diagnose_store as diagnose_store
from .api import draw_samples as draw_samples
from .api import list_runs as list_runs
from .api import open_store as open_store
from .api import run_experiments as run_experiments
from .api import verify_store as verify_store
from .batches import Dataset as Dataset
from .config import Config as Config
from .diagnose import Diagnosis as Diagnosis
from .errors import ConfigError as ConfigError
from .errors import DataError as DataError
from .errors import Interrupted as Interrupted
from .errors import NumericError as NumericError
from .errors import Stage3Error as Stage3Error
from .errors import StorageError as StorageError
from .losses import PanelLoss as PanelLoss
from .losses import info_nce as info_nce
from .losses import leave_one_out_mean as leave_one_out_mean
from .losses import reconstruction as reconstruction
from .losses import supcon as supcon
from .model import Stage3 as Stage3
from .search import Filters as Filters
from .search import Searcher as Searcher

__version__: str

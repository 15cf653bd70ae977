from .atlas import write_atlas as write_atlas
from .files import Job as Job
from .files import Parameters as Parameters
from .files import load as load
from .maps import atlas_of_run as atlas_of_run
from .maps import drift as drift
from .maps import project as project
from .maps import project_run as project_run

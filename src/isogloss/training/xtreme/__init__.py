"""An XTREME-style suite (Hu et al. 2020, https://arxiv.org/abs/2003.11080) over local folders or the Hub."""

from isogloss.training.xtreme.aggregate import aggregate
from isogloss.training.xtreme.data import find_data
from isogloss.training.xtreme.hub import HUB_SUITE, fetch_suite
from isogloss.training.xtreme.settings import SUITE, SuiteTask
from isogloss.training.xtreme.suite import SuiteOptions, run_suite

__all__ = ["HUB_SUITE", "SUITE", "SuiteOptions", "SuiteTask", "aggregate", "fetch_suite", "find_data", "run_suite"]

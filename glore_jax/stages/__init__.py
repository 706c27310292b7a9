"""The stages of a run, wired: which artifacts each reads and writes. What they do is in `method`."""

from glore_jax.stages.checking import announce as announce
from glore_jax.stages.checking import check as check
from glore_jax.stages.checking import check_settings as check_settings
from glore_jax.stages.label_report import print_labels as print_labels
from glore_jax.stages.recipes import of as of
from glore_jax.stages.reports import print_report as print_report
from glore_jax.stages.reports import report as report

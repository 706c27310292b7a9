"""The embedded task: generated grade-school word problems with an exact oracle."""

from glore_jax.tasks.arithmetic.generator import STEP_COUNTS as STEP_COUNTS
from glore_jax.tasks.arithmetic.generator import make_problem as make_problem
from glore_jax.tasks.arithmetic.oracle import first_false_step as first_false_step

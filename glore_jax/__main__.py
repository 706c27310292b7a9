"""`python -m glore_jax` is `glore`."""

import sys

from glore_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Errors that are the user's to mend; the command line prints them without a traceback."""


class InputError(ValueError):
    """Bad input: says where it is, what was expected and what to try next."""

"""Failures that a person is told in one line, without a traceback."""


class ReverseSigmoidError(Exception):
    """Something a person can act on. Any other exception is a fault of this project."""


class InputError(ReverseSigmoidError, ValueError):
    """Bad input from a person or a client.

    The message says where, which name, what was expected and what came. It never holds
    scores: what a victim thinks of an input is the secret of this project.
    """

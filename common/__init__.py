"""What the papers share: datasets, metrics, run folders, reports.

Importing it, or any module that is not in `pytorch` or `tf`, imports no deep-learning framework.
"""


class UserError(Exception):
    """A mistake that the user can fix; the message says what was found, expected, and what to do.

    Entry scripts print it as one line on stderr and exit with code 2, without a traceback.
    """


def require(condition: bool, key: str, value: object, expected: str) -> None:
    """Raises ValueError, with the config key, its value and what was expected, if it is invalid."""
    if not condition:
        raise ValueError(f"{key} is {value}: expected {expected}")

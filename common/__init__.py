"""What the five papers share and no framework decides: data sets, metrics, run folders, reports."""


class UserError(Exception):
    """A mistake that the user can mend, said in one line: what was found, expected, and to do.

    Entry scripts print it on stderr and exit with code 2; nobody sees a traceback.
    """


def require(holds: bool, key: str, found: object, expected: str) -> None:
    """Raises ValueError that names a config's key, what it is and what was expected."""
    if not holds:
        raise ValueError(f"{key} is {found}: expected {expected}")

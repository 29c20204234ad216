"""Range checks for the fields of a config section; None passes.

The first argument is the section, a dataclass named Dataset, Model or Training; errors name the key
SECTION.FIELD, its value and what was expected, as a ValueError.
"""

import math
from collections.abc import Callable

from common import require


def at_least(section: object, minimum: float, *names: str) -> None:
    _check(section, names, lambda value: value >= minimum, f"{minimum} or more")


def positive(section: object, *names: str) -> None:
    _check(section, names, lambda value: 0 < value < math.inf, "a number above 0")


def fraction(section: object, *names: str) -> None:
    """0 and 1 are allowed."""
    _check(section, names, lambda value: 0 <= value <= 1, "a fraction, 0 to 1")


def below_one(section: object, *names: str) -> None:
    """0 is allowed, 1 is not."""
    _check(section, names, lambda value: 0 <= value < 1, "0 or more, below 1")


def rising(section: object, maximum: float, *names: str) -> None:
    """Pairs (low, high)."""
    expected = f"0 < low <= high <= {maximum}"
    _check(section, names, lambda pair: 0 < pair[0] <= pair[1] <= maximum, expected)


def _check(
    section: object, names: tuple[str, ...], is_valid: Callable[..., bool], expected: str
) -> None:
    for name in names:
        value = getattr(section, name)
        key = f"{type(section).__name__.lower()}.{name}"
        shown = list(value) if isinstance(value, tuple) else value
        require(value is None or is_valid(value), key, shown, expected)

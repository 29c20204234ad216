"""Range checks of config sections."""

from dataclasses import dataclass

import pytest

from common import checks


@dataclass(frozen=True)
class Model:
    width: int | None = 1
    rate: float = 0.5
    scale: tuple[float, float] = (0.2, 1.0)


@pytest.mark.parametrize(
    "check, bad, message",
    [
        (lambda m: checks.at_least(m, 2, "width"), {"width": 1}, "model.width is 1: expected 2 or"),
        (lambda m: checks.positive(m, "rate"), {"rate": 0}, "model.rate is 0: expected a number"),
        (lambda m: checks.positive(m, "rate"), {"rate": float("inf")}, "model.rate is inf"),
        (lambda m: checks.fraction(m, "rate"), {"rate": 1.01}, "expected a fraction, 0 to 1"),
        (lambda m: checks.below_one(m, "rate"), {"rate": 1}, "expected 0 or more, below 1"),
        (lambda m: checks.rising(m, 1, "scale"), {"scale": (0.5, 0.4)}, r"is \[0.5, 0.4\]"),
        (lambda m: checks.rising(m, 1, "scale"), {"scale": (0.5, 2)}, "0 < low <= high <= 1"),
        (lambda m: checks.rising(m, 1, "scale"), {"scale": (0, 1)}, "0 < low <= high <= 1"),
    ],
)
def test_check_out_of_range_names_key_value_and_range(check, bad, message):
    with pytest.raises(ValueError, match=message):
        check(Model(**bad))


def test_check_within_range_passes():
    checks.at_least(Model(), 1, "width")
    checks.positive(Model(rate=1e-9), "rate", "width")
    checks.fraction(Model(rate=1), "rate")
    checks.below_one(Model(rate=0), "rate")
    checks.rising(Model(scale=(1, 1)), 1, "scale")


def test_check_of_none_passes():
    checks.at_least(Model(width=None), 1, "width")

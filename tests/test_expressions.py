import numpy as np
import pytest

from deepsky.errors import InputError
from deepsky.expressions import mask

COLUMNS = {
    "mag": np.array([20.0, 22.5, 24.0]),
    "fwhm": np.array([0.5, 1.5, 2.0]),
    "kind": np.array(["a", "b", "a"], object),
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mag > 22 & fwhm > 1", [False, True, True]),
        ("mag > 22 && fwhm > 1.7 || kind == 'a'", [True, False, True]),
        ("~(mag > 22)", [True, False, False]),
        ("20 <= mag < 24", [True, True, False]),
        ("-mag + 2 * fwhm < -20", [False, False, False]),
        ("kind != 'a'", [False, True, False]),
    ],
)
def test_expressions_select_what_they_say(words, expected):
    assert mask(words, COLUMNS).tolist() == expected


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("mag >", "cannot be read"),
        ("mag", "not a condition"),
        ("magnitude > 3", "no such column"),
        ("__import__('os').system('true')", "not allowed"),
        ("mag.__class__ > 3", "not allowed"),
    ],
)
def test_what_is_no_condition_is_refused(words, message):
    with pytest.raises(InputError, match=message):
        mask(words, COLUMNS)

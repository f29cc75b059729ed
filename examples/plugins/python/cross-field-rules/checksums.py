"""Check digits: what tells a mistyped number from a right one without asking anybody."""

import re
import string
from typing import Callable

_IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
_DIGITS_OF_LETTERS = {letter: str(value) for value, letter in enumerate(string.ascii_uppercase, 10)}
_SEPARATORS = str.maketrans("", "", " -.")


def _luhn(digits: str) -> bool:
    total = 0
    for index, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + index % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def luhn(text: str) -> bool:
    """ISO/IEC 7812: card numbers, IMEI."""
    digits = text.translate(_SEPARATORS)
    return _is_digits(digits) and len(digits) > 1 and _luhn(digits)


def iban(text: str) -> bool:
    """ISO 13616: mod 97 is 1."""
    plain = text.translate(_SEPARATORS).upper()
    if not _IBAN.fullmatch(plain):
        return False
    turned = plain[4:] + plain[:4]
    return int("".join(_DIGITS_OF_LETTERS.get(letter, letter) for letter in turned)) % 97 == 1


def isbn(text: str) -> bool:
    """ISO 2108, ten or thirteen digits."""
    plain = text.translate(_SEPARATORS).upper()
    if len(plain) == 10 and _is_digits(plain[:9]) and plain[9] in "0123456789X":
        values = [int(digit) for digit in plain[:9]] + [10 if plain[9] == "X" else int(plain[9])]
        return sum(value * weight for value, weight in zip(values, range(10, 0, -1))) % 11 == 0
    if len(plain) == 13 and _is_digits(plain):
        return sum(int(digit) * (1 + 2 * (index % 2)) for index, digit in enumerate(plain)) % 10 == 0
    return False


def aba(text: str) -> bool:
    """Routing number of a bank in the United States."""
    digits = text.translate(_SEPARATORS)
    weights = (3, 7, 1) * 3
    return _is_digits(digits) and len(digits) == 9 and sum(int(d) * w for d, w in zip(digits, weights)) % 10 == 0


def npi(text: str) -> bool:
    """National Provider Identifier (45 CFR 162.406): Luhn with the prefix 80840."""
    return _is_digits(text) and len(text) == 10 and _luhn("80840" + text)


def _is_digits(text: str) -> bool:
    return text.isascii() and text.isdecimal()


SCHEMES: dict[str, Callable[[str], bool]] = {"aba": aba, "iban": iban, "isbn": isbn, "luhn": luhn, "npi": npi}

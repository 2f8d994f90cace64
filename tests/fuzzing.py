"""What all fuzzing has in common: changes of bytes, and a loop that stops at anything but a result or a UserError."""

import random
import resource
import signal
import sys
from collections import Counter
from collections.abc import Callable

from files.errors import UserError

SECONDS = 10  # that an input may take
PIECES = [
    *(b'"', b'""', b'\\"', b"\\", b",", b"\t", b";", b"|", b"'", b":", b" ", b"[", b"]", b"{", b"}"),
    *(b"\n", b"\r\n", b"\r", b"\x00", b"\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xed\xa0\x80"),
    *(b"\\ud800", b"\\udc00", b"9" * 5000, b"NaN", b"1e999", b"null", b"true", b"[" * 2000, b'{"a":' * 999),
    *(b"PK\x03\x04", b"\x1f\x8b", b"BZh91AY&SY", b"(\xb5/\xfd", "\u2028".encode(), "\u0085".encode()),
    *(b"<PAD>", b'"text"', b'"label"', b"split"),
]


def mutated(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """The content after one to eight changes."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at = rng.randint(0, len(data))
        until = min(len(data), at + rng.choice((1, 3, 20, 200)))
        change = rng.randrange(6)
        if change == 0 and data:
            data[at % len(data)] = rng.randrange(256)
        elif change == 1:
            data[at:at] = rng.choice(PIECES)
        elif change == 2:
            del data[at:until]
        elif change == 3:
            data[at:at] = data[at:until] * rng.choice((1, 2, 50))
        elif change == 4:
            other = rng.choice(others)
            start = rng.randrange(len(other))
            data[at:until] = other[start : start + rng.choice((5, 50, 500))]
        elif rng.random() < 0.1:
            del data[at:]
    return bytes(data)


def results_of(
    seed: int, count: int, prepare: Callable[[random.Random], tuple[str, Callable[[], object]]]
) -> Counter[str]:
    """How many of ``count`` inputs were read and refused, by kind.

    Args:
        seed: of the inputs.
        count: how many.
        prepare: random numbers → the kind of an input, and what reads it.

    Raises:
        AssertionError: an input ended in anything else; the message says which.
    """
    results: Counter[str] = Counter()
    for number in range(count):
        kind, read = prepare(random.Random(f"{seed} {number}"))
        signal.alarm(SECONDS)
        try:
            read()
            results[f"{kind} read"] += 1
        except UserError as error:
            assert len(str(error)) < 2000, f"input {seed} {number}: more than a line: {str(error)[:3000]}"
            results[f"{kind} refused"] += 1
        except BaseException as error:
            raise AssertionError(f"input {seed} {number} of {kind}") from error
        finally:
            signal.alarm(0)
    return results


def main(fuzz: Callable[[int, int], Counter[str]], gibibytes: int) -> None:
    """Runs it with the seed and the count of the command line, in bounded memory."""
    resource.setrlimit(resource.RLIMIT_AS, (gibibytes * 2**30,) * 2)
    signal.signal(signal.SIGALRM, _too_slow)
    print(dict(sorted(fuzz(*map(int, sys.argv[1:])).items())))


def _too_slow(*ignored: object) -> None:
    raise TimeoutError(f"more than {SECONDS} seconds")

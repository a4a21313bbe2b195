"""Randomness as a pure function of where it is used.

Nothing here keeps a generator's state between steps: whatever is random in batch 17 of epoch 3 is seeded from
(seed, purpose, 3, 17). A search that is interrupted and resumed then draws what it would have drawn.
"""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from numbers and words; different parts give unrelated seeds, on every machine the same."""
    digest = hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1

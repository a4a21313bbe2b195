"""Seeds are a pure function, alike on every machine, and differ wherever a part differs."""

from lightning_nas.seeding import derive_seed


def test_seeds_are_the_same_everywhere():
    assert derive_seed(0, "step", 1, 2) == derive_seed(0, "step", 1, 2) == 8842632491614950894


def test_different_parts_give_different_seeds_that_torch_takes():
    parts = [(s, w, e, b) for s in range(3) for w in ("step", "pass") for e in range(12) for b in range(12)]
    seeds = {derive_seed(*part) for part in parts}
    assert len(seeds) == len(parts)  # (1, 11) and (11, 1) too
    assert all(0 <= seed < 2**63 for seed in seeds)

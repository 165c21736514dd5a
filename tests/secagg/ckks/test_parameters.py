"""Ring, secret and committee: what is chosen holds, and refusals name what would."""

from __future__ import annotations

import itertools
import math
import random
import re
from dataclasses import replace

import pytest

from bench.known_sums import left_of, lwe_given_sums, worst_pair
from bench.lattice import bits_of
from secagg.assumptions import FAILURE_BITS, SECURITY_BITS, SPARSE_FROM
from secagg.ckks.committees import (
    LIARS,
    OFFER_DRAWS_BITS,
    SHARE_BYTES,
    SHARE_PRIMES,
    CommitteeParameters,
    Sharing,
    smallest_committee,
)
from secagg.ckks.headroom import (
    MAX_WEIGHT,
    MODULUS_BITS,
    SECRET_TERMS,
    RingParameters,
    affordable_weight,
    ring_modulus,
    smallest_ring,
)
from secagg.ckks.parameters import CkksParameters, check, choose
from secagg.ckks.seal import ERROR_BOUND
from secagg.errors import ConfigError

SIZES = (3, 4, 5, 10, 31, 32, 33, 50, 100, 127, 128, 200, 500, 1000, 10_000)
FRACTIONS = ((0.33, 1 / 3), (0.1, 0.1), (0.1, 0.3), (0.0, 0.45), (0.4, 0.05), (0.0, 0.0))


def tail(population: int, marked: int, draws: int, least: int) -> float:
    """Return log2 of P[hypergeometric ≥ least], straight from the definition."""
    ways = sum(
        math.comb(marked, count) * math.comb(population - marked, draws - count)
        for count in range(least, min(marked, draws) + 1)
    )
    return math.log2(ways) - math.log2(math.comb(population, draws)) if ways else -math.inf


# --- the ring: no sum wraps ------------------------------------------------------------------


def decoded(total: int, ring: RingParameters) -> tuple[int, list[int]]:
    """Return the sum of the errors and those of the values, from a coefficient modulo q."""
    q = ring_modulus(ring.degree, ring.modulus_bits)
    rest = (total + q // 2) % q - q // 2
    fields = []
    for bits in (ring.noise_bits, *[ring.field_bits] * ring.values_per_coefficient):
        low = (rest + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))
        fields.append(low)
        rest = (rest - low) >> bits
    return fields[0], fields[1:]


def opened(ring: RingParameters, inputs: list[tuple[int, list[int], int]]) -> tuple[int, list[int]]:
    """Return what opening Σ w (Δ m + e) gives, for (weight, values, error) of each node."""
    total = 0
    for weight, values, error in inputs:
        packed = sum(
            value << (ring.noise_bits + ring.field_bits * k) for k, value in enumerate(values)
        )
        total += weight * (packed + error)
    return decoded(total % ring_modulus(ring.degree, ring.modulus_bits), ring)


@pytest.mark.req("R-01")
@pytest.mark.parametrize("max_weight", range(1, MAX_WEIGHT + 1))
@pytest.mark.parametrize("n", [3, 4, 5, 10, 16, 50, 64, 100, 333])
def test_sums_are_exact_at_the_edge_of_every_bound(n: int, max_weight: int) -> None:
    draw = random.Random(n * 10 + max_weight)
    for value_bits in (8, 16, 24):
        try:
            ring = smallest_ring(n, value_bits, max_weight)
        except ConfigError:
            assert value_bits == 24
            continue
        low, high = -(1 << (value_bits - 1)), (1 << (value_bits - 1)) - 1
        noisiest = ERROR_BOUND * ring.error_terms
        count = ring.values_per_coefficient
        cases = [
            [(max_weight, [value] * count, error)] * n
            for value, error in itertools.product((low, -1, 0, high), (-noisiest, 0, noisiest))
        ]
        cases += [[(max_weight, [low, high] * count, noisiest)] * n] if count > 1 else []
        for _ in range(20):
            cases.append(
                [
                    (
                        draw.randint(0, max_weight),
                        [draw.randint(low, high) for _ in range(count)],
                        draw.randint(-noisiest, noisiest),
                    )
                    for _ in range(n)
                ]
            )
        for case in cases:
            case = [(weight, values[:count], error) for weight, values, error in case]
            error_sum, sums = opened(ring, case)
            assert error_sum == sum(weight * error for weight, _, error in case)
            assert sums == [sum(w * values[k] for w, values, _ in case) for k in range(count)]


@pytest.mark.req("R-01")
@pytest.mark.parametrize("n", SIZES)
def test_one_bit_fewer_anywhere_would_wrap(n: int) -> None:
    made = choose(n)
    ring = made.ring
    low, noisiest = -(1 << 15), -ERROR_BOUND * ring.error_terms
    worst = [(1, [low] * ring.values_per_coefficient, noisiest)] * n
    wanted = n * noisiest, [n * low] * ring.values_per_coefficient
    assert opened(ring, worst) == wanted
    for name in ("modulus_bits", "field_bits", "noise_bits"):
        narrow = replace(ring, **{name: getattr(ring, name) - 1})
        with pytest.raises(ConfigError, match="sums could wrap"):
            check(replace(made, ring=narrow))
    assert opened(replace(ring, modulus_bits=ring.modulus_bits - 1), worst) != wanted


@pytest.mark.req("R-01")
def test_the_packing_has_the_fewest_bits_a_value() -> None:
    for n, value_bits in itertools.product(SIZES, (8, 12, 16, 20)):
        ring = smallest_ring(n, value_bits, 1)
        rate = ring.modulus_bits / ring.values_per_coefficient
        assert rate <= 64
        field, noise = ring.field_bits, ring.noise_bits
        assert field == value_bits + math.ceil(math.log2(n))
        for degree, most in MODULUS_BITS.items():
            for count in range(1, 10):
                if field * count + noise + 1 <= most:  # surely enough
                    assert rate <= (field * count + noise + 1) / count
                    assert degree >= ring.degree or rate < (field * count + noise) / count


@pytest.mark.req("R-01")
def test_ten_nodes_take_49_bits_for_two_values() -> None:
    assert choose(10).ring == RingParameters(2048, 49, 2, 20, 9, SECRET_TERMS, 1)
    assert choose(10).value_bytes == 49 / 16


def test_the_modulus_is_the_one_that_seal_takes() -> None:
    sealapi = pytest.importorskip("tenseal.sealapi", reason="needs TenSEAL")
    for degree, most in MODULUS_BITS.items():
        for bits in range(24, most + 1):
            modulus = sealapi.CoeffModulus.Create(degree, [bits])[0].value()
            assert ring_modulus(degree, bits) == modulus
            assert modulus.bit_length() == bits
            assert modulus % (2 * degree) == 1
    with pytest.raises(ConfigError, match="no modulus of 12 bits"):
        ring_modulus(2048, 12)


@pytest.mark.req("R-01", "R-08")
@pytest.mark.parametrize(("n", "value_bits", "max_weight"), [(10_000, 24, 4), (10_000, 24, 2)])
def test_what_could_wrap_is_refused_with_the_nearest_that_cannot(
    n: int, value_bits: int, max_weight: int
) -> None:
    with pytest.raises(ConfigError, match="can wrap the longest modulus, 60 bits") as refusal:
        choose(n, value_bits=value_bits, max_weight=max_weight)
    fewer = re.search(r"value_bits (\d+)", refusal.value.hint)
    assert fewer is not None
    assert choose(n, value_bits=int(fewer[1]), max_weight=max_weight).value_bytes <= 8
    with pytest.raises(ConfigError):
        choose(n, value_bits=int(fewer[1]) + 1, max_weight=max_weight)
    lighter = re.search(r"max_weight (\d+)", refusal.value.hint)
    if lighter is not None:
        assert choose(n, value_bits=value_bits, max_weight=int(lighter[1])).value_bytes <= 8
        with pytest.raises(ConfigError):
            choose(n, value_bits=value_bits, max_weight=int(lighter[1]) + 1)


# --- 128 bits --------------------------------------------------------------------------------


@pytest.mark.req("R-02", "R-03")
@pytest.mark.parametrize("max_weight", [1, 2, 3, pytest.param(MAX_WEIGHT, marks=pytest.mark.slow)])
@pytest.mark.parametrize("degree", MODULUS_BITS)
def test_with_all_but_two_colluding_128_bits_are_left_with_two_to_spare(
    degree: int, max_weight: int
) -> None:
    ring = smallest_ring(10, 16, max_weight)
    problem = lwe_given_sums(
        degree,
        MODULUS_BITS[degree],
        ring.secret_terms,
        error_terms=ring.error_terms,
        max_weight=max_weight,
    )
    found = bits_of(problem)
    assert min(*found["BDGL16"], *found["MATZOV"]) >= 130
    left = left_of(ring.secret_terms, ring.error_terms, worst_pair(max_weight))
    assert left.secret_mean >= 4 / 3 - 0.001
    assert left.error_mean >= 5.25 - 0.001


@pytest.mark.req("R-03")
def test_fewer_terms_would_leave_less() -> None:
    found = [
        min(bits_of(lwe_given_sums(2048, MODULUS_BITS[2048], terms))["MATZOV"])
        for terms in (1, 2, 3, SECRET_TERMS)
    ]
    assert found == sorted(found)
    assert found[-2] < 130 <= found[-1]


@pytest.mark.req("R-02", "R-03")
@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ({"degree": 1024}, "degree 1024", r"use one of \[2048, 4096\]"),
        ({"modulus_bits": 53}, "53 bits with degree 2048 is not known", "at most 52 bits"),
        ({"secret_terms": 3}, "secret_terms is 3: with all but two", "at least 4 for weights"),
        ({"error_terms": 0}, "error_terms is 0: with all but two", "at least 1 for weights"),
        ({"values_per_coefficient": 0}, "values_per_coefficient is 0", "use 1 to"),
        ({"field_bits": 10**9}, "field_bits is 1000000000", "use 20 to"),
        ({"modulus_bits": -1}, "no modulus of -1 bits", "more bits"),
        ({"modulus_bits": 48}, "48 bits: sums could wrap", "at least 49 bits"),
        ({"values_per_coefficient": 3}, "49 bits: sums could wrap", "fewer values in one"),
    ],
)
def test_an_unsafe_ring_is_refused(change: dict[str, int], reason: str, hint: str) -> None:
    made = choose(10)
    check(made)
    with pytest.raises(ConfigError, match=reason) as refusal:
        check(replace(made, ring=replace(made.ring, **change)))
    assert re.search(hint, refusal.value.hint), refusal.value.hint


@pytest.mark.req("R-03")
def test_weights_ask_for_wider_secrets_and_errors() -> None:
    made = choose(10)
    with pytest.raises(ConfigError, match="secret_terms is 4") as refusal:
        check(replace(made, max_weight=2))
    assert "at least 12 for weights up to 2" in refusal.value.hint
    assert [smallest_ring(10, 16, w).error_terms for w in range(1, 5)] == [1, 3, 7, 13]


# --- quorum and committee --------------------------------------------------------------------


def judged(n: int, collusion: float, dropout: float) -> CkksParameters | None:
    try:
        made = choose(n, collusion=collusion, dropout=dropout)
    except ConfigError:
        return None
    check(made)
    return made


@pytest.mark.req("R-04", "R-05", "R-06", "R-07")
@pytest.mark.parametrize(("collusion", "dropout"), FRACTIONS)
def test_what_is_chosen_holds_at_every_size(collusion: float, dropout: float) -> None:
    for n in SIZES:
        made = judged(n, collusion, dropout)
        if made is None:
            continue
        committee, colluders = made.committee, made.colluders
        assert colluders == math.floor(collusion * n + 1e-9)
        assert made.quorum == n - made.dropouts >= max(3, colluders + 2, made.cosigners)
        assert 2 * made.cosigners - n > colluders
        assert committee.answers <= committee.size - committee.silent
        assert committee.size * made.share_bytes <= SHARE_BYTES
        greatest = n * made.ring.secret_terms
        assert committee.modulus > 2 * greatest + committee.size
        assert made.ring.degree % committee.pack == 0
        if committee.size == n:
            assert committee.threshold == max(1, colluders)
            assert committee.silent == math.floor(dropout * n + 1e-9)
        else:
            assert n >= SPARSE_FROM
            draws = n, colluders, committee.size
            assert tail(*draws, committee.threshold + 1) <= -(SECURITY_BITS + OFFER_DRAWS_BITS)
            lost = math.floor(dropout * n + 1e-9)
            assert tail(n, lost, committee.size, committee.silent + 1) <= -FAILURE_BITS
            assert committee.correctable(committee.size - committee.silent) >= LIARS


@pytest.mark.req("R-05", "R-06")
def test_no_smaller_committee_would_do() -> None:
    sharing = Sharing(2048, 800)
    made = smallest_committee(200, colluders=20, silent=20, sharing=sharing)
    assert made == CommitteeParameters(size=35, threshold=20, pack=1, silent=12, modulus=65_521)
    bits = SECURITY_BITS + OFFER_DRAWS_BITS
    for size in range(1, 35):
        held = next(t for t in range(1, 201) if tail(200, 20, size, t + 1) <= -bits)
        lost = next(d for d in range(201) if tail(200, 20, size, d + 1) <= -FAILURE_BITS)
        pack = 1 if size * 4096 <= SHARE_BYTES else 2
        assert size - lost < held + pack + 2 * LIARS


@pytest.mark.req("R-06")
def test_below_128_nodes_the_committee_is_everybody_and_a_pack_is_as_small_as_fits() -> None:
    for n in range(3, SPARSE_FROM):
        made = choose(n)
        assert made.committee.size == n
        pack = made.committee.pack
        assert pack == 1 or n * 2 * made.share_bytes > SHARE_BYTES
        answers = n - made.committee.silent
        assert made.committee.correctable(answers) == (answers - made.committee.answers) // 2


def test_wrong_answers_beyond_t_plus_l_are_corrected_in_pairs() -> None:
    made = CommitteeParameters(size=10, threshold=3, pack=1, silent=3, modulus=65_521)
    assert [made.correctable(answers) for answers in range(3, 11)] == [0, 0, 0, 1, 1, 2, 2, 3]


@pytest.mark.req("R-04")
def test_of_a_larger_roster_all_that_collude_may_be_in_the_cohort() -> None:
    made = choose(20, members=30)
    check(made)
    assert (made.colluders, made.dropouts, made.quorum) == (9, 5, 15)
    assert (made.committee.size, made.committee.threshold) == (20, 9)
    with pytest.raises(ConfigError, match="10 nodes cannot withstand 9 that collude"):
        choose(10, members=30)


HINT = re.compile(r"with (collusion|dropout) ([0-9.]+) use (collusion|dropout) ([0-9.]+)")


@pytest.mark.req("R-04", "R-08")
@pytest.mark.parametrize(
    ("n", "members", "collusion", "dropout"),
    [
        (3, None, 0.34, 0.34), (5, None, 0.2, 0.4), (10, None, 0.4, 0.4), (99, None, 0.34, 0.34),
        (1000, None, 0.4, 0.4), (10_000, None, 0.499, 0.499), (400, 1000, 0.49, 0.2),
    ],
)  # fmt: skip
def test_a_refusal_names_the_nearest_fractions_that_work(
    n: int, members: int | None, collusion: float, dropout: float
) -> None:
    with pytest.raises(ConfigError, match=f"{n} nodes cannot withstand") as refusal:
        choose(n, members=members, collusion=collusion, dropout=dropout)
    found = HINT.findall(refusal.value.hint)
    assert found
    for kept, value, changed, nearest in found:
        fractions = {kept: float(value), changed: float(nearest)}
        check(choose(n, members=members, **fractions))
        more = {kept: {"collusion": collusion, "dropout": dropout}[kept]}
        count = math.floor(float(nearest) * (members or n) + 1e-9) + 1
        with pytest.raises(ConfigError):
            choose(n, members=members, **more, **{changed: count / (members or n)})


@pytest.mark.req("R-08")
@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ({"n": 2}, "a cohort of 2", "use 3 to 10000"),
        ({"n": 10_001}, "a cohort of 10001", "use 3 to 10000"),
        ({"members": 9}, "a roster of 9 active nodes for a cohort of 10", "use 10 to"),
        ({"value_bits": 7}, "value_bits is 7", "use 8 to 24"),
        ({"value_bits": 25}, "value_bits is 25", "use 8 to 24"),
        ({"max_weight": 0}, "max_weight is 0", "use 1 to 4"),
        ({"max_weight": 5}, "max_weight is 5", "let the nodes weigh their own"),
        ({"dropout": 0.5}, "dropout 0.5 is out of range", "0.5"),
        ({"collusion": math.nan}, "collusion nan is out of range", "0.5"),
    ],
)
def test_numbers_out_of_range_are_refused(change: dict[str, float], reason: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=reason) as refusal:
        choose(**{"n": 10, **change})  # type: ignore[arg-type]
    assert hint in refusal.value.hint


@pytest.mark.req("R-04", "R-05", "R-07")
@pytest.mark.parametrize(
    ("change", "reason", "hint"),
    [
        ({"cosigners": 333}, "two sets of them need not share an honest node", "at least 551"),
        ({"quorum": 101}, "fewer than two honest nodes are in a sum", "at least 102"),
        ({"quorum": 540}, "fewer survivors than co-signers", "at least 551"),
        ({"quorum": 1001}, "is never met", "use 1000"),
        ({"colluders": 999}, "leave nothing to hide", "assume 0 to 998"),
        ({"colluders": 300}, "two|likelier", "at least"),
        ({"size": 1001}, "a committee of 1001 of 1000", "use 1 to 1000"),
        ({"size": 0}, "a committee of 0", "use 1 to 1000"),
        ({"threshold": 42}, r"threshold 42 of 67 members: .* likelier than 2\^-40", "at least 43"),
        ({"threshold": 66}, "67 members never give 68 answers", "at least 68"),
        ({"pack": 3}, "3 coefficients in one polynomial of 2048", "power of two"),
        ({"pack": 1}, "67 shares of a secret take more", "pack of at least 2"),
        ({"pack": 4}, "fewer wrong answers are corrected than could be", "use 2"),
        ({"modulus": 7919}, "shares modulo 7919", "use 65521"),
        ({"modulus": 16_777_213}, "wider than the sum of secrets needs", "use 65521"),
    ],
)
def test_an_unsafe_quorum_or_committee_is_refused(
    change: dict[str, int], reason: str, hint: str
) -> None:
    made = choose(1000, collusion=0.1, dropout=0.1)
    check(made)
    ((name, _),) = change.items()
    if name in CommitteeParameters.__slots__:
        bad = replace(made, committee=replace(made.committee, **change))
    else:
        bad = replace(made, **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=reason) as refusal:
        check(bad)
    assert hint in refusal.value.hint


@pytest.mark.req("R-05")
def test_where_everybody_holds_shares_the_colluding_hold_no_more_than_t() -> None:
    made = choose(10)
    with pytest.raises(ConfigError, match="threshold 2 of 10 members: the colluding") as refusal:
        check(replace(made, committee=replace(made.committee, threshold=2)))
    assert refusal.value.hint == "use at least 3"
    alone = choose(3)
    assert (alone.colluders, alone.committee.threshold) == (0, 1)  # no holder opens it alone


@pytest.mark.req("R-07")
def test_shares_of_many_nodes_take_a_wider_field() -> None:
    assert [SHARE_PRIMES[choose(n).committee.modulus] for n in (3, 1000, 10_000)] == [2, 2, 3]
    made = choose(10_000)
    with pytest.raises(ConfigError, match="the sum of secrets could wrap") as refusal:
        check(replace(made, committee=replace(made.committee, modulus=65_521)))
    assert refusal.value.hint == "use 16777213"


@pytest.mark.req("R-06")
def test_no_committee_is_larger_than_its_keys_fit_a_message() -> None:
    made = choose(10_000, collusion=0.3, dropout=0.3)
    large = replace(made, committee=replace(made.committee, size=4097, threshold=4000))
    with pytest.raises(ConfigError, match="a committee of 4097 of 10000") as refusal:
        check(large)
    assert refusal.value.hint == "use 1 to 4096"


@pytest.mark.req("R-01")
@pytest.mark.parametrize(("n", "weight"), [(3, 3), (10, 3), (50, 2), (100, 3), (1000, 3)])
def test_a_coordinator_gives_the_weights_that_do_not_cost_a_fifth_more(n: int, weight: int) -> None:
    assert affordable_weight(n, 16) == weight
    two, three = (choose(n, max_weight=w, dropout=0.2).value_bytes for w in (2, 3))
    assert (three <= 1.2 * two) is (weight == 3)


def test_a_weight_of_three_may_not_fit_at_all() -> None:
    n, value_bits = 7000, 24
    assert affordable_weight(n, value_bits) == 2
    with pytest.raises(ConfigError):
        choose(n, value_bits=value_bits, max_weight=3, collusion=0.1, dropout=0.1)

"""Explicit Runge-Kutta methods as data: one entry per method.

A step from ``(t, y)`` over ``h`` forms ``k_i = f(t + c_i h, y + h sum_j a_ij k_j)`` and
``y1 = y + h sum_i b_i k_i``. A new method is one entry here and one name in
``tests/contracts/test_methods.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from sciflow.shapes import Tensor

Row = tuple[float, ...]
Fraction = float | Tensor


@dataclass(frozen=True)
class Tableau:
    """Coefficients of one method.

    Attributes:
        order: order of the advancing solution.
        c: nodes, one per stage.
        a: rows of the strictly lower triangle, one per stage after the first.
        b: weights of the solution.
        error: weights of the local error estimate (b minus the embedded weights); None for a
            method without one, which then takes constant steps only.
        dense: polynomial weights of the interpolant, one row per stage: the weight of ``k_i``
            at the fraction ``u`` of the step is ``sum_j dense[i][j] u**(j + 1)``. None asks for
            the cubic Hermite interpolant of both ends.
        fsal: the last stage is evaluated at ``(t + h, y1)`` and serves as the next step's first.
        source: where the coefficients were published.
    """

    order: int
    c: Row
    a: tuple[Row, ...]
    b: Row
    error: Row | None = None
    dense: tuple[Row, ...] | None = None
    fsal: bool = False
    source: str = ""

    @property
    def stages(self) -> int:
        """Number of stages."""
        return len(self.c)

    @property
    def adaptive(self) -> bool:
        """Whether the method estimates its own error."""
        return self.error is not None

    def dense_weights(self, u: Fraction) -> tuple[Fraction, ...]:
        """Weights of the stages at the fraction ``u`` (0 to 1) of a step, or at one per sample."""
        if self.dense is None:
            raise ValueError("this method interpolates by Hermite's polynomial, not by stages")
        weights = []
        for row in self.dense:
            value: Fraction = 0.0
            for coefficient in reversed(row):
                value = (value + coefficient) * u
            weights.append(value)
        return tuple(weights)


@dataclass(frozen=True)
class Rosenbrock(Tableau):
    """A linearly implicit method, written in increments ``u_i`` (so ``k_i = u_i / h``).

    ``(1 - gamma h J) u_i = gamma (h f(t + c_i h, y + sum_j a_ij u_j) + sum_j coupling_ij u_j +
    d_i h^2 df/dt)`` and ``y1 = y + sum_i b_i u_i`` (Hairer and Wanner, Solving ODEs II, IV.7).

    Attributes:
        gamma: the diagonal, the same for all stages.
        coupling: rows of the strictly lower triangle, one per stage after the first.
        d: weights of the time derivative, one per stage.
    """

    gamma: float = 0.0
    coupling: tuple[Row, ...] = ()
    d: Row = ()


def _monomials(scale: float, low: int, *roots_or_quadratics: Row) -> Row:
    """Expand ``scale u**low prod(polynomials)``, each given lowest power first, into u..u**4."""
    product = [scale]
    for factor in roots_or_quadratics:
        longer = [0.0] * (len(product) + len(factor) - 1)
        for i, p in enumerate(product):
            for j, q in enumerate(factor):
                longer[i + j] += p * q
        product = longer
    powers = [0.0] * (low - 1) + product
    return tuple(powers + [0.0] * (4 - len(powers)))


_DOPRI5_B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0.0)
_TSIT5_B = (
    0.09646076681806523,
    0.01,
    0.4798896504144996,
    1.379008574103742,
    -3.290069515436081,
    2.324710524099774,
    0.0,
)

# Prince and Dormand's rational approximations of the 8(7) pair, as in Hairer, Norsett and Wanner,
# Solving ODEs I, table II.5.4 (the column of the seventh order embedded weights included).
_DOPRI8_B = (
    14005451 / 335480064,
    0.0,
    0.0,
    0.0,
    0.0,
    -59238493 / 1068277825,
    181606767 / 758867731,
    561292985 / 797845732,
    -1041891430 / 1371343529,
    760417239 / 1151165299,
    118820643 / 751138087,
    -528747749 / 2220607170,
    1 / 4,
    0.0,
)
_DOPRI8_EMBEDDED = (
    13451932 / 455176623,
    0.0,
    0.0,
    0.0,
    0.0,
    -808719846 / 976000145,
    1757004468 / 5645159321,
    656045339 / 265891186,
    -3867574721 / 1518517206,
    465885868 / 322736535,
    53011238 / 667516719,
    2 / 45,
    0.0,
    0.0,
)
_NONE = (0.0,) * 6

# RODAS: stiffly accurate and L-stable, its error estimate is the last increment.
_RODAS_B = (
    1.221224509226641,
    6.019134481288629,
    12.53708332932087,
    -0.6878860361058950,
    1.0,
    1.0,
)
_RODAS_D2 = (
    10.12623508344586,
    -7.487995877610167,
    -34.80091861555747,
    -7.992771707568823,
    1.025137723295662,
    0.0,
)
_RODAS_D3 = (
    -0.6762803392801253,
    6.087714651680015,
    16.43084320892478,
    24.76722511418386,
    -6.594389125716872,
    0.0,
)

TABLEAUS: dict[str, Tableau] = {
    "euler": Tableau(order=1, c=(0.0,), a=(), b=(1.0,), source="Euler (1768)"),
    "midpoint": Tableau(order=2, c=(0.0, 0.5), a=((0.5,),), b=(0.0, 1.0), source="Runge (1895)"),
    "heun": Tableau(order=2, c=(0.0, 1.0), a=((1.0,),), b=(0.5, 0.5), source="Heun (1900)"),
    "rk4": Tableau(
        order=4,
        c=(0.0, 1 / 3, 2 / 3, 1.0),
        a=((1 / 3,), (-1 / 3, 1.0), (1.0, -1.0, 1.0)),
        b=(1 / 8, 3 / 8, 3 / 8, 1 / 8),
        source="Kutta (1901), the 3/8 rule (the variant torchdiffeq calls rk4)",
    ),
    "bosh3": Tableau(
        order=3,
        c=(0.0, 1 / 2, 3 / 4, 1.0),
        a=((1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
        b=(2 / 9, 1 / 3, 4 / 9, 0.0),
        error=(2 / 9 - 7 / 24, 1 / 3 - 1 / 4, 4 / 9 - 1 / 3, -1 / 8),
        fsal=True,
        source="Bogacki and Shampine, Appl. Math. Lett. 2, 321 (1989)",
    ),
    "dopri5": Tableau(
        order=5,
        c=(0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
        a=(
            (1 / 5,),
            (3 / 40, 9 / 40),
            (44 / 45, -56 / 15, 32 / 9),
            (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
            (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
            _DOPRI5_B[:6],
        ),
        b=_DOPRI5_B,
        error=(
            71 / 57600,
            0.0,
            -71 / 16695,
            71 / 1920,
            -17253 / 339200,
            22 / 525,
            -1 / 40,
        ),
        # Shampine, Math. Comp. 46, 135 (1986): fourth order, continuous derivative.
        dense=(
            (
                1.0,
                -8048581381 / 2820520608,
                8663915743 / 2820520608,
                -12715105075 / 11282082432,
            ),
            (0.0, 0.0, 0.0, 0.0),
            (
                0.0,
                131558114200 / 32700410799,
                -68118460800 / 10900136933,
                87487479700 / 32700410799,
            ),
            (0.0, -1754552775 / 470086768, 14199869525 / 1410260304, -10690763975 / 1880347072),
            (
                0.0,
                127303824393 / 49829197408,
                -318862633887 / 49829197408,
                701980252875 / 199316789632,
            ),
            (0.0, -282668133 / 205662961, 2019193451 / 616988883, -1453857185 / 822651844),
            (0.0, 40617522 / 29380423, -110615467 / 29380423, 69997945 / 29380423),
        ),
        fsal=True,
        source="Dormand and Prince, J. Comput. Appl. Math. 6, 19 (1980)",
    ),
    "tsit5": Tableau(
        order=5,
        c=(0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
        a=(
            (0.161,),
            (-0.008480655492356989, 0.335480655492357),
            (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
            (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
            (
                5.86145544294642,
                -12.92096931784711,
                8.159367898576159,
                -0.071584973281401,
                -0.028269050394068383,
            ),
            _TSIT5_B[:6],
        ),
        b=_TSIT5_B,
        error=(
            -0.00178001105222577714,
            -0.0008164344596567469,
            0.007880878010261995,
            -0.1447110071732629,
            0.5823571654525552,
            -0.45808210592918697,
            1 / 66,
        ),
        dense=(
            _monomials(
                -1.0530884977290216,
                1,
                (-1.3299890189751412, 1.0),
                (0.7139816917074209, -1.4364028541716351, 1.0),
            ),
            _monomials(0.1017, 2, (1.2949852507374631, -2.1966568338249754, 1.0)),
            _monomials(2.490627285651252793, 2, (1.57803468208092486, -2.38535645472061657, 1.0)),
            _monomials(
                -16.54810288924490272, 2, (-1.21712927295533244, 1.0), (-0.61620406037800089, 1.0)
            ),
            _monomials(
                47.37952196281928122,
                2,
                (-1.203071208372362603, 1.0),
                (-0.658047292653547382, 1.0),
            ),
            _monomials(-34.87065786149660974, 2, (-1.2, 1.0), (-2 / 3, 1.0)),
            _monomials(2.5, 2, (-1.0, 1.0), (-0.6, 1.0)),
        ),
        fsal=True,
        source="Tsitouras, Comput. Math. Appl. 62, 770 (2011)",
    ),
    "dopri8": Tableau(
        order=8,
        c=(
            0.0,
            1 / 18,
            1 / 12,
            1 / 8,
            5 / 16,
            3 / 8,
            59 / 400,
            93 / 200,
            5490023248 / 9719169821,
            13 / 20,
            1201146811 / 1299019798,
            1.0,
            1.0,
            1.0,
        ),
        a=(
            (1 / 18,),
            (1 / 48, 1 / 16),
            (1 / 32, 0.0, 3 / 32),
            (5 / 16, 0.0, -75 / 64, 75 / 64),
            (3 / 80, 0.0, 0.0, 3 / 16, 3 / 20),
            (
                29443841 / 614563906,
                0.0,
                0.0,
                77736538 / 692538347,
                -28693883 / 1125000000,
                23124283 / 1800000000,
            ),
            (
                16016141 / 946692911,
                0.0,
                0.0,
                61564180 / 158732637,
                22789713 / 633445777,
                545815736 / 2771057229,
                -180193667 / 1043307555,
            ),
            (
                39632708 / 573591083,
                0.0,
                0.0,
                -433636366 / 683701615,
                -421739975 / 2616292301,
                100302831 / 723423059,
                790204164 / 839813087,
                800635310 / 3783071287,
            ),
            (
                246121993 / 1340847787,
                0.0,
                0.0,
                -37695042795 / 15268766246,
                -309121744 / 1061227803,
                -12992083 / 490766935,
                6005943493 / 2108947869,
                393006217 / 1396673457,
                123872331 / 1001029789,
            ),
            (
                -1028468189 / 846180014,
                0.0,
                0.0,
                8478235783 / 508512852,
                1311729495 / 1432422823,
                -10304129995 / 1701304382,
                -48777925059 / 3047939560,
                15336726248 / 1032824649,
                -45442868181 / 3398467696,
                3065993473 / 597172653,
            ),
            (
                185892177 / 718116043,
                0.0,
                0.0,
                -3185094517 / 667107341,
                -477755414 / 1098053517,
                -703635378 / 230739211,
                5731566787 / 1027545527,
                5232866602 / 850066563,
                -4093664535 / 808688257,
                3962137247 / 1805957418,
                65686358 / 487910083,
            ),
            (
                403863854 / 491063109,
                0.0,
                0.0,
                -5068492393 / 434740067,
                -411421997 / 543043805,
                652783627 / 914296604,
                11173962825 / 925320556,
                -13158990841 / 6184727034,
                3936647629 / 1978049680,
                -160528059 / 685178525,
                248638103 / 1413531060,
                0.0,
            ),
            _DOPRI8_B[:13],
        ),
        b=_DOPRI8_B,
        error=tuple(b - e for b, e in zip(_DOPRI8_B, _DOPRI8_EMBEDDED, strict=True)),
        # The continuous extension that torchdiffeq (MIT licence) takes its midpoint from.
        dense=(
            (
                1.0,
                -6.6910181737837595,
                19.999006933368396,
                -30.061056828966645,
                22.139650499809406,
                -6.34483493928604,
            ),
            _NONE,
            _NONE,
            _NONE,
            _NONE,
            (
                0.0,
                -7.6142658045872675,
                52.227353279294555,
                -121.49996277313346,
                116.44221495503422,
                -39.61079198522025,
            ),
            (
                0.0,
                10.728139263042886,
                -46.89191641810936,
                83.17210046398478,
                -67.14513188259572,
                20.376121380879145,
            ),
            (
                0.0,
                0.5526637063753649,
                -0.18908932250105956,
                9.572450755599366,
                -16.56722435274965,
                7.334709882679536,
            ),
            (
                0.0,
                4.218656262566515,
                -35.70759759462221,
                87.84060576772056,
                -89.9916014847245,
                32.88017743524592,
            ),
            (
                0.0,
                -0.6627209125361597,
                6.273644808324035,
                -17.415210777076297,
                22.623748964853284,
                -10.158899052642676,
            ),
            (
                0.0,
                -1.2636789001135462,
                10.316088127245076,
                -28.590328951479098,
                32.23623401673554,
                -12.540126809878256,
            ),
            (
                0.0,
                5.410603789859042,
                -34.76507698666118,
                81.66309505843414,
                -82.10203154883598,
                29.555300148451604,
            ),
            (
                0.0,
                -7.032137906794574,
                47.745797107822554,
                -114.93752913770093,
                116.26621857911195,
                -41.79234864243906,
            ),
            (
                0.0,
                2.3537586759714983,
                -19.008209934160803,
                50.255836422617605,
                -53.90207774663854,
                20.300692582210083,
            ),
        ),
        fsal=True,
        source="Prince and Dormand, J. Comput. Appl. Math. 7, 67 (1981)",
    ),
    "rodas4": Rosenbrock(
        order=4,
        c=(0.0, 0.386, 0.21, 0.63, 1.0, 1.0),
        a=(
            (1.544,),
            (0.9466785280815826, 0.2557011698983284),
            (3.314825187068521, 2.896124015972201, 0.9986419139977817),
            _RODAS_B[:4],
            _RODAS_B[:5],
        ),
        b=_RODAS_B,
        error=(0.0, 0.0, 0.0, 0.0, 0.0, 1.0),
        # (1 - u) y0 + u (y1 + (1 - u) (D2 + u D3)), as powers of u
        dense=tuple(
            (b + p, q - p, -q) for b, p, q in zip(_RODAS_B, _RODAS_D2, _RODAS_D3, strict=True)
        ),
        gamma=0.25,
        coupling=(
            (-5.6688,),
            (-2.430093356833875, -0.2063599157091915),
            (-0.1073529058151375, -9.594562251023355, -20.47028614809616),
            (7.496443313967647, -10.24680431464352, -33.99990352819905, 11.70890893206160),
            (
                8.083246795921522,
                -7.981132988064893,
                -31.52159432874371,
                16.31930543123136,
                -6.058818238834054,
            ),
        ),
        d=(0.25, -0.1043, 0.1035, -0.03620000000000023, 0.0, 0.0),
        source="Hairer and Wanner, Solving ODEs II (1996), section VI.4, code RODAS",
    ),
}

#!/usr/bin/env python3
"""Derives gantry/kernels/activation/activation_fit.h and activation_pieces.h: f'(f^-1(y)) of GELU (erf and tanh) and
SiLU, the normal tail, the logarithm and the exponential.

The derivative g of an activation f is wanted as a function of its output y and of the side of the minimum (x*, y*)
that the input lay on. Two singularities forbid a plain polynomial in y:
  * the minimum: y - y* ~ f''(x*)/2 (x - x*)^2, so g ~ +-sqrt(2 f''(x*) (y - y*)). With the signed root
    u = s sqrt(y - y*), s = +1 right of x*, -1 left, y - y* is an analytic function of x with a double zero, u one with
    a single zero, and so is its inverse x(u) and g(u) = f'(x(u)): one smooth function through the minimum.
  * the left tail, y -> 0-: x ~ -sqrt(2 ln(1/|y|)) for GELU (-ln(1/|y|) for SiLU), so g/y grows with the root of a
    logarithm. With w = sqrt(ln(y*/y)), g = y h(w), and h is smooth; near the minimum w is proportional to u.
Pieces (minimax in absolute error of g, by exchange on a dense grid; samples in 40 digits):
  core  u, right, y <= 1 (SiLU 2), degree 8
  tail  y - 3 for GELU, 1 < y < 5; u - 2.75 for SiLU, 2 < y < 16; degree 10; beyond it g = 1
  left  h(w), weighted by |y|, w <= 4.85, degree 8
  fast  u on both sides at once, y <= 4 (SiLU 10), degree 10; beyond it g = 1
The CPU kernels cut both sides into pieces of one degree instead, so that each lane of a vector looks its coefficients
up (activation_pieces.h). With S = c u right (c = 2 for GELU, 1 for SiLU) and S = w left, piece n = round(S / step) is a
polynomial in S / step - n, |.| <= 1/2; right g itself, left h. On the right the last piece is the constant 1, from y = 5
(SiLU 16) on. Degree 5; 3 for values of sixteen bits.
QuickGELU needs no table: f(x) = silu(a x) / a with a = 1.702, so its g(y) is SiLU's at a y.

The forward pass of erf GELU takes the upper normal tail Q(t) = exp(-t^2/2) R(t). In activation_fit.h R is a polynomial in
v = (t - k) / (t + k), 0 <= t <= 15, degree 10, its error weighted by (exp(-t^2/2) + 1e-3) / R: relative where Q matters, a
thousand times looser far out. In activation_pieces.h it is one in v = (t - t0) / (t + pole), 0 <= t <= 13.25, degree 8,
with 3e-3 for 1e-3; t0 is where R = 1/4, so that the first term of t R is exact. The logarithm of w takes ln(1 + f) / f on
[sqrt(1/2) - 1, sqrt(2) - 1], degree 5, relative; the exponential (e^r - 1 - r) / r^2, |r| <= ln(2) / 2, degree 4, relative to e^r. Short
forms for sixteen bits: the logarithm's degree 3, and e^r itself with degree 4.

Without an argument it prints every fit. With activation_fit.h it evaluates its coefficients, and those of the other
header beside it, on the same samples and fails if one of them errs more than a quarter above the fresh minimax fit (rounding to fp32 and sparser grids cost some).

    tools/fit_activation.py [gantry/kernels/activation/activation_fit.h]

Needs numpy and mpmath; about a minute.
"""
import argparse
import pathlib
import re
import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 40
POINTS = 1500
TAIL_CENTRE, TAIL_ROOT, TAIL_POLE = "1.5", "1.08764303", "2.8"  # k, t0 and pole above
PIECES, PIECE_POINTS = 16, 160
A = mp.mpf("0.044715")


def erf_gelu(x):
    cdf, pdf = mp.ncdf(x), mp.npdf(x)
    return x * cdf, cdf + x * pdf


def tanh_gelu(x):
    root = mp.sqrt(2 / mp.pi)
    s = 1 / (1 + mp.exp(-2 * root * (x + A * x**3)))
    return x * s, s + x * s * (1 - s) * 2 * root * (1 + 3 * A * x**2)


def silu(x):
    s = 1 / (1 + mp.exp(-x))
    return x * s, s * (1 + x * (1 - s))


class Settings:
    def __init__(self, name, f, core_end, tail_end, fast_end, root_scale, tail_variable):
        self.name, self.f, self.core_end, self.tail_end, self.fast_end = name, f, core_end, tail_end, fast_end
        self.tail_variable = tail_variable
        self.x_min = mp.findroot(lambda x: f(x)[1], (mp.mpf("-1.3"), mp.mpf("-0.7")), solver="anderson")
        self.y_min = f(self.x_min)[0]
        self.root_scale = root_scale
        # The constant piece, which is the seventh, begins at tail_end.
        self.step = root_scale * self.root(tail_end, 1) / (PIECES // 2 - mp.mpf("1.5"))

    def root(self, y, side):
        return side * mp.sqrt(y - self.y_min)

    def right_x(self, y):
        return mp.findroot(lambda x: self.f(x)[0] - y, y + mp.mpf("0.1"))

    def left_x(self, w):
        """x < x* whose output is y* exp(-w^2); bisection, since nothing else is as safe."""
        target = self.y_min * mp.exp(-w * w)
        low, high = mp.mpf(-60), self.x_min
        for _ in range(140):
            middle = (low + high) / 2
            low, high = (middle, high) if self.f(middle)[0] > target else (low, middle)
        return (low + high) / 2


SETTINGS = [
    Settings("erf", erf_gelu, 1, 5, 4, 2, lambda s, y: y - 3),
    Settings("tanh", tanh_gelu, 1, 5, 4, 2, lambda s, y: y - 3),
    Settings("silu", silu, 2, 16, 10, 1, lambda s, y: s.root(y, 1) - mp.mpf("2.75")),
]


def cosine_grid(low, high, points=POINTS):
    """Denser at the ends, where the extrema of the error crowd."""
    middle, half = (low + high) / 2, (high - low) / 2
    return [middle - half * mp.cos(mp.pi * i / (points - 1)) for i in range(points)]


def minimax(variable, values, degree, weights=None):
    """Coefficients (ascending) of the polynomial with the least largest |weights (values - p(variable))|: Remez' exchange
    on the grid, in a Chebyshev basis of the interval for the sake of conditioning."""
    order = np.argsort(variable)
    v, f = variable[order], values[order]
    weight = np.ones_like(v) if weights is None else weights[order]
    low, high = v[0], v[-1]
    basis = np.polynomial.chebyshev.chebvander(2 * (v - low) / (high - low) - 1, degree)
    count = degree + 2
    position = (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2
    picks = np.unique(np.searchsorted(v, low + position * (high - low)).clip(0, len(v) - 1))
    assert len(picks) == count, "the grid is too coarse"
    for _ in range(100):
        signs = (-1.0) ** np.arange(count) / np.maximum(weight[picks], 1e-300)
        solution = np.linalg.solve(np.column_stack([basis[picks], signs]), f[picks])
        error = weight * (f - basis @ solution[:-1])
        # One extremum of each run of equal sign; then the window of `count` neighbours that holds the largest.
        edges = np.flatnonzero(np.diff(np.sign(error)) != 0) + 1
        extrema = np.array([run[np.argmax(np.abs(error[run]))] for run in np.split(np.arange(len(v)), edges)])
        while len(extrema) > count:
            extrema = extrema[1:] if abs(error[extrema[0]]) < abs(error[extrema[-1]]) else extrema[:-1]
        if len(extrema) < count or np.array_equal(extrema, picks):
            break
        picks = extrema
        if np.max(np.abs(error)) <= abs(solution[-1]) * (1 + 1e-9):
            break
    polynomial = np.polynomial.Chebyshev(solution[:-1], domain=[low, high]).convert(kind=np.polynomial.Polynomial)
    return polynomial.coef, float(np.max(np.abs(weight * (f - polynomial(v)))))


def array(values):
    return np.array([float(v) for v in values])


def right_samples(s, y_end, y_begin=None):
    x = cosine_grid(s.x_min if y_begin is None else s.right_x(mp.mpf(y_begin)), s.right_x(mp.mpf(y_end)))
    pairs = [s.f(v) for v in x]
    return [p[0] for p in pairs], array(p[1] for p in pairs)


def left_samples(s, w_end):
    w = cosine_grid(mp.mpf(0), mp.mpf(w_end), POINTS // 2)
    pairs = [s.f(s.left_x(v)) for v in w]
    return w, [p[0] for p in pairs], array(p[1] for p in pairs)


def activation_problems(s):
    """name -> (variable, values, degree, weights) of each piece of one activation."""
    problems = {}
    y, g = right_samples(s, s.core_end)
    problems["core"] = (array(s.root(v, 1) for v in y), g, 8, None)
    y, g = right_samples(s, s.tail_end, s.core_end)
    problems["tail"] = (array(s.tail_variable(s, v) for v in y), g, 10, None)
    w, left_y, left_g = left_samples(s, "4.85")
    h = left_g / array(left_y)
    h[0] = 0.0  # g is zero at the minimum itself
    problems["left"] = (array(w), h, 8, np.abs(array(left_y)))
    y, g = right_samples(s, s.fast_end)
    u = np.concatenate([array(s.root(v, 1) for v in y), array(s.root(v, -1) for v in left_y)[1:]])
    problems["fast"] = (u, np.concatenate([g, left_g[1:]]), 10, None)
    return problems


def piece_samples(s, right, n):
    """Variable, g (left: h) and weights of piece n of one side."""
    low, high = max(0, n - mp.mpf("0.5")) * s.step, (n + mp.mpf("0.5")) * s.step
    inverse = (lambda v: s.right_x(s.y_min + (v / s.root_scale) ** 2)) if right else s.left_x
    pairs = [s.f(x) for x in cosine_grid(inverse(low) if n > 0 else s.x_min, inverse(high), PIECE_POINTS)]
    y, g = array(p[0] for p in pairs), array(p[1] for p in pairs)
    if right:
        return array(s.root_scale * s.root(p[0], 1) / s.step - n for p in pairs), g, None
    w = (mp.sqrt(mp.log(s.y_min / p[0])) if p[0] > s.y_min else 0 for p in pairs)
    g[np.abs(g) < 1e-25] = 0.0  # at the minimum itself
    return array(v / s.step - n for v in w), g / y, np.abs(y)


def piece_problems(s):
    problems = {}
    for right in (True, False):
        for n in range(PIECES // 2 - right):
            variable, values, weights = piece_samples(s, right, n)
            for prefix, degree in (("", 5), ("short ", 3)):
                problems[f"{prefix}piece {n if right else n + PIECES // 2}"] = (variable, values, degree, weights)
    return problems


def normal_tail_samples(root, pole, end):
    """v, exp(-t^2/2) and R(t) of t = 0 to end, v = (t - root) / (t + pole)."""
    root, pole, end = mp.mpf(root), mp.mpf(pole), mp.mpf(end)
    v = cosine_grid(-root / pole, (end - root) / (end + pole))
    t = [(root + pole * a) / (1 - a) for a in v]
    return array(v), np.exp(-0.5 * array(t) ** 2), array(mp.erfc(x / mp.sqrt(2)) / 2 * mp.exp(x * x / 2) for x in t)


def helper_problems():
    v, density, r = normal_tail_samples(TAIL_CENTRE, TAIL_CENTRE, 15)
    quarter_v, quarter_density, quarter_r = normal_tail_samples(TAIL_ROOT, TAIL_POLE, "13.25")
    q = np.linspace(-0.5, 0.5, POINTS) * np.log(2)
    f = np.linspace(np.sqrt(0.5) - 1, np.sqrt(2) - 1, POINTS)
    f = f[np.abs(f) > 1e-4]
    logarithm = np.log1p(f) / f
    return {
        "normal_tail": (v, r, 10, (density + 1e-3) / r),
        "quarter_tail": (quarter_v, quarter_r, 8, (quarter_density + 3e-3) / quarter_r),
        "log1p": (f, logarithm, 5, 1 / logarithm),
        "short_log1p": (f, logarithm, 3, 1 / logarithm),
        "exp": (q, array((mp.expm1(x) - x) / x**2 if x else 0.5 for x in map(mp.mpf, q)), 4, q**2 * np.exp(-q)),
        "short_exp": (q, np.exp(q), 4, np.exp(-q)),
    }


def header_tables(path):
    """The coefficients of activation_fit.h and of activation_pieces.h beside it."""
    path = pathlib.Path(path)
    text = path.read_text() + path.with_name("activation_pieces.h").read_text()
    text = re.sub(r"//[^\n]*", "", text)
    number = r"[-+]?[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?"
    numbers = lambda body: [float(n) for n in re.findall(number + r"(?=f)", body)]
    constant = lambda name: numbers(re.search(rf"\bk{name}(?:\[\d+\])? = ([^;]*;)", text).group(1))
    tables = {}
    for name, body in re.findall(r" Table k(\w+) = \{(.*?)\}\};", text, re.S):
        for piece, part in zip(("core", "tail", "left", "fast"), re.findall(r"\{([^{}]*)", body)):
            tables[name.lower() + " " + piece] = numbers(part)
    for prefix, name, body in re.findall(r"Pieces<\d> k(Short)?(\w+?)Pieces = \{(.*?)\};", text, re.S):
        rows = [numbers(row) for row in re.findall(r"\{([^{}]*)\}", body)]
        for lane in range(PIECES):
            tables[f"{name.lower()} {prefix.lower()}{' ' if prefix else ''}piece {lane}"] = [row[lane] for row in rows]
    for name in ("log1p", "short_log1p", "exp", "short_exp"):
        tables[name] = constant(name.title().replace("_", "").replace("1P", "1p"))
    tables["normal_tail"] = constant("NormalTailStart") + constant("NormalTail")
    tables["quarter_tail"] = [0.25] + constant("QuarterTail")
    return tables


def print_pieces(s, prefix, fits):
    """One activation's pieces as the initializer in the header: a row a power, a column a piece."""
    lanes = [fits.get(f"{s.name} {prefix}piece {lane}") for lane in range(PIECES)]
    degree = len(lanes[0]) - 1
    lanes = [[1.0] + degree * [0.0] if lane is None else lane for lane in lanes]
    print(f"{s.name} {prefix}pieces, 1 / step = {mp.nstr(1 / s.step, 9)}:")
    for power in range(degree + 1):
        print("  {" + ", ".join(f"{np.float32(lane[power]):.9g}f" for lane in lanes) + "},")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("header", nargs="?")
    header = parser.parse_args().header
    given = header_tables(header) if header else {}
    problems = helper_problems()
    fits = {}
    for s in SETTINGS:
        print(f"{s.name}: x* = {mp.nstr(s.x_min, 18)}, y* = {mp.nstr(s.y_min, 18)}")
        problems.update({f"{s.name} {piece}": problem for piece, problem in activation_problems(s).items()})
        problems.update({f"{s.name} {piece}": problem for piece, problem in piece_problems(s).items()})
    bad = 0
    for name, (variable, values, degree, weights) in problems.items():
        coefficients, error = minimax(variable, values, degree, weights)
        fits[name] = coefficients
        line = f"{name}: minimax error {error:.2e}"
        if header:
            off = np.polynomial.polynomial.polyval(variable, given[name]) - values
            actual = np.max(np.abs(off if weights is None else off * weights))
            worse = len(given[name]) != degree + 1 or actual > 1.25 * error + 1.5e-7
            bad += worse
            print(f"{line}, header {actual:.2e}{'  WORSE' if worse else ''}")
        else:
            print(line + ("" if "piece" in name else "\n  " + " ".join(f"{c:.9g}" for c in coefficients)))
    if not header:
        for s in SETTINGS:
            print_pieces(s, "", fits)
            print_pieces(s, "short ", fits)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

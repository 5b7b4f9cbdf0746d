#!/usr/bin/env python3
"""Derives gantry/kernels/activation/activation_fit.h: f'(f^-1(y)) of GELU (erf and tanh) and SiLU, and the normal tail.

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
The short tables, for values of sixteen bits, have degree 5, and the tail in two pieces that meet at y = 2.2 (SiLU 5).
QuickGELU needs no table: f(x) = silu(a x) / a with a = 1.702, so its g(y) is SiLU's at a y.

The forward pass of erf GELU takes the upper normal tail Q(t) = exp(-t^2/2) R(v), v = (t - k) / (t + k), 0 <= t <= 15,
R's error weighted by (exp(-t^2/2) + 1e-3) / R: relative where Q matters, a thousand times looser far out. The logarithm
of w takes ln(1 + f) / f on [-1/4, 1/2], relative. Their short forms have degrees 6 (0.03 for 1e-3) and 3; that of e^r,
|r| <= ln(2) / 2, has degree 4.

Without an argument it prints every fit. With the header it evaluates the header's coefficients on the same samples and
fails if one of them errs more than a quarter above the fresh minimax fit (rounding to fp32 and sparser grids cost some).

    tools/fit_activation.py [gantry/kernels/activation/activation_fit.h]

Needs numpy and mpmath; about a minute.
"""
import argparse
import re
import sys

import mpmath as mp
import numpy as np

mp.mp.dps = 40
POINTS = 1500
TAIL_CENTRE = 1.5  # k above
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
    def __init__(self, name, f, core_end, far_begin, tail_end, fast_end, tail_variable):
        self.name, self.f, self.core_end, self.tail_end, self.fast_end = name, f, core_end, tail_end, fast_end
        self.far_begin = far_begin
        self.tail_variable = tail_variable
        self.x_min = mp.findroot(lambda x: f(x)[1], (mp.mpf("-1.3"), mp.mpf("-0.7")), solver="anderson")
        self.y_min = f(self.x_min)[0]

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
    Settings("erf", erf_gelu, 1, "2.2", 5, 4, lambda s, y: y - 3),
    Settings("tanh", tanh_gelu, 1, "2.2", 5, 4, lambda s, y: y - 3),
    Settings("silu", silu, 2, "5", 16, 10, lambda s, y: s.root(y, 1) - mp.mpf("2.75")),
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
    problems["short core"] = (*problems["core"][:2], 5, None)
    for piece, begin, end, degree in (
        ("tail", s.core_end, s.tail_end, 10),
        ("short near", s.core_end, mp.mpf(s.far_begin), 5),
        ("short far", mp.mpf(s.far_begin), s.tail_end, 5),
    ):
        y, g = right_samples(s, end, begin)
        problems[piece] = (array(s.tail_variable(s, v) for v in y), g, degree, None)
    w, left_y, left_g = left_samples(s, "4.85")
    h = left_g / array(left_y)
    h[0] = 0.0  # g is zero at the minimum itself
    problems["left"] = (array(w), h, 8, np.abs(array(left_y)))
    problems["short left"] = (array(w), h, 5, np.abs(array(left_y)))
    y, g = right_samples(s, s.fast_end)
    u = np.concatenate([array(s.root(v, 1) for v in y), array(s.root(v, -1) for v in left_y)[1:]])
    problems["fast"] = (u, np.concatenate([g, left_g[1:]]), 10, None)
    return problems


def helper_problems():
    k = mp.mpf(TAIL_CENTRE)
    v = cosine_grid(mp.mpf(-1), (15 - k) / (15 + k))
    t = [k * (1 + a) / (1 - a) for a in v]
    r = array(mp.erfc(x / mp.sqrt(2)) / 2 * mp.exp(x * x / 2) for x in t)
    density = np.exp(-0.5 * array(t) ** 2)
    q = np.linspace(-0.5, 0.5, POINTS) * np.log(2)
    f = np.linspace(-0.25, 0.5, POINTS)
    f = f[np.abs(f) > 1e-4]
    logarithm = np.log1p(f) / f
    return {
        "normal_tail": (array(v), r, 10, (density + 1e-3) / r),
        "short_normal_tail": (array(v), r, 6, (density + 0.03) / r),
        "log1p": (f, logarithm, 7, 1 / logarithm),
        "short_log1p": (f, logarithm, 3, 1 / logarithm),
        "short_exp": (q, np.exp(q), 4, np.exp(-q)),
    }


def header_tables(path):
    text = re.sub(r"//[^\n]*", "", open(path).read())
    number = r"[-+]?[0-9]*\.?[0-9]+(?:e[-+]?[0-9]+)?"
    numbers = lambda body: [float(n) for n in re.findall(number + r"(?=f)", body)]
    tables = {}
    for name, body in re.findall(r" Table k(\w+) = \{(.*?)\}\};", text, re.S):
        for piece, part in zip(("core", "tail", "left", "fast"), re.findall(r"\{([^{}]*)", body)):
            tables[name.lower() + " " + piece] = numbers(part)
    for name, body in re.findall(r" ShortTable kShort(\w+) = \{(.*?)\}\};", text, re.S):
        for piece, part in zip(("core", "near", "far", "left"), re.findall(r"\{([^{}]*)", body)):
            tables[name.lower() + " short " + piece] = numbers(part)
    for prefix, name in (("", "k"), ("short_", "kShort")):
        tables[prefix + "log1p"] = numbers(re.search(name + r"Log1p\[\d\] = \{(.*?)\}", text, re.S).group(1))
        start = numbers(re.search(name + r"NormalTailStart = ([^;]*;)", text).group(1))
        rest = numbers(re.search(name + r"NormalTail\[\d+\] = \{(.*?)\}", text, re.S).group(1))
        tables[prefix + "normal_tail"] = start + rest
    tables["short_exp"] = numbers(re.search(r"kShortExp\[5\] = \{(.*?)\}", text, re.S).group(1))
    return tables


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("header", nargs="?")
    header = parser.parse_args().header
    given = header_tables(header) if header else {}
    problems = helper_problems()
    for s in SETTINGS:
        print(f"{s.name}: x* = {mp.nstr(s.x_min, 18)}, y* = {mp.nstr(s.y_min, 18)}")
        problems.update({f"{s.name} {piece}": problem for piece, problem in activation_problems(s).items()})
    bad = 0
    for name, (variable, values, degree, weights) in problems.items():
        coefficients, error = minimax(variable, values, degree, weights)
        line = f"{name}: minimax error {error:.2e}"
        if header:
            off = np.polynomial.polynomial.polyval(variable, given[name]) - values
            actual = np.max(np.abs(off if weights is None else off * weights))
            worse = len(given[name]) != degree + 1 or actual > 1.25 * error + 1.5e-7
            bad += worse
            print(f"{line}, header {actual:.2e}{'  WORSE' if worse else ''}")
        else:
            print(line + "\n  " + " ".join(f"{c:.9g}" for c in coefficients))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Inversion with beta and gamma known: solve equation 2 for the victim's probabilities.

Every answer is K equations in K - 1 unknowns, but with more than one solution: left of the
curve's minimum an answer falls as the probability rises, right of it it rises. So the equations
are solved from many starting points (how sure the victim was, and which class besides the top
one might be right of the minimum), by damped Gauss-Newton steps on the victim's logits, with the
accuracy constraint in the equations. The solution is taken whose protected form is nearest, and
of several exact ones the surest: victims are sure of most inputs. A substitute that matches its
logits gets more of it than one that matches its probabilities, which say little but the label.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_softmax, softmax

from load_tests.asking.endpoint import Answers
from postprocess.arrays import Float64
from postprocess.errors import InputError
from postprocess.parameters import Parameters

#: Starting points: how far the top class's logit leads, and the spread of the others'.
LEADS = (1.0, 3.0, 6.0, 10.0, 15.0)
SPREADS = (0.3, 1.0)
STEPS = 60
#: The work grows with the third power of the classes. Of more than so many, one starting point in
#: so many is taken: every lead, with the smaller spread and no class lifted.
MANY, ONE_IN = 32, 4
#: Answers, starting points and classes at a time: their product.
AT_ONCE = 2**17
#: Squared distances below it are float32's: such a solution is one, not nearly one.
EXACT = 1e-13
DONE = 1e-16  #: nothing is gained below it
TINY = 1e-300
#: Answers whose solutions are kept: every budget of every thief of an attack has them again.
REMEMBERED = 16384
_solved: dict[tuple[Parameters, bytes], Float64] = {}


def recover(answers: Answers, parameters: Parameters) -> Answers:
    """Return the victim's probabilities as far as the answers determine them, shape (n, K).

    Args:
        answers: the endpoint's, shape (n, K), rows sum to 1.
        parameters: of the defence, as the adversary knows them.

    Raises:
        InputError: they are not of a Reverse Sigmoid.
    """
    found, distance = solutions(answers, parameters)
    exact = distance < EXACT
    sure = np.where(exact, found.max(axis=2), -np.inf)
    best = np.where(exact.any(axis=0), sure.argmax(axis=0), distance.argmin(axis=0))
    recovered: Answers = softmax(found[best, np.arange(len(answers))], axis=1).astype(np.float32)
    return recovered


def protect(logits: Float64, parameters: Parameters) -> Float64:
    """Return equation 2 with its accuracy constraint, in float64, from logits (n, K)."""
    return Forward.of(logits, parameters).protected


@dataclass(frozen=True)
class Forward:
    """Equation 2 of rows of logits, step by step: arrays of shape (n, K), or (n, 1)."""

    y: Float64
    others: Float64  #: 1 - y, without cancellation
    s: Float64
    beta: Float64  #: (n, 1)
    capped_by: NDArray[np.intp]  #: (n,), the class that bounds beta; -1: none
    z: Float64
    total: Float64  #: (n, 1), of z
    gamma: float
    kept: float  #: of the cap, 1 - margin

    @classmethod
    def of(cls, logits: Float64, parameters: Parameters) -> "Forward":
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))  # the top class's is 1
        total = odds.sum(axis=1, keepdims=True)
        rows, top = np.arange(len(odds)), odds.argmax(axis=1)
        below = odds.copy()
        below[rows, top] = 0
        others = total - odds
        others[rows, top] = below.sum(axis=1)
        y, gamma = odds / total, parameters.gamma or 0
        s = expit(gamma * (np.log(odds.clip(TINY)) - np.log(others.clip(TINY))))
        beta = np.full((len(y), 1), parameters.beta or 0)
        capped_by, kept = np.full(len(y), -1), 1 - parameters.margin
        if parameters.preserve_top1:
            gap = s.max(axis=1, keepdims=True) - s
            apart = gap > 0
            bound = (y.max(axis=1, keepdims=True) - y) / np.where(apart, gap, 1)
            bound = np.where(apart, bound, np.inf)
            cap = kept * bound.min(axis=1, keepdims=True)
            capped_by = np.where(cap[:, 0] < beta[:, 0], bound.argmin(axis=1), -1)
            beta = np.minimum(beta, cap)
        z = np.maximum(y - beta * (s - 0.5), 0)
        return cls(y, others / total, s, beta, capped_by, z, z.sum(axis=1, keepdims=True),
                   gamma, kept)  # fmt: skip

    @property
    def protected(self) -> Float64:
        protected: Float64 = self.z / self.total
        return protected

    def jacobian(self) -> "Jacobian":
        """Return the derivatives of the protected row by the logits.

        Of z those are diag(d) - d y^T - (s - 1/2) dbeta^T but for the top class's row, which is
        made by itself: there the two terms of d would cancel.
        """
        y, rows, top = self.y, np.arange(len(self.y)), self.s.argmax(axis=1)
        kept = self.z > 0
        d = kept * (y - self.beta * self.gamma * self.s * (1 - self.s) / self.others.clip(TINY))
        d[rows, top] = 0
        dy, ds = self._rows(top)
        row = kept[rows, top][:, None] * (dy - self.beta * ds)
        dbeta = np.zeros_like(y)
        (capped,) = np.nonzero(self.capped_by >= 0)
        if len(capped):
            by = np.where(self.capped_by >= 0, self.capped_by, top)
            gap, lead = (each[rows, top] - each[rows, by] for each in (self.s, y))
            dy_by, ds_by = self._rows(by)
            gap, lead = gap[capped, None], lead[capped, None]
            apart = (ds - ds_by)[capped]
            dbeta[capped] = self.kept * ((dy - dy_by)[capped] - lead / gap * apart) / gap
        of_beta = kept * (0.5 - self.s)
        diagonal = d.copy()
        diagonal[rows, top] = np.sqrt(np.square(d).mean(axis=1)) + TINY  # no inverse explodes
        row[rows, top] -= diagonal[rows, top]
        is_top = np.zeros_like(y)
        is_top[rows, top] = 1
        # Each column sum goes off as a share of the protected row, which is z over its total.
        left = [of - self.protected * of.sum(axis=1, keepdims=True) for of in (-d, of_beta, is_top)]
        left.append(-self.protected)
        right = [y, dbeta, row, diagonal]
        total = self.total[:, :, None]
        return Jacobian(
            diagonal / self.total, np.stack(left, axis=2) / total, np.stack(right, axis=2)
        )

    def _rows(self, classes: NDArray[np.intp]) -> tuple[Float64, Float64]:
        """Return the derivatives of one class's y and s for each row, shapes (n, K)."""
        rows = np.arange(len(self.y))
        y, others, s = (each[rows, classes][:, None] for each in (self.y, self.others, self.s))
        dy, slope = -y * self.y, self.gamma * s * (1 - s)
        ds = -slope * self.y / others.clip(TINY)
        dy[rows, classes], ds[rows, classes] = (y * others)[:, 0], slope[:, 0]
        return dy, ds


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of rows of K, each diag(``diagonal``) + ``left`` ``right``^T.

    Shapes (n, K) and twice (n, K, 4): nothing here grows with the square of the classes.
    """

    diagonal: Float64
    left: Float64
    right: Float64

    def dense(self) -> Float64:
        """Return them as matrices, shape (n, K, K)."""
        whole: Float64 = self.left @ self.right.transpose(0, 2, 1)
        whole[:, np.eye(whole.shape[1], dtype=bool)] += self.diagonal
        return whole

    def step(self, residual: Float64, damping: Float64) -> Float64:
        """Return the solutions x of (J^T J + damping) x = J^T residual, shape (n, K).

        Args:
            residual: shape (n, K).
            damping: shape (n,), as a share of the mean of J^T J's diagonal.

        By Woodbury's identity: J^T J is the diagonal's square plus W M W^T, of rank 8.
        """
        left, right, diagonal = self.left, self.right, self.diagonal[:, :, None]
        rank = left.shape[2]
        gram = left.transpose(0, 2, 1) @ left
        scaled = diagonal * left
        trace = np.square(self.diagonal).sum(axis=1) + 2 * (scaled * right).sum(axis=(1, 2))
        trace += (gram * (right.transpose(0, 2, 1) @ right)).sum(axis=(1, 2))
        small = damping * (trace / left.shape[1] + 1e-18)
        inverse = 1 / (np.square(diagonal) + small[:, None, None])
        wide = np.concatenate([scaled, right], axis=2)
        middle = np.zeros((len(left), 2 * rank, 2 * rank))
        middle[:, :rank, :rank] = -gram
        middle[:, :rank, rank:] = middle[:, rank:, :rank] = np.eye(rank)
        middle += wide.transpose(0, 2, 1) @ (inverse * wide)
        wanted = diagonal * residual[:, :, None]
        wanted = wanted + right @ (left.transpose(0, 2, 1) @ residual[:, :, None])
        by_diagonal = inverse * wanted
        inner = np.linalg.solve(middle, wide.transpose(0, 2, 1) @ by_diagonal)
        found: Float64 = (by_diagonal - inverse * (wide @ inner))[:, :, 0]
        return found


def solutions(answers: Answers, parameters: Parameters) -> tuple[Float64, Float64]:
    """Return what every starting point leads to, and how far its protected form is from the answer.

    Args:
        answers, parameters: see ``recover``.

    Returns:
        log-probabilities, shape (starts, n, K), and squared distances, shape (starts, n).

    Raises:
        InputError: see ``recover``.
    """
    if parameters.defense != "reverse_sigmoid":
        raise InputError("--recover analytic: expected the beta and gamma of Reverse Sigmoid")
    wanted = answers.astype(np.float64)
    keys = [(parameters, row.tobytes()) for row in wanted]
    new = np.flatnonzero([key not in _solved for key in keys])
    if len(_solved) + len(new) > REMEMBERED:
        _solved.clear()
        new = np.arange(len(keys))
    chunk = max(1, AT_ONCE // (wanted.shape[1] * 2 * len(LEADS) * len(SPREADS)))
    for some in np.array_split(new, -(-len(new) // chunk)) if len(new) else []:
        found = _solutions(wanted[some], parameters)
        _solved.update(zip((keys[one] for one in some), found.swapaxes(0, 1), strict=True))
    found = np.stack([_solved[key] for key in keys], axis=1)
    return found, np.stack([_distance(each, wanted, parameters) for each in found])


def _solutions(answers: Float64, parameters: Parameters) -> Float64:
    starts = np.stack(_starts(answers))
    led_to = _solve(np.concatenate(starts), np.tile(answers, (len(starts), 1)), parameters)
    as_they_are = np.log(answers.clip(1e-12))
    found: Float64 = log_softmax(np.stack([as_they_are, *led_to.reshape(starts.shape)]), axis=2)
    return found


def _distance(logits: Float64, answers: Float64, parameters: Parameters) -> Float64:
    distance: Float64 = np.square(protect(logits, parameters) - answers).sum(axis=1)
    return distance


def _starts(answers: Float64) -> list[Float64]:
    """The top class leads; the others stand in the reversed order of their answers.

    Once so, and once with the class that the answer puts second lifted to the second place.
    """
    rows, classes = answers.shape
    order = answers.argsort(axis=1)
    top, second = order[:, -1], order[:, -2]
    place = (-answers).argsort(axis=1).argsort(axis=1).astype(np.float64)  # 0 for the top class
    starts = []
    for lead in LEADS:
        for spread in SPREADS:
            for lifted in (False, True):
                logits = spread * (place - classes)
                if lifted:
                    logits[np.arange(rows), second] = 0
                logits[np.arange(rows), top] = logits.max(axis=1) + lead
                starts.append(logits)
    return starts[::ONE_IN] if classes > MANY else starts


def _solve(logits: Float64, answers: Float64, parameters: Parameters) -> Float64:
    """Return where damped Gauss-Newton steps from some logits lead."""
    solved = logits.copy()
    damping = np.full(len(logits), 1e-3)
    residual = protect(logits, parameters) - answers
    for _ in range(STEPS):
        left = np.flatnonzero(np.square(residual).sum(axis=1) > DONE)
        if not len(left):
            break
        start, off, wanted = solved[left], residual[left], answers[left]
        tried = log_softmax(start - _step(start, off, parameters, damping[left]), axis=1)
        after = protect(tried, parameters) - wanted
        better = np.square(after).sum(axis=1) < np.square(off).sum(axis=1)
        solved[left[better]], residual[left[better]] = tried[better], after[better]
        damping[left] = np.clip(np.where(better, 0.2, 5.0) * damping[left], 1e-12, 1e6)
    return solved


def _step(logits: Float64, residual: Float64, parameters: Parameters, damping: Float64) -> Float64:
    """Return a damped Gauss-Newton step."""
    step = Forward.of(logits, parameters).jacobian().step(residual, damping)
    clipped: Float64 = np.clip(step, -3, 3)
    return clipped

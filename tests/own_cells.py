"""Cells that are in no catalogue, each for something that a schedule or a kernel must master."""

from unrolled import Cell

OWN_CELLS = {
    cell.name: cell
    for cell in map(
        Cell.parse,
        [
            # states that change places: neither can be overwritten before the other is read
            """def swap(x, h_prev, c_prev, *, W):
                h = c_prev * 0.9
                c = tanh(W.c @ x) + 0.5 * h_prev
                return h, c""",
            # the old state is needed in a later stage than the one that makes the new one
            """def late(x, h_prev, c_prev, *, W, U, V, b):
                h = tanh(W.h @ x + U.h @ h_prev + b.h)
                c = sigmoid(V.c @ (h * c_prev)) * h_prev + c_prev / 2
                return h, c""",
            # products of the input behind each other leave the loop, and so do their gradients
            """def deep_input(x, h_prev, *, A, B, W, U, a, b):
                e = tanh(A.e @ x + a.e)
                k = relu(B.k @ e)
                h = tanh(W.h @ (e * k) + U.h @ h_prev + b.h)
                return h""",
            # three stages, diagonals, exp and division, a bottleneck with a size of its own
            """def stages(x, h_prev, c_prev, *, W, U, A, B, P, b):
                s = exp(-abs(P.s * c_prev)) / (1 + x_part ** 2)
                x_part = W.x @ x
                u = tanh(A.u @ (s * h_prev) + b.u)
                v = sigmoid(B.v @ u + U.v @ h_prev)
                c = v * c_prev + (1 - v) * softplus(x_part + b.c)
                h = minimum(c, 2) * where(v > 0.5, v, v ** 2) - P.h * h_prev
                return h, c""",
            # no product in the loop at all
            """def elementwise(x, h_prev, *, W, P, b):
                f = sigmoid(W.f @ x + b.f)
                h = f * h_prev + (1 - f) * (W.h @ x) + tanh(P.h * h_prev)
                return h""",
            # the number of the step, and numbers that follow from it
            """def clock(x, h_prev, *, W, U, rate=0.3):
                phase = rate * t
                k = exp(-phase) + sqrt(t) / 10
                h = k * tanh(W.h @ x + U.h @ h_prev) + h_prev * maximum(0.1, 1 - phase)
                return h""",
            # an output that is no state, input and state of one size
            """def output(x, c_prev, *, W, b):
                f = sigmoid(W.f @ x + b.f)
                c = f * c_prev + (1 - f) * x
                y = sqrt(abs(c) + 1) * log(2 + f) + x
                return y, c""",
            # states of two sizes, each feeding the other
            """def two_sizes(x, h_prev, c_prev, *, W, U, V, Q, b):
                c = tanh(W.c @ x + V.c @ h_prev + Q.c @ c_prev + b.c)
                h = relu(U.h @ c + U.g @ (c * c)) + 0.5 * h_prev
                return h, c""",
            # names that a kernel uses itself
            """def names(x, h_prev, *, W, U, b):
                row = sigmoid(W.row @ x + U.row @ h_prev + b.row)
                b_row = row * 2
                H_size = b_row - row
                j = tanh(W.j @ x) * H_size
                h = j + h_prev * 0.5
                return h""",
            # parameters used in several places, whose gradient is a sum of several sums
            """def again(x, h_prev, c_prev, *, W, P, b):
                v = tanh(P.k * h_prev + b.k)
                c = tanh(W.c @ x + P.k * v + b.k * 2) + b.k * c_prev
                h = sigmoid(W.h @ x + P.k * v) * c + P.k * h_prev / 4
                return h, c""",
            # blocks and values whose names are alike, and families with names of a kernel
            """def alike(x, h_prev, *, P, P_a, W, row, step):
                P_a_b = tanh(P.a_b * h_prev) + row.j
                h = tanh(W.h @ x + P.a_b * h_prev) + tanh(P_a.b * P_a_b) * step.at
                return h""",
            # means and sums over units, before the loop and in it, some with no name of their own
            """def normed(x, h_prev, c_prev, *, W, U, gain=initial(1), b):
                a = W.c @ x
                a_d = a - mean(a)
                u = U.c @ h_prev
                u_d = u - mean(u)
                size = sqrt(mean(u_d * u_d) + 0.1)
                k = gain.a * a_d / sqrt(mean(a_d * a_d) + 0.1) + gain.u * u_d / size + b.c
                c = 0.5 * c_prev + tanh(k)
                h = tanh(c) * exp(-size)
                return h, c""",
            # a number of one vector that goes with vectors of other sizes, and one with another
            """def across(x, h_prev, c_prev, *, W, U, V, b):
                s = tanh(sum(h_prev * h_prev) / 40 + mean(b.h))
                e = exp(V.e @ (s * x + mean(c_prev)))
                c = s * c_prev + e / sum(e)
                h = tanh(W.h @ x + U.h @ h_prev * (1 - s) + b.h) / (1 + s ** 2)
                return h, c""",
        ],
    )
}

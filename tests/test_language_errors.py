"""What the language of equations says to everything that is outside of it.

In the tables the place that a message must point at stands in «…».
"""

import re
import sys

import pytest

from unrolled import Cell, EquationError

HEAD = "def toy(x, h_prev, *, W, U, b, P, dt=0.1):"
HAS = (
    "It has abs, exp, log, maximum, mean, minimum, relu, sigmoid, softplus, sqrt, sum, tanh, where."
)
LANGUAGE = (
    "An equation is made of names, numbers, + - * / ** @, one comparison, and calls to "
    "abs, exp, log, maximum, mean, minimum, relu, sigmoid, softplus, sqrt, sum, tanh, where."
)
LEFT = "to the left of @ stands one block of parameters; found"
RIGHT = (
    "a product takes a vector of the step: the input, a state, or something computed, as in "
    "W.i @ x; found"
)
NEVER = "is never given: it is neither an argument nor the left side of an equation."
KNOWN = "Known here: P, U, W, b, dt, h, h_prev, x."
ONCE = "a name is given once, so nothing is changed in place."
STATEMENT = (
    "this line is outside the language. A cell is a docstring, equations such as "
    "h = tanh(W.h @ x), and a return."
)
LOOP = (
    "a loop is outside the language: the equations are one step, and whoever runs the cell repeats "
    "it. Write what one step does; h_prev is the value of the step before."
)
CHOICE = "if is outside the language. Choose unit by unit:"
ANNOTATION = (
    "a cell has no annotations, because sizes follow from the equations; leave this one out."
)
NAMED = "Give this value a name in an equation, and return that name: return h"
KEPT = "names that begin with _ are kept for values that have no name. Choose another, such as"
DECORATOR = "a cell takes no decorator beside @cell, because its body is read and never run."
LARGE = "this number is too large; the largest is about 1.8e308."

# One line in the place of an equation of the cell `toy`, and what is said about it.
LINES = [
    # names
    ("h = tanh(«h_prv»)", f"h_prv {NEVER} Did you mean h_prev?"),
    ("h = tanh(«H»)", f"H {NEVER} {KNOWN}"),
    ("h = «nan» * x", f"nan {NEVER} {KNOWN}"),
    ("h = «W» * x", "W is a family of parameters; name one of its blocks, such as W.h"),
    ("h = «W» @ x", "W is a family of parameters; name one of its blocks, such as W.h"),
    ("h = «tanh» + x", "tanh is a function; call it, as in tanh(…)."),
    ("h = «x.i» + 1", "x is a vector or a number, and only families of parameters have parts with "
     "names. Write x alone."),
    ("h = «h_prev.T» * x", "h_prev is a vector or a number, and only families of parameters have "
     "parts with names. Write h_prev alone."),
    ("h = «V.h» @ x", "V is not a family of parameters. To make it one, name it after the *: "
     "def toy(x, h_prev, *, W, U, b, P, V, dt=0.1):"),
    ("h = «math.pi» * x", "math.pi is outside the language, which knows no modules. "
     "Write the number itself."),
    ("h = «W.i.T» @ x", "found W.i.T; only a family of parameters has parts with names, such as "
     "W.i."),
    ("h = W.i @ x + «W._i» @ x", f"{KEPT} i."),
    ("«_h» = x", f"{KEPT} h."),
    ("«t» = x", "t is the number of the step. Choose another name."),
    ("«exp» = x", "exp is a function of the language. Choose another name."),
    ("«h_prev» = x", "h_prev is the value of h at the step before, so no equation of this step "
     "gives it. Write h = …"),
    ("«q_prev» = x", "q_prev is the value of q at the step before, so no equation of this step "
     "gives it. Write q = …"),
    ("«x» = h_prev", "x is given twice: it is the input already. Choose another name."),
    ("«W» = h_prev", "W is given twice: it is a family of parameters already. "
     "Choose another name."),
    ("«dt» = h_prev", "dt is given twice: it is a constant already. Choose another name."),
    # choices
    ("h = «x if x > 0 else h_prev»", "if … else is outside the language; write "
     "where(x > 0, x, h_prev)."),
    ("h = «x if dt else h_prev»", "if … else is outside the language; write "
     "where(dt > 0, x, h_prev)."),
    ("h = where(«0 < x < 1», x, 1)", "a comparison has two sides. Where both must hold, nest two "
     "choices: where(0 < x, where(x < 1, a, b), b)."),
    ("h = where(«0 < x < 1 < dt», x, 1)", "a comparison has two sides; nest choices: "
     "where(a < b, where(…), …)."),
    ("h = where(«x > 0 and x < 1», x, 1)", "and is outside the language; nest two choices: "
     "where(x > 0, where(x < 1, a, b), b)."),
    ("h = where(«(x > 0) & (x < 1)», x, 1)", "and is outside the language; nest two choices: "
     "where(x > 0, where(x < 1, a, b), b)."),
    ("h = where(«x < 0 or x > 1», x, 1)", "or is outside the language; nest two choices: "
     "where(x < 0, a, where(x > 1, a, b))."),
    ("h = where(«(x < 0) | (x > 1)», x, 1)", "or is outside the language; nest two choices: "
     "where(x < 0, a, where(x > 1, a, b))."),
    ("h = where(«not x > 0», x, 1)", "not is outside the language; write x <= 0."),
    ("h = where(«~(x == 0)», x, 1)", "not is outside the language; write x != 0."),
    ("h = where(«not x», x, 1)", "not is outside the language; turn the comparison round, or "
     "exchange what where chooses between."),
    ("h = where(«x is 0», x, 1)", "the comparisons of the language are < <= > >= == and !=."),
    ("h = «x > 0»", "a comparison is no number; make one of it: where(x > 0, 1, 0)."),
    ("h = 2 * («x > 0»)", "a comparison is no number; make one of it: where(x > 0, 1, 0)."),
    ("h = W.h @ («x > 0»)", "a comparison is no number; make one of it: where(x > 0, 1, 0)."),
    ("h = where(x > 0, «x > 1», 0)", "a comparison is no number; make one of it: "
     "where(x > 1, 1, 0)."),
    ("h = where(«x», 1, 0)", "the first argument of where is a comparison; write x > 0."),
    ("h = where(«1», x, 0)", "the first argument of where is a comparison; write 1 > 0."),
    ("h = where(«x - dt», x, 0)", "the first argument of where is a comparison; "
     "write x - dt > 0."),
    # calls
    ("h = «math.exp»(x)", "math.exp is outside the language, which has its own exp: write exp(x)."),
    ("h = «np.tanh»(W.h @ x)", "np.tanh is outside the language, which has its own tanh: "
     "write tanh(W.h @ x)."),
    ("h = «torch.nn.functional.relu»(x)", "torch.nn.functional.relu is outside the language, which "
     "has its own relu: write relu(x)."),
    ("h = «x.relu»()", "x.relu is outside the language, which has its own relu: write relu(x)."),
    ("h = «np.where»(x > 0)", "np.where is outside the language, which has its own where: "
     "write where(a, b, c)."),
    ("h = «math.pow»(x, 2)", "math.pow is no function of the language; write a ** b."),
    ("h = «max»(x, 0)", "max is no function of the language; write maximum(a, b)."),
    ("h = «sigmod»(x)", "sigmod is no function of the language. Did you mean sigmoid?"),
    ("h = «print»(x)", f"print is no function of the language. {HAS}"),
    ("h = («lambda: x»)()", f"lambda: x is no function of the language. {HAS}"),
    ("h = «W.h»(x)", "W.h is a block of parameters, not a function. Write W.h @ x."),
    ("h = «W»(x)", "W is a family of parameters, not a function. Write W.i @ x."),
    ("h = «x»(h_prev)", "x is a vector or a number, not a function. "
     "Unit by unit, multiply with *."),
    ("h = «maximum(x)»", "maximum takes 2 arguments; found 1. Write maximum(a, b)."),
    ("h = «tanh(x, dt)»", "tanh takes 1 argument; found 2. Write tanh(a)."),
    ("h = «tanh()»", "tanh takes 1 argument; found 0. Write tanh(a)."),
    ("h = «tanh(x, out=x)»", "tanh takes 1 argument; found a keyword. Write tanh(a)."),
    ("h = «where(x > 0, *x)»", "where takes 3 arguments; found a *. Write where(a, b, c)."),
    ("h = «abs(**x)»", "abs takes 1 argument; found a keyword. Write abs(a)."),
    # products
    ("h = «x» @ W.i", f"{LEFT} x. Turn it round: W.i @ x"),
    ("h = «x» @ h_prev", f"{LEFT} x. Unit by unit, write x * h_prev"),
    ("h = «2» @ x", f"{LEFT} 2. Unit by unit, write 2 * x"),
    ("h = «W.i @ U.i» @ x", f"{LEFT} W.i @ U.i. Write W.i @ (U.i @ x)"),
    ("h = («W.i + U.i») @ x", f"{LEFT} W.i + U.i. Write products such as W.i @ x, and combine "
     "their results."),
    ("h = «dt * W.i» @ x", f"{LEFT} dt * W.i. Write dt * (W.i @ x)"),
    ("h = «-W.i» @ x", f"{LEFT} -W.i. Write -(W.i @ x)"),
    ("h = W.i @ «2»", f"{RIGHT} 2."),
    ("h = W.i @ «b.i»", f"{RIGHT} b.i."),
    ("h = W.i @ «dt»", f"{RIGHT} dt."),
    ("h = W.i @ «t»", f"{RIGHT} t."),
    # everything else on a right side
    ("h = «x[0]»", "x[0] is a part of a vector, and an equation holds for every unit alike. "
     "Take the vector whole, or make a smaller one with a product: W.i @ x."),
    ("h = «W['i']» @ x", "the blocks of a family are named with a dot: write W.i"),
    ("h = «W['i']» * x", "the blocks of a family are named with a dot: write W.i"),
    ("h = «lambda: x»", f"found lambda: x, which is outside the language. {LANGUAGE}"),
    ("h = «x // 2»", f"found x // 2, which is outside the language. {LANGUAGE}"),
    ("h = «[x, x]»", f"found [x, x], which is outside the language. {LANGUAGE}"),
    ("h = 1 + («y := x»)", f"found (y := x), which is outside the language. {LANGUAGE}"),
    ("h = «'relu'»", "found 'relu'; a number is written like 0.5."),
    ("h = «True» * x", "found True; a number is written like 0.5."),
    ("h = «2j» * x", "found 2j; a number is written like 0.5."),
    ("h = «1e999» * x", LARGE),
    ("h = «1" + 400 * "0" + "» * x", LARGE),
    # other statements
    ("«h += x»", f"{ONCE} Write an equation with a new name: h_new = h + x"),
    ("«h *= x + 1»", f"{ONCE} Write an equation with a new name: h_new = h * (x + 1)"),
    ("«h[0] += x»", f"{ONCE} Write a new equation."),
    ("«h, c = x, dt»", "an equation gives one name: write h = x and c = dt on lines of their own."),
    ("«h, c = x»", "an equation gives one name: write h = … and c = … on lines of their own."),
    ("«c = h = x»", "an equation gives one name: write h = x and c = h on lines of their own."),
    ("«h[0] = x»", "the left side of an equation is one name, as in h = …; found h[0]."),
    ("«W.h = x»", "the left side of an equation is one name, as in h = …; found W.h."),
    ("«h: float = x»", "an equation has no annotation; write h = x"),
    ("«h: float»", "an equation has no annotation; write h = …"),
    ("«tanh(x)»", "this line gives no name a value; write name = tanh(x)"),
    ("«print(x)»", STATEMENT),
    ("«pass»", STATEMENT),
    ("«import math»", STATEMENT),
    ("«raise ValueError»", STATEMENT),
    ("«def f(): return 1»", STATEMENT),
    ("«...»", "this line says nothing; a comment begins with #."),
    ("«return x»", "return stands once, on the last line."),
    ("«for i in x: h = i»", LOOP),
    ("«while x: h = 1»", LOOP),
    ("«if x > 0: h = x»\n    else: h = 2 * x", f"{CHOICE} h = where(x > 0, x, 2 * x)"),
    ("«if x > 0: h = x»\n    elif x < 0: h = 1\n    else: h = 2",
     f"{CHOICE} h = where(x > 0, a, b)"),
]  # fmt: skip

# Whole texts, and what is said about them.
TEXTS = {
    "given twice": (
        "def toy(x, h_prev):\n    h = x\n    «h» = h_prev\n    return h",
        "h is given twice: it is the left side of line 2 already. Choose another name.",
    ),
    "the state before, of a state that is no argument": (
        "def toy(x, h_prev, *, W, b, dt=0.1):\n    c = W.c @ x + «c_prev» + b.c * dt\n"
        "    h = c * h_prev\n    return h, c",
        f"c_prev {NEVER} To use it, name it among the arguments: "
        "def toy(x, h_prev, c_prev, *, W, b, dt=0.1):",
    ),
    "a state not returned": (
        "def toy(x, h_prev, «c_prev»):\n    c = x + c_prev\n    h = c * h_prev\n    return h",
        "c is not returned, so no step could hand it to the next as c_prev. Write: return h, c.",
    ),
    "a state without an equation": (
        "def toy(x, h_prev, «c_prev»):\n    h = x + c_prev * h_prev\n    return h",
        "c is not returned, so no step could hand it to the next as c_prev. Write: return h, c, "
        "and before it an equation c = ….",
    ),
    "a circle through a state": (
        "def toy(x, h_prev, *, W):\n    «z» = r * r\n    r = W.r @ h\n    h = x * z\n    return h",
        "these equations go round in a circle: z needs r needs h needs z. "
        "If the value of the step before is meant, write h_prev.",
    ),
    "a circle of one": (
        "def toy(x):\n    «h» = h + x\n    return h",
        "these equations go round in a circle: h needs h. "
        "If the value of the step before is meant, write h_prev.",
    ),
    "a circle without a state": (
        "def toy(x):\n    h = x\n    «a» = b + x\n    b = a * 2\n    return h",
        "these equations go round in a circle: a needs b needs a. If the value of the step before "
        "is meant, write a_prev, name it among the arguments, and return h, a.",
    ),
    "a family of matrices and vectors": (
        "def toy(x, h_prev, *, W):\n    a = W.a @ x\n    h = a + «W.h»\n    return h",
        "W.h is a vector here, but W.a on line 2 is a matrix. A family is all matrices, as in "
        "W.i @ x, or all vectors, as in b.i: give the vector a family of its own.",
    ),
    "a family of vectors and matrices": (
        "def toy(x, h_prev, *, W):\n    a = W.a\n    h = a + «W.h» @ x\n    return h",
        "W.h is a matrix here, but W.a on line 2 is a vector. A family is all matrices, as in "
        "W.i @ x, or all vectors, as in b.i: give the matrix a family of its own.",
    ),
    "one block as matrix and vector": (
        "def toy(x, h_prev, *, W):\n    h = W.h @ x * «W.h»\n    return h",
        "W.h is a vector here, but W.h on line 2 is a matrix. A family is all matrices, as in "
        "W.i @ x, or all vectors, as in b.i: give the vector a family of its own.",
    ),
    "a family never used": (
        "def W_cell(x, h_prev, *, «W», b):\n    h = x + b.h\n    return h",
        "no equation uses a block of the family W. Leave it out, or use one, such as W.h; "
        "a constant would have a value: W=0.1.",
    ),
    "a family, with no other to suggest": (
        "def toy(x):\n    h = «W.h» @ x\n    return h",
        "W is not a family of parameters. To make it one, name it after the *: def toy(x, *, W):",
    ),
    "a family misspelt": (
        "def toy(x, *, Wx):\n    h = «W_x.h» @ x\n    return h",
        "W_x is not a family of parameters. Did you mean Wx?",
    ),
    "a comparison with a name, as a number": (
        "def toy(x):\n    m = x > 0\n    h = «m» * x\n    return h",
        "a comparison is no number; make one of it: where(m, 1, 0).",
    ),
    "a comparison with a second name": (
        "def toy(x):\n    h = «m»\n    m = x > 0\n    return h",
        "a comparison is no number; make one of it: where(m, 1, 0).",
    ),
    "a comparison as a state": (
        "def toy(x):\n    h = «x > 0»\n    return h",
        "a comparison is no number; make one of it: where(x > 0, 1, 0).",
    ),
    # the return
    "no return": (
        "def toy(x, h_prev, c_prev):\n    c = c_prev + x\n    «h = c * h_prev»",
        "the last line returns the states: return h, c",
    ),
    "no return, but an earlier error": (
        "def toy(x):\n    h = «y»\n    print(h)",
        f"y {NEVER} Known here: h, x.",
    ),
    "a docstring only": (
        '«def toy(x):»\n    """A cell to come."""',
        "the last line returns the states: return h",
    ),
    "a second docstring": (
        "def toy(x):\n    'one'\n    «'two'»\n    h = x\n    return h",
        "this line says nothing; a comment begins with #.",
    ),
    "an empty body": ("def toy(x):\n    «...»", "the last line returns the states: return h"),
    "return of nothing": (
        "def toy(x):\n    y = x\n    «return»",
        "return names the states: return y",
    ),
    "return of no one": (
        "def toy(x):\n    y = x\n    «return ()»",
        "return names the states: return y",
    ),
    "return of an expression": (
        "def toy(x):\n    h = x\n    return «h * 2»",
        f"return names states. {NAMED}",
    ),
    "return of a list": (
        "def toy(x):\n    h = x\n    return «[h]»",
        f"return names states. {NAMED}",
    ),
    "return of what is never given": (
        "def toy(x):\n    hidden = x\n    return «hiden»",
        "hiden is returned, but no equation gives it. Did you mean hidden?",
    ),
    "return of an argument": (
        "def toy(x):\n    return «x»",
        "x is returned, but no equation gives it.",
    ),
    "returned twice": (
        "def toy(x):\n    h = x\n    return h, «h»",
        "h is returned twice; name it once.",
    ),
    # the first line
    "no input": (
        "«def toy(h_prev):»\n    h = h_prev\n    return h",
        "a cell has an input, its first argument: def toy(x, h_prev):",
    ),
    "no arguments": (
        "«def toy():»\n    h = 1\n    return h",
        "a cell has an input, its first argument: def toy(x):",
    ),
    "two inputs": (
        "def toy(x, h_prev, «y»):\n    h = x + y\n    return h",
        "a cell has one input; found x, y. States of the step before end in _prev, families of "
        "parameters and constants stand after a *: def name(x, h_prev, *, W, U, b):",
    ),
    "a star forgotten": (
        "def toy(x, h_prev, «W», b, *, dt=0.1):\n    h = W.h @ x + b.h\n    return h",
        "a cell has one input; found x, W, b. Families of parameters stand after a *: "
        "def toy(x, h_prev, *, W, b, dt=0.1):",
    ),
    "an argument twice": (
        "def toy(x, h_prev, «h_prev»):\n    h = x\n    return h",
        "h_prev stands twice among the arguments.",
    ),
    "a family twice": (
        "def toy(x, *, W, «W»):\n    h = W.h @ x\n    return h",
        "W stands twice among the arguments.",
    ),
    "a state behind the star": (
        "def toy(x, *, W, «h_prev»):\n    h = W.h @ x + h_prev\n    return h",
        "h_prev is the value of a state at the step before, which stands in front of the *: "
        "def toy(x, h_prev, *, W):",
    ),
    "star arguments": (
        "def toy(x, *«states»):\n    h = x\n    return h",
        "found *states; name every input, state and family of parameters: "
        "def name(x, h_prev, *, W, U, b):",
    ),
    "keyword arguments": (
        "def toy(x, **«W»):\n    h = x\n    return h",
        "found **W; name every input, state and family of parameters: "
        "def name(x, h_prev, *, W, U, b):",
    ),
    "a default before the star": (
        "def toy(x, h_prev=«0»):\n    h = x\n    return h",
        "only a constant has a value here, and constants stand after the *: "
        "def name(x, h_prev, *, W, dt=0.1):",
    ),
    "a constant that is no number": (
        "def toy(x, *, dt=«'slow'»):\n    h = x * dt\n    return h",
        "the constant dt is a number, as in dt=0.1.",
    ),
    "a constant that is true": (
        "def toy(x, *, dt=«True»):\n    h = x * dt\n    return h",
        "the constant dt is a number, as in dt=0.1.",
    ),
    "a constant that is computed": (
        "def toy(x, *, dt=«1 / 3»):\n    h = x * dt\n    return h",
        "the constant dt is a number, as in dt=0.1.",
    ),
    "an infinite constant": ("def toy(x, *, dt=-«1e999»):\n    h = x * dt\n    return h", LARGE),
    "an argument with an annotation": (
        "def toy(x: «float»):\n    h = x\n    return h",
        ANNOTATION,
    ),
    "a result with an annotation": ("def toy(x) -> «float»:\n    h = x\n    return h", ANNOTATION),
    "an argument with an underscore": (
        "def toy(«_x»):\n    h = _x\n    return h",
        f"{KEPT} x.",
    ),
    "t as an argument": (
        "def toy(x, «t»):\n    h = x\n    return h",
        "t is the number of the step. Choose another name.",
    ),
    "a function's name as a constant": (
        "def toy(x, *, «exp»=1):\n    h = x\n    return h",
        "exp is a function of the language. Choose another name.",
    ),
    "another decorator": (
        "@cell\n@«jit»\ndef toy(x):\n    h = x\n    return h",
        f"found the decorator @jit; {DECORATOR}",
    ),
    "a decorator with arguments": (
        "@«lru_cache(maxsize=1)»\ndef toy(x):\n    h = x\n    return h",
        f"found the decorator @lru_cache(maxsize=1); {DECORATOR}",
    ),
    # what is no definition
    "several functions": (
        "def one(x):\n    h = x\n    return h\n\n«def two(x):»\n    h = x\n    return h",
        "a second definition; a cell is one. Read each from a text of its own.",
    ),
    "an import before it": (
        "«import math»\ndef toy(x):\n    h = x\n    return h",
        "a cell's text is one function definition and nothing else; leave this out.",
    ),
    "no function": (
        "«h = x»",
        "a cell is one function definition: def name(x, h_prev, *, W, U, b): …",
    ),
    "a class": (
        "«class Toy:»\n    def toy(x):\n        h = x\n        return h",
        "a cell is one function definition: def name(x, h_prev, *, W, U, b): …",
    ),
    "async": (
        "«async def toy(x):»\n    h = x\n    return h",
        "a cell is a function without async: write def.",
    ),
    "no Python": (
        "def toy(x):\n    h = «=» x\n    return h",
        "Python cannot read this: invalid syntax. Equations are written as in Python: "
        "h = tanh(W.h @ x + b.h)",
    ),
    "no Python, behind letters of two bytes": (
        "def toy(x):\n    Γ = Γ_prev * «=» x\n    return Γ",
        "Python cannot read this: invalid syntax. Equations are written as in Python: "
        "h = tanh(W.h @ x + b.h)",
    ),
    "no Python, in an indented text": (
        "    def toy(x):\n    «h» = x\n    return h",
        "Python cannot read this: expected an indented block after function definition on line 1. "
        "Equations are written as in Python: h = tanh(W.h @ x + b.h)",
    ),
    # places
    "letters of two bytes": (
        "def toy(x, h_prev, *, W):\n    Γ = sigmoid(W.Γ @ x) * «hé_prev»\n    h = Γ\n    return h",
        f"hé_prev {NEVER} Did you mean h_prev?",
    ),
    "a tab": (
        "def toy(x):\n\th\t=\t«y»\n\treturn h",
        f"y {NEVER} Known here: h, x.",
    ),
    "an equation of several lines": (
        "def toy(x):\n    h = (x\n        + «y»\n    )\n    return h",
        f"y {NEVER} Known here: h, x.",
    ),
    "a place of several lines": (
        "def toy(x):\n    h = «[»\n        x\n    ]\n    return h",
        f"found [x], which is outside the language. {LANGUAGE}",
    ),
    "lines that end as on Windows": (
        "def toy(x):\r\n    h = x\r\n    c = «y»\r\n    return h\r\n",
        f"y {NEVER} Known here: c, h, x.",
    ),
    "a form feed": (
        "def toy(x):\n    a = x\n\f\n    h = «y»\n    return h",
        f"y {NEVER} Known here: a, h, x.",
    ),
    "an indented text": (
        "\n    # a cell\n    def toy(x):\n        h = «y»\n        return h\n    ",
        f"y {NEVER} Known here: h, x.",
    ),
    "a mark at the beginning": (
        "\ufeffdef toy(x):\n    h = «y»\n    return h",
        f"y {NEVER} Known here: h, x.",
    ),
}


def error_of(marked: str) -> str:
    with pytest.raises(EquationError) as error:
        Cell.parse(marked.replace("«", "").replace("»", ""))
    return str(error.value)


def wanted(name: str, marked: str, problem: str) -> str:
    """The error whose line and caret are those of the marks."""
    before, found, _ = marked.replace("»", "«").split("«")
    lines = marked.replace("«", "").replace("»", "").replace("\r", "").split("\n")
    at = before.count("\n")
    column = len(before) - before.rfind("\n") - 1
    indent = len(lines[at]) - len(lines[at].lstrip())
    padding = "".join("\t" if letter == "\t" else " " for letter in lines[at][indent:column])
    carets = padding + "^" * len(found.split("\n")[0])
    where = f"cell '{name}'" if name else "a cell"
    return f"{where}, line {at + 1}:\n    {lines[at].strip()}\n    {carets}\n{problem}"


@pytest.mark.parametrize(("line", "problem"), LINES, ids=[line for line, _ in LINES])
def test_an_equation_outside_the_language(line, problem):
    text = f"{HEAD}\n    {line}\n    return h"
    assert error_of(text) == wanted("toy", text, problem)


@pytest.mark.parametrize(("text", "problem"), TEXTS.values(), ids=TEXTS)
def test_a_text_outside_the_language(text, problem):
    beside = "Write:" not in problem and any(
        word in problem for word in ("one function", "a second", "async", "cannot read")
    )
    name = "" if beside else text.replace("«", "").split("def ")[1].split("(")[0]
    assert error_of(text) == wanted(name, text, problem)


def proposals():
    """Equations that the errors propose, or from which they propose a part."""
    for line, problem in LINES:
        found = re.search(r"(?:[Ww]rite|[Tt]urn it round:|unit by unit:) (.+?)\.?$", problem)
        if not found or re.search(r"…|\b[abc]\b(?!\.)|alone|itself|such as|one step|new", problem):
            continue
        if "where(«" in line or "['" in line:
            yield re.sub("«.*»", found[1], line)
        else:
            yield found[1] if " = " in found[1] else f"h = {found[1]}"


@pytest.mark.parametrize("proposed", list(proposals()))
def test_what_an_error_proposes_is_in_the_language(proposed):
    using_the_rest = "k = W.k @ x + U.k @ x + P.k * x + b.k"
    states = "h" if proposed.startswith("h =") else "name, h"
    other = "h = x" if proposed.startswith("name =") else "l = x"
    Cell.parse(f"{HEAD}\n    {proposed}\n    {other}\n    {using_the_rest}\n    return {states}")


def test_a_circle_starts_where_it_is_written_first():
    error = error_of("def toy(x):\n    h = c\n    b = a\n    c = b\n    a = c\n    return h")
    assert "line 3" in error
    assert "b needs a needs c needs b" in error


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n"])
def test_an_empty_text(text):
    assert error_of(text) == (
        "a cell: the text is empty. Write one definition: def name(x, h_prev, *, W, U, b): …"
    )


@pytest.mark.parametrize("text", ["def toy(x):\n    h = x\0\n    return h", "h = '\ud800'"])
def test_a_text_that_is_no_text(text):
    assert "Python cannot read this" in error_of(text)


@pytest.mark.parametrize("right", ["-" * 100_000 + "x", "+".join(["x"] * 5_000)])
def test_an_equation_without_a_bottom(right):
    error = error_of(f"def toy(x):\n    h = {right}\n    return h")
    assert "Give parts names in equations of their own." in error


def test_an_equation_of_many_terms():
    right = " + ".join(["x"] * 150)
    assert Cell.parse(f"def toy(x):\n    h = {right}\n    return h").states == ("h",)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no Python that knows def f[T](x)")
def test_parameters_of_types():
    text = "def toy[«T»](x):\n    h = x\n    return h"
    assert error_of(text) == wanted("toy", text, "a cell has no types; leave the [] out.")


def test_a_constant_that_is_not_there():
    with pytest.raises(EquationError, match="has no constant 'rate'; its constants are: dt"):
        Cell.parse("def toy(x, *, dt=-0.1):\n    h = x * dt\n    return h").with_(rate=1.0)

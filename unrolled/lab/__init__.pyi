"""What the lab offers: type checkers read it here, and so does `__init__.py`."""

from ..network import Gradients as Gradients, Network as Network, Trace as Trace
from ..views.graph import (
    Unrolling as Unrolling,
    cell_graph as cell_graph,
    unrolled_graph as unrolled_graph,
)
from ..views.latex import COURSE as COURSE, latex as latex
from .checking import check as check
from .course import (
    bidirectional_backward as bidirectional_backward,
    bidirectional_forward as bidirectional_forward,
    clip as clip,
    deep_backward as deep_backward,
    deep_forward as deep_forward,
    gru_backward as gru_backward,
    gru_cell_backward as gru_cell_backward,
    gru_cell_forward as gru_cell_forward,
    gru_forward as gru_forward,
    gru_simplified_backward as gru_simplified_backward,
    gru_simplified_cell_backward as gru_simplified_cell_backward,
    gru_simplified_cell_forward as gru_simplified_cell_forward,
    gru_simplified_forward as gru_simplified_forward,
    lstm_backward as lstm_backward,
    lstm_cell_backward as lstm_cell_backward,
    lstm_cell_forward as lstm_cell_forward,
    lstm_forward as lstm_forward,
    model as model,
    optimize as optimize,
    rnn_backward as rnn_backward,
    rnn_cell_backward as rnn_cell_backward,
    rnn_cell_forward as rnn_cell_forward,
    rnn_forward as rnn_forward,
    sample as sample,
)
from .differences import gradient_check as gradient_check
from .explanation import arrows as arrows, at as at
from .pictures.firing import firing as firing
from .pictures.gates import gates as gates
from .pictures.halves import halves as halves
from .pictures.memory import memory as memory
from .types.examples import (
    drawing as drawing,
    many_to_many as many_to_many,
    many_to_one as many_to_one,
    one_to_many as one_to_many,
    one_to_one as one_to_one,
    sequence_to_sequence as sequence_to_sequence,
)
from .types.learning import Adam as Adam, Model as Model
from .types.locales import (
    dates_in_words as dates_in_words,
    languages_of_words as languages_of_words,
    names_of_countries as names_of_countries,
)
from .types.tasks import (
    kinds_of_characters as kinds_of_characters,
    next_characters as next_characters,
    past_tenses as past_tenses,
)

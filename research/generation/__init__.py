"""Text out of a model: decoding on the explicit state of its mixers, in compiled programs.

`decode` continues prompts; choice.py says how a token is chosen, stopping.py and constraint.py what binds the text from
outside the program, record.py what is asked and given. `beam_search` looks for the likeliest continuations.
"""

from research.generation.beam import Beams, BeamSearch, beam_search
from research.generation.constraint import Constraint, DeadEndError
from research.generation.decode import decode, padded
from research.generation.record import Decoding, Written
from research.generation.stopping import Stop, StopStrings

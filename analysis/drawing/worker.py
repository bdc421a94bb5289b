"""A process that draws the figures it is sent, for `saving`. It imports matplotlib and nothing that takes seconds."""

import pickle
import sys

from analysis.drawing.saving import drawn

if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps([drawn(figure) for figure in pickle.load(sys.stdin.buffer)]))

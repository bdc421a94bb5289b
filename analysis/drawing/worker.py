"""A process that draws each figure it is sent, for `saving`. It imports matplotlib and nothing that takes seconds."""

import pickle
import sys

from analysis.drawing.saving import drawn

if __name__ == "__main__":
    while True:
        try:
            figure = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        pickle.dump(drawn(figure), sys.stdout.buffer)
        sys.stdout.buffer.flush()

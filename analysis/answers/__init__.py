"""What choosing among several answers to one problem is worth, estimated from one pool of samples a problem.

`pools` has the samples, `choosing` the unbiased estimates of coverage and of the best by a score, `votes` majority and
weighted votes, `difficulty` the distribution of the problems' success rates, by likelihood.
"""

from analysis.answers.choosing import best_of, coverage
from analysis.answers.difficulty import Difficulty, fit_difficulty
from analysis.answers.pools import Pool, pools_of
from analysis.answers.votes import Ballot, drawn_vote, is_drawn, majorities, majority, plateau

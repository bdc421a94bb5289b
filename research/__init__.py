"""One model: describe it, price it, train it, ask it; and ladders of them.

Rooms in the order data flows, each importing only from those before it: config, presets, models, pretrained,
generation, plan, data, optim, runs, training, evaluation, execution, command. `analysis` is reached through the runs
table alone.
"""

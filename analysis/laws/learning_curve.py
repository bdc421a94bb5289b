"""Laws of a learning curve: loss along a run from the learning rates it has used."""

from analysis.laws.definition import Law, Parameter, power

ANNEALING = Law(
    name="annealing",
    formula="loss = E + A / schedule_area^alpha - C annealing_area",
    citation="Tissue et al. 2024, arXiv:2408.11029; the areas S1 and S2 come from a schedule by "
    "analysis.studies.schedule_areas.schedule_areas",
    inputs=("schedule_area", "annealing_area"),
    output="loss_nats",
    parameters=(
        Parameter("E", "nats per token", "loss of an infinite run without annealing"),
        Parameter("A", "nats per token", "scale of the loss that more learning removes"),
        Parameter("C", "nats per token", "loss that a unit of annealing removes"),
        Parameter("alpha", "1", "exponent of schedule_area", (0.1, 0.25, 0.4, 0.6, 0.8, 1.1)),
    ),
    predict=lambda p, x: p["E"] + p["A"] * power(x["schedule_area"], -p["alpha"]) - p["C"] * x["annealing_area"],
    may_be_zero=("annealing_area",),
)

LAWS = (ANNEALING,)

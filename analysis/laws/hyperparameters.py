"""Power laws of the best hyperparameters: learning rate, batch and weight decay in params, tokens and compute."""

from analysis.laws.definition import Law, Parameter, power

OUTPUTS = {"learning_rate": "1", "batch_tokens": "tokens", "weight_decay": "1"}
UNITS = {"params": "parameters", "tokens": "tokens", "flops": "FLOP"}
INPUTS = (("params", "tokens"), ("params",), ("tokens",), ("flops",))
EXPONENT_STARTS = (-0.6, -0.2, 0.2, 0.6)

STEP_LAW = "Li et al. 2025, arXiv:2503.04715 (Step Law)"
DEEPSEEK = "DeepSeek-AI 2024, arXiv:2401.02954"
PORIAN = "Porian et al. 2024, arXiv:2406.19146"
WEIGHT_DECAY = "power laws of weight decay as Bergsma et al. 2025, arXiv:2505.13738, find for its time scale"
CITATIONS = {  # the papers that fit this pair; the other pairs are theirs with another input
    ("learning_rate", ("params", "tokens")): STEP_LAW,
    ("batch_tokens", ("tokens",)): STEP_LAW,
    ("learning_rate", ("flops",)): DEEPSEEK,
    ("batch_tokens", ("flops",)): DEEPSEEK,
    ("learning_rate", ("params",)): PORIAN,
    ("batch_tokens", ("params",)): PORIAN,
}


def _power_law(output: str, inputs: tuple[str, ...]) -> Law:
    factors = [f"{name}^{name}_exponent" for name in inputs]
    units = [f"{UNITS[name]}^-{name}_exponent" for name in inputs]

    def predict(p, x):
        value = p["scale"]
        for name in inputs:
            value = value * power(x[name], p[f"{name}_exponent"])
        return value

    return Law(
        name="_".join([output, *inputs]),
        formula=f"{output} = scale {' '.join(factors)}",
        citation=CITATIONS.get((output, inputs), WEIGHT_DECAY if output == "weight_decay" else STEP_LAW),
        inputs=inputs,
        output=output,
        parameters=(
            Parameter("scale", f"{OUTPUTS[output]} * {' '.join(units)}", f"{output} at one of each"),
            *(
                Parameter(f"{name}_exponent", "1", f"exponent of {name}", EXPONENT_STARTS, low=float("-inf"))
                for name in inputs
            ),
        ),
        predict=predict,
    )


LAWS = tuple(_power_law(output, inputs) for output in OUTPUTS for inputs in INPUTS)

"""What training minimises is a value of the run: which function it names, and what that one measures."""

from typing import get_args

import jax
import pytest
from synthetic_tokens import synthetic_examples, tiny_run

from research.config import ConfigError, ObjectiveConfig, RunConfig, fingerprint, override
from research.evaluation.held_out import held_out_measures
from research.sharding import make_mesh
from research.training.objective import OBJECTIVES, language_modelling, objective_of
from research.training.step import make_program

KINDS = get_args(ObjectiveConfig) or (ObjectiveConfig,)


def test_every_objective_of_the_config_has_its_function_and_its_name():
    assert set(OBJECTIVES) == set(KINDS)
    assert len({kind().name for kind in KINDS}) == len(KINDS)
    assert KINDS[0] is type(RunConfig().objective)


def test_a_run_that_names_none_models_language_under_the_name_it_had():
    config = override(RunConfig(), ["objective.name=language_modelling"])
    assert fingerprint(config) == fingerprint(RunConfig()) == "44136fa355b3"
    assert OBJECTIVES[type(config.objective)] is language_modelling


def test_an_objective_that_is_not_there_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"objective.name = 'language_modeling'.*'language_modelling'.*Fix:"):
        override(RunConfig(), ["objective.name=language_modeling"])


def test_what_is_measured_is_the_objectives_to_say():
    """Sums over batches are added in float64 and handed over with the held-out examples; domains are averaged."""
    config = tiny_run()
    objective = objective_of(config)._replace(
        measures=lambda sums, held_out: {"share": sums.weight / held_out.tokens, "batches": len(held_out.batches)}
    )
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        program = make_program(config, mesh, objective)
        measured = held_out_measures(program, program.init().params, synthetic_examples(config))
    of_domains = {f"{name}_{domain}" for name in ("share", "batches") for domain in ("prose", "code")}
    assert measured.keys() == {"share", "batches", *of_domains}
    assert measured["share"] == measured["share_prose"] == measured["share_code"] == 1.0
    assert measured["batches_prose"] == 4  # 500 tokens in rows of 16, 8 of them a batch

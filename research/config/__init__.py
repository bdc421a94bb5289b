"""What a run is, as frozen dataclasses whose values are checked when they are made; import every config from here.

A new field gets a default that leaves every earlier run as it was, and its check in `__post_init__`. `validation` words
the errors, `serialization` reads and writes, `identity` fingerprints, `naming` calls runs by name; the rest are
sections.
"""

from research.config.attention import AttentionConfig, LatentAttentionConfig, RopeScaling
from research.config.data import (
    BYTE_IDS,
    CONTROL_IDS,
    EOS_ID,
    PAD_ID,
    UNKNOWN_ID,
    DataConfig,
    SourceConfig,
    normalized,
)
from research.config.examples import ExamplesConfig
from research.config.experts import LOSS_TERMS, MoeConfig
from research.config.heads import Head, HeadsConfig
from research.config.identity import fingerprint, identity, not_identity
from research.config.mamba import Mamba2Config, MambaConfig
from research.config.model import GATED_ACTIVATIONS, SECTION_MIXERS, Layer, MlpConfig, ModelConfig
from research.config.naming import distinct_labels, run_label, run_name, short_number, short_values, varying_fields
from research.config.objectives import (
    ClassificationConfig,
    LanguageModellingConfig,
    ObjectiveConfig,
    VerifierConfig,
)
from research.config.optimizers import (
    AdafactorConfig,
    AdamWConfig,
    Axes,
    LionConfig,
    MuonConfig,
    MuonHConfig,
    OptimizerConfig,
    ScheduleFreeConfig,
    SgdConfig,
    SoapConfig,
)
from research.config.parametrisation import ParametrisationConfig
from research.config.recurrent import RecurrentConfig, Rwkv4Config, Rwkv7Config
from research.config.run import (
    CheckpointConfig,
    LoggingConfig,
    MeshConfig,
    ParentConfig,
    RunConfig,
    StartConfig,
)
from research.config.sampling import GREEDY, LogProbs, SamplingConfig
from research.config.section import Section
from research.config.serialization import (
    differences,
    from_dict,
    from_json,
    override,
    replaced,
    to_dict,
    to_json,
    value_at,
)
from research.config.shared_program import program_of
from research.config.state_spaces import Eigenvalues, H3Config, S4Config
from research.config.task import TASK_CONTROL_IDS, TaskConfig
from research.config.training import EvaluationConfig, TrainingConfig
from research.config.validation import ConfigError, check, check_choice, check_positive, check_range

"""Readers of published tables: each turns the files of one data set into a runs table (see `datasets.py`).

Every reader fills the schema's required columns; what the authors did not measure stays missing. Where no FLOPs are
stated they are 6 * params * tokens.
"""

import numpy as np
import pandas as pd

OLMO_RUNS = tuple(f"{size}-{ratio}xC" for size in ("190M", "370M", "760M", "1B") for ratio in (1, 2, 5, 10))
GAUNTLET = "eval_gauntlet/"


def _runs_table(columns: dict, rows: int) -> pd.DataFrame:
    """A finished runs table: what `columns` lacks is filled in by the defaults below."""
    params, tokens = np.asarray(columns["params"], float), np.asarray(columns["tokens"], float)
    defaults = {
        "run": [f"row {i}" for i in range(rows)],
        "status": "done",
        "held_out": False,
        "budget_flops": np.nan,
        "flops": 6.0 * params * tokens,
        "loss_nats": np.nan,
    }
    return pd.DataFrame({"experiment": "", **defaults, **columns})


def chinchilla_epoch(points: pd.DataFrame) -> pd.DataFrame:
    """245 points of Hoffmann et al.'s figure 4 as read by Besiroglu et al.; the five highest losses are held out."""
    flops, params = points["Training FLOP"], points["Model Size"]
    columns = {
        "held_out": points["loss"].rank(ascending=False) <= 5,
        "params": params,
        "tokens": flops / (6 * params),
        "flops": flops,
        "loss_nats": points["loss"],
    }
    return _runs_table(columns, len(points))


def datablations(runs: pd.DataFrame) -> pd.DataFrame:
    """182 runs on up to 9000 passes over the same tokens; loss on C4."""
    columns = {name: runs[name] for name in ("params", "tokens", "unique_tokens")}
    return _runs_table({"run": runs["name"], **columns, "loss_nats": runs["val_loss"]}, len(runs))


def porian_refinedweb(points: pd.DataFrame, exponents: pd.DataFrame) -> pd.DataFrame:
    """1166 isoFLOP points of ten settings; params and tokens are under each setting's own count of both.

    published_exponent, published_low and published_high repeat on every row what the authors find for its setting.
    """
    setting = ["dataset", "hparams", "warmup", "decay", "param_count", "val"]
    found = points[setting].merge(exponents, on=setting, how="left", validate="many_to_one")
    columns = {
        "family": "transformer",
        "budget_flops": points["flops"],
        "params": points["n"],
        "tokens": points["tokens"],
        "flops": points["flops"],
        "loss_nats": points["loss"],
        "configuration": points[setting].agg("/".join, axis=1),
        "published_exponent": found["a_bs_median_weighted"],
        "published_low": found["ci_lo"],
        "published_high": found["ci_hi"],
    }
    return _runs_table(columns, len(points))


def steplaw_dense(runs: pd.DataFrame) -> pd.DataFrame:
    """1911 runs: a grid of learning rate and batch size in each of 17 cells of params and tokens."""
    columns = {
        "params": runs["N"],
        "tokens": runs["D"],
        "width": runs["h"],
        "depth": runs["numl"],
        "sequence_length": 2048,
        "batch_tokens": runs["bs"] * 2048,
        "steps": runs["ti"],
        "learning_rate": runs["lr"],
        "loss_nats": runs["smooth loss"],
    }
    return _runs_table(columns, len(runs))


def routed_moe(curves: pd.DataFrame) -> pd.DataFrame:
    """223 runs at their last step; tokens are a batch of 256 sequences of 2048 each step (Clark et al. 2022)."""
    last = curves.sort_values("step").groupby("hyper_id").tail(1).sort_values("hyper_id")
    columns = {
        "run": "hyper " + last["hyper_id"].astype(str),
        "family": last["router_type"],
        "seed": last["seed"],
        "params": last["total_parameter_count"],
        "active_params": last["dense_parameter_count"],
        "experts": last["num_experts"],
        "experts_per_token": last["k"],
        "tokens": last["step"] * 256.0 * 2048,
        "flops": 6.0 * last["dense_parameter_count"] * last["step"] * 256.0 * 2048,
        "width": last["d_model"],
        "depth": last["num_blocks"],
        "steps": last["step"],
        "loss_nats": last["loss_validation"],
        "size": last["model_size_label"],
        "routing_frequency": last["routing_frequency"],
    }
    return _runs_table(columns, len(last)).reset_index(drop=True)


def overtraining_gadre(models: pd.DataFrame, evals: pd.DataFrame) -> pd.DataFrame:
    """104 models on three training sets, at up to 640 tokens a parameter, with accuracies on 46 tasks."""
    losses = {
        "loss_nats": "loss_c4_val_shard-{0000000..0000010}",
        "loss_nats_openlm": "loss_val_tok_mult_openlm_shard_00000000",
        "loss_nats_paloma_c4": "loss_val_tok_mult_paloma_c4_en_00000001",
        "loss_nats_programming": "loss_val_tok_mult_paloma_dolma_100_programing_languages_00000001",
        "loss_nats_refinedweb": "loss_val_tok_mult_paloma_falcon-refinedweb_00000001",
        "loss_nats_ptb": "loss_val_tok_mult_paloma_ptb_00000001",
        "loss_nats_redpajama": "loss_val_tok_mult_paloma_redpajama_00000001",
        "loss_nats_german": "loss_val_tok_mult_de-en_val_de-en_100",
    }
    scores = evals.set_index("name").loc[models["name"]].reset_index(drop=True).add_prefix("accuracy_")
    columns = {
        "run": models["name"],
        "family": models["dataset"],
        "seed": models["hp_seed"],
        "params": models["hp_params"],
        "tokens": models["hp_tokens"],
        "learning_rate": models["hp_lr"],
        "weight_decay": models["hp_wd"],
        **{name: models[column] for name, column in losses.items()},
        "tokens_per_param": 20 * models["hp_chinchilla_multiplier"],
    }
    return pd.concat([_runs_table(columns, len(models)), scores], axis=1)


def olmo_ladder(runs: pd.DataFrame, *logs: pd.DataFrame) -> pd.DataFrame:
    """Every evaluated checkpoint of the 16 ladder runs; `logs` in the order of OLMO_RUNS."""
    described = runs.set_index("file")
    tables = [_olmo_run(name, log, described.loc[f"{name}.csv"]) for name, log in zip(OLMO_RUNS, logs, strict=True)]
    return pd.concat(tables, ignore_index=True)


def _olmo_run(name: str, log: pd.DataFrame, described: pd.Series) -> pd.DataFrame:
    columns = {
        "run": name + " step " + log["_step"].astype(str),
        "family": "transformer",
        "params": np.full(len(log), float(described["params"])),
        "tokens": log["throughput/total_tokens"],
        # Backward passes cost twice the forward one.
        "flops": 3.0 * described["fwd_flops_per_token"] * log["throughput/total_tokens"],
        "batch_tokens": log["batch_size_in_tokens"],
        "steps": log["_step"],
        "learning_rate": log["learning_rate_peak"],
        "learning_rate_now": log["optim/learning_rate_group0"],
        "loss_nats": log["eval/c4_en-validation/CrossEntropyLoss"],
        "ladder_run": name,
        "last": log["_step"] == log["_step"].max(),
    }
    for column in log.columns:
        kind, _, metric = column.removeprefix("eval/").partition("/")
        if kind == "downstream_bpb":
            columns["task_loss_" + metric.removesuffix("_5shot_bpb")] = log[column]
        elif kind == "downstream":
            columns["accuracy_" + metric.removesuffix("_acc").removesuffix("_len_norm").removesuffix("_5shot")] = log[
                column
            ]
    return _runs_table(columns, len(log))


def marin_isoflops(points: pd.DataFrame) -> pd.DataFrame:
    """258 isoFLOP points on three training sets; flops are the stated budgets."""
    columns = {
        "family": points["dataset"],
        "budget_flops": points["budget"],
        "params": points["params"],
        "tokens": points["tokens"],
        "flops": points["budget"],
        "loss_nats": points["loss"],
    }
    return _runs_table(columns, len(points))


def misfitting(runs: pd.DataFrame) -> pd.DataFrame:
    """261 runs at their last checkpoint, with a sweep of the peak learning rate at most sizes and lengths."""
    columns = {
        "params": runs["N"],
        "embedding_params": runs["N"] - runs["N_no_emb"],
        "tokens": runs["D"],
        "flops": runs["C"],
        "flops_6nd": runs["C_6ND"],
        "steps": runs["total_steps"],
        "learning_rate": runs["peak_lr"],
        "loss_nats": runs["C4 Eval Loss"],
        "model": runs["model"],
        "epochs": runs["total_epochs"],
    }
    return _runs_table(columns, len(runs))


def obs_scaling(models: pd.DataFrame) -> pd.DataFrame:
    """148 public models with benchmark scores; tokens and FLOPs are missing where their makers do not say."""
    scores = ("MMLU", "ARC-C", "HellaSwag", "Winograd", "TruthfulQA", "GSM8K", "XWinograd", "HumanEval")
    columns = {
        "run": models["Model"],
        "family": models["Model Family"],
        "params": 1e9 * models["Model Size (B)"],
        "tokens": 1e12 * models["Pretraining Data Size (T)"],
        "flops": 1e21 * models["FLOPs (1E21)"],
        **{f"accuracy_{score.lower()}": models[score] for score in scores},
    }
    return _runs_table(columns, len(models))


def beyond_chinchilla(runs: pd.DataFrame) -> pd.DataFrame:
    """47 runs at 10 to 10,000 tokens a parameter, with scores of the evaluation gauntlet."""
    columns = {
        "params": runs["Parameters"],
        "tokens": runs["Tokens"],
        "loss_nats": runs["Smoothed Loss"],
        "batch_sequences": runs["Batch Size"],
        **{f"accuracy_{c.removeprefix(GAUNTLET)}": runs[c] for c in runs.columns if c.startswith(GAUNTLET)},
        "accuracy_mmlu_5_shot": runs["mmlu_5_shot_avg"],
    }
    return _runs_table(columns, len(runs))


def supercollapse(
    c5m_runs: pd.DataFrame, c5m_history: pd.DataFrame, mlp_runs: pd.DataFrame, mlp_history: pd.DataFrame
) -> pd.DataFrame:
    """Learning curves of 40 transformers on CIFAR-5M and 56 networks on power-law features, one row per run and step.

    Their `compute` is 6 * params * tokens in units of 1e15, with 1024 tokens an image (c5m) and one an example (mlp).
    The mlp loss is a squared error: it stands in `test_loss` alone.
    """
    curves = {"c5m": (c5m_runs, c5m_history), "mlp": (mlp_runs, mlp_history)}
    return pd.concat([_curves(family, *tables) for family, tables in curves.items()], ignore_index=True)


def _curves(family: str, runs: pd.DataFrame, history: pd.DataFrame) -> pd.DataFrame:
    described = runs.set_index("run").loc[history["run"]].reset_index(drop=True)
    history = history.reset_index(drop=True)
    curve = family + " " + history["run"].astype(str)
    columns = {
        "run": curve + " step " + history["step"].astype(str),
        "family": family,
        "seed": described["seed"],
        "params": described["P"],
        "tokens": 1e15 * history["compute"] / (6 * described["P"]),
        "flops": 1e15 * history["compute"],
        "width": described["D"],
        "steps": history["step"],
        "learning_rate": described["lr"],
        "loss_nats": history["test_loss"] if family == "c5m" else np.nan,
        "curve": curve,
        "learning_rate_now": history["lr"],
        "test_loss": history["test_loss"],
    }
    return _runs_table(columns, len(history))

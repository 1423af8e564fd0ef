"""Training: one loop for both networks, that goes on where it was stopped."""

import dataclasses
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from jaxperf._misc import InputError
from jaxperf._versions import versions

from ._buckets import PaddedCase, stacked
from ._checkpoint import load_checkpoint, read_header, save_checkpoint
from ._config import TrainConfig
from ._flux_network import FluxNetwork
from ._loss import few_cycles, flux_loss
from ._message_passing import answer, MessagePassingNetwork, residual_loss
from ._stream import relative_l2, Stream

_STATE, _NETWORK, _RECORD = "state.eqx", "network.eqx", "training.json"
# Cycles of conjugate gradients after which held-out errors are taken: after more of them rounding
# in single precision is most of what is left.
_CYCLES = 2


@dataclass(frozen=True)
class Kind:
    """What tells one network from the other: how it is built, trained and looked at."""

    build: Callable[..., Any]
    loss: Callable[[Any, PaddedCase, PRNGKeyArray], Array]
    answer: Callable[[Any, PaddedCase], Array]


KINDS = {
    "flux_multigrid": Kind(
        FluxNetwork, flux_loss, lambda network, case: few_cycles(network, case, _CYCLES)
    ),
    "message_passing": Kind(MessagePassingNetwork, residual_loss, answer),
}


def build_network(name: str, hidden: int, messages: int, seed: int = 0) -> Any:
    """An untrained network, in single precision.

    **Example:**

    ```python
    import gnn_darcy
    network = gnn_darcy.build_network("flux_multigrid", hidden=16, messages=2, seed=0)
    ```
    """
    network = KINDS[name].build(hidden, messages, key=jax.random.key(seed))
    narrow = lambda x: x.astype(jnp.float32) if eqx.is_inexact_array(x) else x
    return jax.tree.map(narrow, network)


def load_network(path: Path, name: str) -> Any:
    """A trained network of this kind; **errors** as [`read_header`][].

    **Example:**

    ```python
    import gnn_darcy
    from pathlib import Path
    trained = Path(gnn_darcy.__file__).parent / "trained"
    network = gnn_darcy.load_network(trained / "flux_multigrid.eqx", "flux_multigrid")
    ```
    """
    header = read_header(path, name)
    shape = header.get("hidden"), header.get("messages")
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise InputError(
            f"its header says hidden {shape[0]!r} and messages {shape[1]!r}",
            where=str(path),
            expected="the two sizes of the network",
            fix="Train one with python -m gnn_darcy train, or name another file",
        )
    like = build_network(name, header["hidden"], header["messages"])
    return load_checkpoint(path, name, like)


class _Run(eqx.Module):
    """What changes from step to step."""

    network: Any
    optimiser: Any
    best: Any


def train(
    config: TrainConfig,
    folder: Path,
    *,
    report: Callable[[int, float, float | None], None] = lambda *_: None,
) -> Path:
    """Train a network, or go on with training it.

    What is written to `folder`: `network.eqx`, the best on held-out cases of the networks that were
    looked at on the way; `training.json`, configuration, versions, losses, errors and seconds;
    `state.eqx`, what going on needs. A run that was stopped does the same steps as one that was
    not.

    **Arguments:** `report(step, loss, error)`, called after every step with the loss and, where
    it was taken, the error on held-out cases.

    **Returns:** the file of the network. **Errors:** `InputError` where `folder` holds a run of
    another configuration, `FloatingPointError` where the loss is no number.
    """
    kind = KINDS[config.model]
    schedule = optax.cosine_decay_schedule(config.learning_rate, config.steps, alpha=0.02)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    network = build_network(config.model, config.hidden, config.messages, config.seed)
    arrays = eqx.filter(network, eqx.is_inexact_array)
    run = _Run(network, optimiser.init(arrays), network)
    record: dict[str, Any] = {"step": 0, "seconds": 0.0, "history": [], "least": None, "since": 0}
    state = folder / _STATE
    asked = json.loads(config.model_dump_json())
    if state.is_file():
        record = read_header(state, "training")["record"]
        if record["config"] != asked:
            raise InputError(
                "it holds a run of another configuration",
                where=str(folder),
                expected="an empty folder, or a run of this configuration",
                fix="Name another folder as out, or remove this one",
            )
        run = load_checkpoint(state, "training", run)
    record |= {"config": asked, "versions": versions(), "device": str(jax.devices()[0])}

    @eqx.filter_jit
    def step_once(
        network: eqx.Module, state: PyTree, batch: PaddedCase, key: PRNGKeyArray
    ) -> tuple[eqx.Module, PyTree, Float[Array, ""]]:
        def loss(network: eqx.Module) -> Float[Array, ""]:
            keys = jax.random.split(key, config.batch)
            return jnp.mean(jax.vmap(lambda c, k: kind.loss(network, c, k))(batch, keys))

        value, gradient = eqx.filter_value_and_grad(loss)(network)
        # optax multiplies counts of steps by floats.
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimiser.update(gradient, state)
        return eqx.apply_updates(network, updates), state, value

    if not _goes_on(config, record):
        # It may have been stopped between its last step and its last file.
        _write(config, folder, record, run)
        return folder / _NETWORK
    stream = Stream(config)
    try:
        held_out = stream.held_out()
        errors = lambda network: _errors(kind, network, held_out)
        if record["step"] == 0:
            record["untrained_errors"] = errors(network)
        begun = time.perf_counter() - record["seconds"]
        while _goes_on(config, record):
            step = record["step"]
            batch = stacked(stream.batch(step))
            key = jax.random.fold_in(jax.random.key(config.seed), step)
            network, moments, value = step_once(run.network, run.optimiser, batch, key)
            loss, error = float(value), None
            if not np.isfinite(loss):
                raise FloatingPointError(f"the loss of step {step} is {loss}")
            run = _Run(network, moments, run.best)
            record |= {"step": step + 1, "seconds": time.perf_counter() - begun}
            last = step + 1 == config.steps
            if (step + 1) % config.evaluate_every == 0 or last:
                found = errors(network)
                error = float(np.exp(np.mean(np.log(found))))
                record["history"].append({"step": step + 1, "loss": loss, "errors": found})
                run = _judged(run, record, error)
            report(step + 1, loss, error)
            if (step + 1) % config.save_every == 0 or error is not None:
                save_checkpoint(state, "training", {"record": record}, run)
            if error is not None:
                _write(config, folder, record, run)
    finally:
        stream.close()
    return folder / _NETWORK


def _goes_on(config: TrainConfig, record: dict[str, Any]) -> bool:
    return record["step"] < config.steps and record["since"] < config.patience


def _judged(run: _Run, record: dict[str, Any], error: float) -> _Run:
    """Keep the network where it is the best so far."""
    if np.isfinite(error) and (record["least"] is None or error < record["least"]):
        record |= {"least": error, "since": 0}
        return dataclasses.replace(run, best=run.network)
    record["since"] += 1
    return run


@eqx.filter_jit
def _found(
    answer: Callable[[eqx.Module, PaddedCase], Array], network: eqx.Module, case: PaddedCase
) -> Array:
    return answer(network, case)


def _errors(
    kind: Kind, network: eqx.Module, held_out: list[tuple[PaddedCase, Float[np.ndarray, " _"]]]
) -> list[float]:
    """Relative L2 errors of the pressure in held-out cases."""
    return [
        relative_l2(np.asarray(_found(kind.answer, network, case)), exact)
        for case, exact in held_out
    ]


def _write(config: TrainConfig, folder: Path, record: dict[str, Any], run: _Run) -> None:
    header = {
        "hidden": config.hidden,
        "messages": config.messages,
        "steps": record["step"],
        "held_out_error": record["least"],
        "untrained_error": float(np.exp(np.mean(np.log(record["untrained_errors"])))),
        "seconds": record["seconds"],
        "config": record["config"],
        "versions": record["versions"],
    }
    save_checkpoint(folder / _NETWORK, config.model, header, run.best)
    path = folder / (_RECORD + ".part")
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    path.replace(folder / _RECORD)

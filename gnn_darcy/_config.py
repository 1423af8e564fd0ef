"""The configuration of a training run."""

from pathlib import Path
from typing import Annotated, Literal, NoReturn

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jaxperf._misc import InputError

from ._data import Ranges

Count = Annotated[int, Field(ge=1)]


class TrainConfig(BaseModel):
    """What `python -m gnn_darcy train` reads."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Literal["flux_multigrid", "message_passing"] = Field(
        description="What is trained: the coefficients of the cycle, or the pressure itself."
    )
    out: str = Field(description="Folder of the results, beside this file.")
    seed: Annotated[int, Field(ge=0, lt=1_000_000)] = Field(
        default=0, description="Of weights, data and order."
    )
    hidden: Count = Field(default=16, description="Width of all layers.")
    messages: Count = Field(default=2, description="Rounds of message passing.")
    steps: Count = Field(default=1000, description="Steps of the optimiser.")
    batch: Count = Field(default=2, description="Cases in a step.")
    learning_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=2e-3, description="At first; it falls to a fiftieth along a cosine."
    )
    pool: Count = Field(default=12, description="Cases that are held at a time.")
    steps_per_case: Count = Field(default=6, description="Steps until one of them is replaced.")
    voxel_share: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        default=0.25, description="Of cases on voxels; the others are on tetrahedra."
    )
    held_out: Count = Field(default=6, description="Cases that are never trained on.")
    evaluate_every: Count = Field(default=50, description="Steps between looks at these.")
    patience: Count = Field(default=10, description="Looks without a gain that end the training.")
    save_every: Count = Field(default=10, description="Steps that a kill can cost.")
    ranges: Ranges = Field(default=Ranges(), description="What cases are drawn from.")


def read_config(path: Path) -> TrainConfig:
    """Read a YAML file.

    **Errors:** `InputError` naming the file, and the key where one is wrong.

    **Example:**

    ```python
    from pathlib import Path
    import gnn_darcy
    Path("network.yaml").write_text("model: flux_multigrid\\nout: trained")
    config = gnn_darcy.read_config(Path("network.yaml"))
    ```
    """

    def refuse(what: str, fix: str) -> NoReturn:
        raise InputError(what, where=str(path), expected="a training configuration", fix=fix)

    if not path.is_file():
        refuse("there is no such file", "Name a YAML file such as examples/flux_multigrid.yaml")
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        return TrainConfig.model_validate(given)
    except yaml.YAMLError as error:
        refuse(f"it is no YAML: {error}", "Mend the file")
    except ValidationError as error:
        found = error.errors()[0]
        key = ".".join(str(part) for part in found["loc"]) or "the file"
        refuse(f"{key}: {found['msg']}", "Mend that key")
    raise AssertionError

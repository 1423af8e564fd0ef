"""Graph networks for the Darcy problem. Needs the extra `gnn`."""

from ._checkpoint import read_header as read_header
from ._config import read_config as read_config, TrainConfig as TrainConfig
from ._data import DarcyCase as DarcyCase, Ranges as Ranges, sample_case as sample_case
from ._flux_multigrid import FluxMultigrid as FluxMultigrid
from ._flux_network import FluxNetwork as FluxNetwork
from ._graph import darcy_graph as darcy_graph
from ._message_passing import (
    MessagePassing as MessagePassing,
    MessagePassingNetwork as MessagePassingNetwork,
)
from ._solvers import flux_multigrid as flux_multigrid, message_passing as message_passing
from ._train import build_network as build_network, load_network as load_network, train as train

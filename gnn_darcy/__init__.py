"""Graph networks for the Darcy problem. Needs the extra `gnn`."""

from ._graph import darcy_graph as darcy_graph

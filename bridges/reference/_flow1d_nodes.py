"""Where vessels meet: the pressure at every end of a vessel, by three steps of Newton's method.

Ends are arranged by the node they lie at, (..., w, n): w rows for the node with most ends, the
others padded by ends of the sign 0.
"""

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch.autograd.function import FunctionCtx

_STEPS = 3


@dataclass(frozen=True)
class NodeEquations:
    """The equations of nodes n and of the ends (w, n) that lie at them.

        p + p_v + h (Q/A)² − σ(R Q + S|Q|Q) = P,      Q = Q̂ + y(p − p̂),   A = Â + K(p − p̂)
        Σ σQ + J − G P = 0   or   P = prescribed

    **Attributes:** over ends, `pressure` p̂, Pa, `flow` Q̂, m³/s, `area` Â, m², `flow_slope` y and
    `area_slope` K of the characteristic, `viscous` p_v, Pa, `linear` R, `quadratic` S, `sign` σ;
    over nodes, `head` h, `source` J, m³/s, `conductance` G, `prescribed`, Pa, and `is_prescribed`.
    None stands for zeros.
    """

    pressure: torch.Tensor
    flow: torch.Tensor
    area: torch.Tensor
    flow_slope: torch.Tensor
    area_slope: torch.Tensor
    viscous: torch.Tensor | None
    linear: torch.Tensor | None
    quadratic: torch.Tensor | None
    head: torch.Tensor | None
    source: torch.Tensor
    conductance: torch.Tensor
    prescribed: torch.Tensor
    sign: torch.Tensor
    is_prescribed: torch.Tensor

    def flow_at(self, p: torch.Tensor) -> torch.Tensor:
        """Q at the pressure of the ends, m³/s."""
        return torch.addcmul(self.flow, self.flow_slope, p - self.pressure)

    def area_at(self, p: torch.Tensor) -> torch.Tensor:
        """A at the pressure of the ends, m²."""
        return torch.addcmul(self.area, self.area_slope, p - self.pressure)

    def slopes(
        self, flow: torch.Tensor, area: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Derivatives of the left-hand side by Q and by A; None stands for zeros."""
        by_flow = by_area = None
        if self.head is not None and area is not None:
            by_flow = 2.0 * self.head.unsqueeze(-2) * flow / area.square()
            by_area = -by_flow * flow / area
        if self.linear is not None and self.quadratic is not None:
            loss = self.sign * (self.linear + 2.0 * self.quadratic * flow.abs())
            by_flow = -loss if by_flow is None else by_flow - loss
        return by_flow, by_area

    def slope(self, by_flow: torch.Tensor | None, by_area: torch.Tensor | None) -> torch.Tensor:
        """t′, the derivative of the left-hand side by p."""
        found = torch.ones_like(self.flow_slope)
        if by_flow is not None:
            found = found + by_flow * self.flow_slope
        if by_area is not None:
            found = found + by_area * self.area_slope
        return found

    def newton(self) -> tuple[torch.Tensor, torch.Tensor]:
        """p (..., w, n) and P (..., n), from p̂ on."""
        p, node = self.pressure, self.prescribed
        head = None if self.head is None else self.head.unsqueeze(-2)
        outflow = self.sign * self.flow_slope
        # Without velocities and losses the equations are linear: one step solves them.
        for _ in range(1 if head is None and self.linear is None else _STEPS):
            flow = self.flow_at(p)
            t, slope = p, torch.ones_like(p)
            if self.viscous is not None:
                t = t + self.viscous
            if head is not None:
                area = self.area_at(p)
                speed = flow / area
                push = head * speed
                t = torch.addcmul(t, push, speed)
                along = torch.addcmul(self.flow_slope, speed, self.area_slope, value=-1.0)
                slope = torch.addcmul(slope, push / area, along, value=2.0)
            if self.linear is not None and self.quadratic is not None:
                loss = self.quadratic * flow.abs()
                t = t - self.sign * (self.linear + loss) * flow
                slope = slope - (self.linear + 2.0 * loss) * outflow
            y = outflow / slope
            carried = torch.addcmul(self.sign * flow, y, t, value=-1.0).sum(dim=-2) + self.source
            node = carried / (self.conductance - y.sum(dim=-2))
            node = torch.where(self.is_prescribed, self.prescribed, node)
            p = p + (node.unsqueeze(-2) - t) / slope
        return p, node


_NAMES = tuple(field.name for field in fields(NodeEquations))


def solve_nodes(equations: NodeEquations) -> tuple[torch.Tensor, torch.Tensor]:
    """Pressures of ends, p (..., w, n), and of nodes, P (..., n), Pa.

    Derivatives, of any order, are those of the converged equations.
    """
    return _Pressures.apply(*(getattr(equations, name) for name in _NAMES))  # pyright: ignore[reportReturnType]


class _Pressures(torch.autograd.Function):
    """The backward pass is written in terms of the solution as a function: so is the next one."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, *values: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        p, node = NodeEquations(*values).newton()  # pyright: ignore[reportArgumentType]
        ctx.save_for_backward(p, node, *values)  # pyright: ignore[reportArgumentType]
        return p, node

    @staticmethod
    def backward(ctx: Any, *cotangents: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_end, of_node = cotangents
        p, node, *values = ctx.saved_tensors
        e = NodeEquations(*values)
        flow, area = e.flow_at(p), e.area_at(p)
        by_flow, by_area = e.slopes(flow, area)
        slope = e.slope(by_flow, by_area)
        # Jᵀ λ = g by elimination: J has the ends on its diagonal and the node as border.
        carried = e.sign * e.flow_slope
        balance = -(of_node + (of_end / slope).sum(dim=-2))
        free = balance / (e.conductance - (carried / slope).sum(dim=-2))
        free = torch.where(e.is_prescribed, torch.zeros_like(free), free)
        held = torch.where(e.is_prescribed, balance, torch.zeros_like(balance))
        of_law = (of_end - carried * free.unsqueeze(-2)) / slope
        through_flow = e.sign * free.unsqueeze(-2)
        if by_flow is not None:
            through_flow = through_flow + of_law * by_flow
        moved = p - e.pressure
        found: dict[str, torch.Tensor | None] = dict.fromkeys(_NAMES)
        found["flow"], found["flow_slope"] = through_flow, through_flow * moved
        found["pressure"] = -e.flow_slope * through_flow
        if by_area is not None:
            through_area = of_law * by_area
            found["area"], found["area_slope"] = through_area, through_area * moved
            found["pressure"] = found["pressure"] - e.area_slope * through_area
            found["head"] = (of_law * (flow / area).square()).sum(dim=-2)
        if e.viscous is not None:
            found["viscous"] = of_law
        if e.linear is not None:
            found["linear"] = -of_law * e.sign * flow
            found["quadratic"] = found["linear"] * flow.abs()
        found["source"], found["conductance"], found["prescribed"] = free, -free * node, held
        return tuple(
            -g.sum_to_size(value.shape) if g is not None and needed else None
            for g, value, needed in zip(
                (found[name] for name in _NAMES), values, ctx.needs_input_grad, strict=True
            )
        )

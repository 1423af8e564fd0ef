"""How a solve ended, as sentences."""

import equinox as eqx


class RESULTS(eqx.Enumeration):
    """What happened and what to try; the case layer adds which vessel."""

    successful = ""
    max_steps_reached = (
        "Newton's method reached the largest number of steps before the residual reached its "
        "tolerance. Raise max_steps, or look for a vessel whose radius or boundary is out of range."
    )
    line_search_stalled = (
        "No step along Newton's direction lowers the residual. Look for a vessel of extreme "
        "radius or a lesion close to occlusion, or solve in float64."
    )
    linear_solver_failed = (
        "The linear solver did not reach its tolerance. Raise its max_steps, or look for "
        "permeability or conductances that differ by many orders of magnitude."
    )
    no_pressure_level = (
        "A connected piece of the mesh has neither a sink nor a prescribed pressure: its pressure "
        "is known up to a constant only. Give each piece a sink or a pressure, or mask it out."
    )
    not_positive_definite = (
        "The matrix of the linear system, or what preconditions it, is not positive definite. Look "
        "for a permeability that is not a positive number or a negative sink, or solve in float64."
    )
    vessel_collapsed = (
        "The wall law has no open lumen at the pressure found in a vessel. Raise the wall "
        "stiffness or the inlet pressure, or use a rigid wall."
    )
    supercritical = (
        "The flow is faster than the pressure waves it rides on. Look for a narrow vessel under a "
        "large flow, a stiff inlet or a wrong unit, or raise the wall stiffness."
    )
    step_too_long = (
        "The time step is too long for the waves under load. Lower cfl, or give a controller."
    )
    controller_gave_up = (
        "The controller of the step size reached its largest number of steps or its smallest "
        "step. Raise max_steps, or loosen its tolerances."
    )
    no_steady_start = (
        "No steady flow was found to start from. Give initial, or look for a vessel that closes "
        "under the mean pressures, a wrong unit, or a boundary without any pressure."
    )
    cycles_exhausted = (
        "The flow does not yet repeat itself after the largest number of cycles. Raise max_cycles "
        "or the tolerance, or look for an outlet of very large compliance."
    )
    nonfinite = (
        "A pressure or flow is not finite. Check that a pressure is prescribed somewhere, and "
        "that no input is NaN or zero."
    )

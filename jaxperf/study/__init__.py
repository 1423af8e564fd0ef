"""A case made solvable and solved: built, grown, calibrated, rest and hyperemia, a heart beat."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._build import (
        build_heart as build_heart,
        build_tree as build_tree,
        healthy_tree as healthy_tree,
        Heart as Heart,
        joined as joined,
        read_tree as read_tree,
        voxels_in_patient as voxels_in_patient,
    )
    from ._cells import (
        cell_sentences as cell_sentences,
        Cells as Cells,
        cells_of as cells_of,
        CellTime as CellTime,
        refuse_inertia as refuse_inertia,
        run_resolved as run_resolved,
        saved_moments as saved_moments,
        thinned as thinned,
    )
    from ._check import (
        check_built as check_built,
        check_case as check_case,
        Finding as Finding,
        geometry_findings as geometry_findings,
        noted as noted,
        refuse_errors as refuse_errors,
    )
    from ._diagnosis import (
        CFR_REDUCED as CFR_REDUCED,
        diagnose as diagnose,
        Diagnosis as Diagnosis,
        labels_of as labels_of,
        OPENED as OPENED,
        territory_quantities as territory_quantities,
        TerritoryQuantities as TerritoryQuantities,
    )
    from ._dominance import dominance_of as dominance_of
    from ._fit import fit_heart as fit_heart, heart_problem as heart_problem, HeartFit as HeartFit
    from ._forest import (
        forest_path as forest_path,
        Grown as Grown,
        growth_problem as growth_problem,
        joined_forest as joined_forest,
        read_forest as read_forest,
        territory_shares as territory_shares,
    )
    from ._heart_model import HeartModel as HeartModel
    from ._heartbeat import Heartbeat as Heartbeat, heartbeat_of_case as heartbeat_of_case
    from ._listing import list_branches as list_branches, ListedBranch as ListedBranch
    from ._measured import (
        heart_measurements as heart_measurements,
        Measured as Measured,
        pet_camera as pet_camera,
        read_measured as read_measured,
        SeenByWires as SeenByWires,
    )
    from ._observed import (
        collect as collect,
        lesion_chain as lesion_chain,
        lesion_end as lesion_end,
        Results as Results,
    )
    from ._places import (
        branch_places as branch_places,
        Place as Place,
        save_points as save_points,
        Series as Series,
        series_of as series_of,
    )
    from ._predicted import (
        heart_quantities as heart_quantities,
        HeartQuantities as HeartQuantities,
        predict as predict,
        Predicted as Predicted,
    )
    from ._prepare import (
        build_regions as build_regions,
        prepare_case as prepare_case,
        Prepared as Prepared,
    )
    from ._pulsatile import (
        Beat as Beat,
        BEHIND as BEHIND,
        case_places as case_places,
        followed_segments as followed_segments,
        Pulsation as Pulsation,
        rigid_bed as rigid_bed,
        solve_pulsation as solve_pulsation,
    )
    from ._solve import darcy_method as darcy_method, solve_case as solve_case, Solved as Solved
    from ._synthetic import (
        synthetic_measurement as synthetic_measurement,
        synthetic_truth as synthetic_truth,
        Truth as Truth,
    )
    from ._unknowns import (
        AbstractChange as AbstractChange,
        heart_unknowns as heart_unknowns,
        lesion_names as lesion_names,
        severity as severity,
        Unknown as Unknown,
    )
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)

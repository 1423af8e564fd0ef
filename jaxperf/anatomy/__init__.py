"""Anatomy by rule: the demonstration tree, courses, grooves, where terminals attract tissue."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._courses import (
        Course as Course,
        network_from_courses as network_from_courses,
        smooth_course as smooth_course,
    )
    from ._demo import (
        demo_tree as demo_tree,
        DODGE_MM as DODGE_MM,
        LAD_DISTAL_AT_MM as LAD_DISTAL_AT_MM,
        LESION as LESION,
    )
    from ._grooves import (
        SYNTHETIC as SYNTHETIC,
        synthetic_right_coronary as synthetic_right_coronary,
    )
    from ._septum import septum_from_grooves as septum_from_grooves
    from ._sides import branches_astray as branches_astray
    from ._terminals import terminal_sites as terminal_sites
else:
    from .._lazy import lazy_names

    __getattr__, __dir__, __all__ = lazy_names(__name__, __file__)

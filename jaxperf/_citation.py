"""BibTeX of the sources behind what a call used."""

from collections.abc import Iterator

import equinox as eqx
import jax

from ._misc import InputError

_ENTRIES = {
    "papamanolis2021": """@article{papamanolis2021,
  author = {Papamanolis, L. and Kim, H. J. and Jaquet, C. and others},
  title = {Myocardial Perfusion Simulation for Coronary Artery Disease: A Coupled
           Patient-Specific Multiscale Model},
  journal = {Annals of Biomedical Engineering},
  volume = {49}, pages = {1432--1447}, year = {2021},
  doi = {10.1007/s10439-020-02681-z},
}""",
    "jaquet2019": """@article{jaquet2019,
  author = {Jaquet, C. and Najman, L. and Talbot, H. and others},
  title = {Generation of Patient-Specific Cardiac Vascular Networks: A Hybrid Image-Based and
           Synthetic Geometric Model},
  journal = {IEEE Transactions on Biomedical Engineering},
  volume = {66}, number = {4}, pages = {946--955}, year = {2019},
  doi = {10.1109/TBME.2018.2865667},
}""",
    "young1973": """@article{young1973,
  author = {Young, D. F. and Tsai, F. Y.},
  title = {Flow characteristics in models of arterial stenoses -- {I}. {S}teady flow},
  journal = {Journal of Biomechanics},
  volume = {6}, number = {4}, pages = {395--410}, year = {1973},
  doi = {10.1016/0021-9290(73)90099-7},
}""",
    "pries1994": """@article{pries1994,
  author = {Pries, A. R. and Secomb, T. W. and Gessner, T. and Sperandio, M. B. and Gross, J. F.
            and Gaehtgens, P.},
  title = {Resistance to blood flow in microvessels in vivo},
  journal = {Circulation Research},
  volume = {75}, number = {5}, pages = {904--915}, year = {1994},
  doi = {10.1161/01.RES.75.5.904},
}""",
    "olufsen1999": """@article{olufsen1999,
  author = {Olufsen, M. S.},
  title = {Structured tree outflow condition for blood flow in larger systemic arteries},
  journal = {American Journal of Physiology -- Heart and Circulatory Physiology},
  volume = {276}, number = {1}, pages = {H257--H268}, year = {1999},
  doi = {10.1152/ajpheart.1999.276.1.H257},
}""",
    "kim2010": """@article{kim2010,
  author = {Kim, H. J. and Vignon-Clementel, I. E. and Coogan, J. S. and Figueroa, C. A. and
            Jansen, K. E. and Taylor, C. A.},
  title = {Patient-Specific Modeling of Blood Flow and Pressure in Human Coronary Arteries},
  journal = {Annals of Biomedical Engineering},
  volume = {38}, number = {10}, pages = {3195--3209}, year = {2010},
  doi = {10.1007/s10439-010-0083-6},
}""",
    "cerqueira2002": """@article{cerqueira2002,
  author = {Cerqueira, M. D. and Weissman, N. J. and Dilsizian, V. and others},
  title = {Standardized Myocardial Segmentation and Nomenclature for Tomographic Imaging of the
           Heart},
  journal = {Circulation},
  volume = {105}, number = {4}, pages = {539--542}, year = {2002},
  doi = {10.1161/hc0402.102975},
}""",
    "dodge1992": """@article{dodge1992,
  author = {Dodge, J. T. and Brown, B. G. and Bolson, E. L. and Dodge, H. T.},
  title = {Lumen diameter of normal human coronary arteries. {I}nfluence of age, sex, anatomic
           variation, and left ventricular hypertrophy or dilation},
  journal = {Circulation},
  volume = {86}, number = {1}, pages = {232--246}, year = {1992},
  doi = {10.1161/01.CIR.86.1.232},
}""",
    "huo2007": """@article{huo2007,
  author = {Huo, Y. and Kassab, G. S.},
  title = {A hybrid one-dimensional/{W}omersley model of pulsatile blood flow in the entire
           coronary arterial tree},
  journal = {American Journal of Physiology -- Heart and Circulatory Physiology},
  volume = {292}, number = {6}, pages = {H2623--H2633}, year = {2007},
  doi = {10.1152/ajpheart.00987.2006},
}""",
    "huo2012": """@article{huo2012,
  author = {Huo, Y. and Kassab, G. S.},
  title = {Intraspecific scaling laws of vascular trees},
  journal = {Journal of the Royal Society Interface},
  volume = {9}, number = {66}, pages = {190--200}, year = {2012},
  doi = {10.1098/rsif.2011.0270},
}""",
    "kassab1993": """@article{kassab1993,
  author = {Kassab, G. S. and Rider, C. A. and Tang, N. J. and Fung, Y. C.},
  title = {Morphometry of pig coronary arterial trees},
  journal = {American Journal of Physiology -- Heart and Circulatory Physiology},
  volume = {265}, number = {1}, pages = {H350--H365}, year = {1993},
  doi = {10.1152/ajpheart.1993.265.1.H350},
}""",
}

# By the name of a class or function, so that core need not import the rooms.
_SOURCES = {
    "Lesions": ("young1973",),
    "stenosis_coefficients": ("young1973",),
    "young_tsai_drop": ("young1973",),
    "PriesViscosity": ("pries1994",),
    "OlufsenStiffness": ("olufsen1999",),
    "CoronaryOutletSvOneD": ("kim2010",),
    "CoronaryOutletSvZeroD": ("kim2010",),
    "PerfusionProblem": ("papamanolis2021", "jaquet2019"),
    "solve_perfusion": ("papamanolis2021", "jaquet2019"),
    "aha17": ("cerqueira2002",),
    "segment_means": ("cerqueira2002",),
    "KassabTable": ("kassab1993",),
    "kassab_table": ("kassab1993",),
    "kassab_order": ("kassab1993",),
    "Morphometry": ("kassab1993",),
    "morphometry": ("kassab1993",),
}


def bibtex(*objects_or_names: object) -> str:
    """The BibTeX entries of the sources behind the given objects, each once.

    **Arguments:**

    - `objects_or_names`: keys such as `"pries1994"`, names of classes and functions of the
      library, those classes and functions, or Modules: a problem is searched for the laws in it,
      and parts whose arrays are all empty (the lesions of a healthy network) do not count. With
      none given, every entry.

    **Returns:** BibTeX; empty where the objects rest on no listed source.

    **Errors:** [`InputError`][] for a name that is neither a key nor a known class or function.
    """
    if not objects_or_names:
        return "\n\n".join(_ENTRIES.values())
    keys = {key: None for thing in objects_or_names for key in _keys_of(thing)}
    return "\n\n".join(_ENTRIES[key] for key in keys)


def citation(*objects_or_names: object) -> None:
    """Print the BibTeX of what the given objects rest on; see [`bibtex`][]."""
    print(bibtex(*objects_or_names))


def _keys_of(thing: object) -> Iterator[str]:
    if isinstance(thing, str):
        if thing not in _ENTRIES and thing not in _SOURCES:
            raise InputError(
                f"{thing!r} names no source",
                where="citation",
                expected=f"one of {sorted([*_ENTRIES, *_SOURCES])}",
                fix="Pass the object itself, or one of these names",
            )
        yield from (thing,) if thing in _ENTRIES else _SOURCES[thing]
    elif isinstance(thing, eqx.Module):
        if any(leaf.size for leaf in jax.tree.leaves(eqx.filter(thing, eqx.is_array))):
            yield from _SOURCES.get(type(thing).__name__, ())
        yield from _keys_of(tuple(vars(thing).values()))
    elif isinstance(thing, tuple | list):
        # Strings inside an object are labels such as branch names.
        for part in thing:
            if not isinstance(part, str):
                yield from _keys_of(part)
    else:
        yield from _SOURCES.get(getattr(thing, "__name__", ""), ())

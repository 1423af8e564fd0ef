"""What the name of a coronary vessel says that it is."""

import re

# Names in lower case, words parted by one space. The first four are told by the whole name, the
# vessels of the inferior wall also where it says more, such as `RCA PDA`.
_ARTERY = {
    "LM": r"lm|lms|lmca|left ?main( stem)?( coronary)?",
    "LAD": r"lad|(left )?anterior descending( coronary)?",
    "LCx": r"lcx|cx|(left )?circumflex( coronary)?",
    "RCA": r"rca|right coronary",
}
_SIDE = r"((l|r|left|right) ?)?"
_POSTERIOR = {
    "PDA": rf"{_SIDE}(pda|pd|piv|ivp|posterior (descending|interventricular))",
    "PL": rf"{_SIDE}(pl|plb|plv|plvb|pla|postero ?lateral|posterior (lateral|left ventricular))",
}
_VESSEL = {**_ARTERY, **_POSTERIOR}
# Words that say which piece of a vessel it is, or nothing at all.
_PIECE = ("proximal", "prox", "mid", "middle", "distal", "dist")
_EMPTY = (*_PIECE, "artery", "branch", "synthetic")


def vessel_of_name(name: str) -> str | None:
    """The vessel that a name means: LM, LAD, LCx, RCA, PDA or PL; None where it is another.

    A name may be short or long, in any case, with `_`, `-` or spaces. It may say which piece it is
    (`LAD proximal`), and posterior vessels may be of the left or the right and have a number:
    `L-PLB2`, `PL1`.

    **Example:**

    ```python
    import jaxperf as jp
    assert jp.network.vessel_of_name("Left_circumflex") == "LCx"
    assert jp.network.vessel_of_name("OM1") is None
    ```
    """
    words = [word for word in _words(name) if word not in _EMPTY]
    plain = " ".join(words)
    # a number parts posterior vessels, but `Cx 1` may be the first branch of the LCx
    unnumbered = " ".join(word for word in words if not word.isdigit())
    for vessel, pattern in _VESSEL.items():
        if re.fullmatch(pattern, unnumbered if vessel in _POSTERIOR else plain):
            return vessel
    return None


def posterior_of_name(name: str) -> str | None:
    """PDA or PL where a name speaks of such a vessel, such as `PDA S1` or `RCA PL2`; else None.

    **Example:**

    ```python
    import jaxperf as jp
    assert jp.network.posterior_of_name("RCA PL2") == "PL"
    ```
    """
    words = " ".join(_words(name))
    for vessel, pattern in _POSTERIOR.items():
        if re.search(rf"(?<!\S)({pattern})(?!\S)", words):
            return vessel
    return None


def _words(name: str) -> list[str]:
    """The words of a name and its numbers, in lower case."""
    return re.findall(r"[^\W\d_]+|\d+", name.lower())

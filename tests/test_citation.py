"""The sources printed are those of the laws a call used."""

import jax.numpy as jnp
import pytest

from jaxperf import InputError
from jaxperf._citation import bibtex, citation
from jaxperf.vessel import Blood, PriesViscosity, SvOneDWall, young_tsai_drop


class TestBibtex:
    def test_everything_by_default(self):
        text = bibtex()
        assert text.count("@article{") == 25
        # Astronomy and Astrophysics gave no DOIs in 1982.
        assert text.count("doi = {10.") == 24
        assert text.count("{") == text.count("}")

    def test_a_problem_is_searched(self):
        assert "@article{pries1994," in bibtex(Blood(viscosity=PriesViscosity()))
        assert bibtex(Blood()) == ""

    def test_functions_names_and_keys_come_once(self):
        text = bibtex(young_tsai_drop, "stenosis_coefficients", "young1973", "Lesions")
        assert text.count("@article{") == 1

    def test_empty_parts_do_not_count(self):
        viscosity = PriesViscosity(haematocrit=jnp.zeros(0), plasma_viscosity=jnp.zeros(0))
        assert bibtex((viscosity, ["pries1994"])) == ""

    def test_unknown_name(self):
        with pytest.raises(InputError, match="names no source"):
            bibtex("pries1884")


def test_citation_prints(capsys):
    citation(SvOneDWall)
    assert capsys.readouterr().out == "\n"
    citation("kim2010")
    assert "10.1007/s10439-010-0083-6" in capsys.readouterr().out

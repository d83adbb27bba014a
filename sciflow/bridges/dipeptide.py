"""Alanine dipeptide: its atoms at the minimum of Amber 14 with the implicit solvent GBn2."""

# Residue, name, element, and position [angstrom].
ATOMS = """
ACE H1   H  -2.846  2.639 -0.859
ACE CH3  C  -2.052  3.066 -0.248
ACE H2   H  -2.470  3.811  0.427
ACE H3   H  -1.310  3.533 -0.893
ACE C    C  -1.396  1.968  0.554
ACE O    O  -1.394  2.018  1.783
ALA N    N  -0.838  0.980 -0.143
ALA H    H  -0.872  1.038 -1.151
ALA CA   C  -0.147 -0.178  0.430
ALA HA   H   0.340  0.122  1.360
ALA CB   C  -1.187 -1.260  0.757
ALA HB1  H  -1.688 -1.584 -0.156
ALA HB2  H  -0.696 -2.118  1.218
ALA HB3  H  -1.928 -0.866  1.454
ALA C    C   0.948 -0.717 -0.514
ALA O    O   0.930 -0.455 -1.722
NME N    N   1.896 -1.486  0.035
NME H    H   1.836 -1.662  1.028
NME C    C   3.006 -2.094 -0.699
NME H1   H   3.635 -2.669 -0.017
NME H2   H   2.622 -2.763 -1.472
NME H3   H   3.612 -1.320 -1.171
"""


def dipeptide_pdb() -> str:
    """The molecule in the PDB format."""
    lines, number, last = [], 0, ""
    for serial, row in enumerate(ATOMS.split("\n")[1:-1], start=1):
        residue, name, element, *xyz = row.split()
        number += residue != last
        last = residue
        x, y, z = map(float, xyz)
        # Names of four characters start a column earlier than shorter ones.
        label = name if len(name) == 4 else f" {name:<3}"
        lines.append(
            f"HETATM{serial:5d} {label:4} {residue} A{number:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00          {element:>2}"
        )
    return "\n".join([*lines, "END", ""])

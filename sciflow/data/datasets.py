"""The named data sets: where each comes from, what it holds, and the hash that identifies it.

This is a table and nothing else; `sciflow.data.registry` finds, downloads and checks the files.
No data are part of the package: `data/README.md` describes the same table for a reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_MENDELEY = "https://data.mendeley.com/public-files/datasets/hhny5ff7yj/files"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
# Mendeley answers 403 to the user agents of Python's HTTP clients.
_BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 sciflow"}

_TONG = (
    "Tong (2023), Processed single-cell RNA time series data, Mendeley Data, V1, "
    "doi:10.17632/hhny5ff7yj.1"
)
_MOON = "Moon et al. (2019), Nature Biotechnology 37, 1482"
_TRAJECTORYNET = "Tong et al. (2020), TrajectoryNet, ICML"
_BURKHARDT = (
    "Burkhardt et al. (2022), Multimodal single-cell integration across time, individuals and "
    "batches, NeurIPS competition"
)
_DEEPRUOT = "Zhang, Li, Zhou (2025), DeepRUOT, ICLR"
_LECUN = "LeCun, Bottou, Bengio, Haffner (1998), Proc. IEEE 86, 2278"


@dataclass(frozen=True)
class Dataset:
    """One file with a name.

    Attributes:
        name: what the user types, for instance ``"embryoid-body"``.
        filename: path of the file relative to the folder ``SCIFLOW_DATA``.
        sha256: hash of the file, 64 hexadecimal digits.
        licence: terms of the file, as its source states them.
        citation: what to cite where it is used.
        description: what it holds: shapes, units, keys.
        url: where it is downloaded from; None where it has to be put in place by hand.
        size: bytes; None where the source does not state it.
        headers: HTTP headers that the host asks for.
    """

    name: str
    filename: str
    sha256: str
    licence: str
    citation: str
    description: str
    url: str | None = None
    size: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def basename(self) -> str:
        """The last part of ``filename``: the name of the file in the cache."""
        return self.filename.rpartition("/")[2]


_TABLE = (
    Dataset(
        name="embryoid-body",
        filename="singlecell/eb_velocity_v5.npz",
        url="https://github.com/KrishnaswamyLab/TrajectoryNet/raw/master/data/eb_velocity_v5.npz",
        sha256="17623d16dd4fe7b679aad80916d130cb2863a4cd4ee742f139a3c2eed91ba230",
        licence="Yale non-commercial (TrajectoryNet repository)",
        citation=f"{_MOON}; {_TRAJECTORYNET}",
        description=(
            "Human embryoid bodies, 16,819 cells at 5 times: pcs (N, 100), not centred; "
            "sample_labels (N,) 0..4 for days 0-3, 6-9, 12-15, 18-21, 24-27; also pcs_delta "
            "(RNA velocity), phate, delta_embedding"
        ),
    ),
    Dataset(
        name="embryoid-body-h5ad",
        filename="singlecell/ebdata_v3.h5ad",
        url=f"{_MENDELEY}/d82698f4-d143-442f-9a41-10be8ad02584/file_downloaded",
        sha256="0233307058f579636e298a842a17c2e0fb58c128f5bb7cf6f2563775fbc6124c",
        size=79_357_183,
        licence="as stated at doi:10.17632/hhny5ff7yj.1",
        citation=f"{_MOON}; {_TONG}",
        description="The same cells as AnnData: obs['sample_labels'], obsm['X_pca'], 'X_phate'",
        headers=_BROWSER,
    ),
    Dataset(
        name="cite",
        filename="singlecell/op_cite_inputs_0.h5ad",
        url=f"{_MENDELEY}/1862acf5-6294-4eb1-8644-d1c6d25e4126/file_downloaded",
        sha256="fa1d117df3d6c23e0b80a997a259bcac3a79ad27d581e1a6654e107c39885e4c",
        size=1_245_730_696,
        licence="as stated at doi:10.17632/hhny5ff7yj.1",
        citation=f"{_BURKHARDT}; {_TONG}",
        description=(
            "CITE-seq of blood stem cells, one donor, 31,240 cells on days 2, 3, 4, 7: "
            "obs['day'], obsm['X_pca']"
        ),
        headers=_BROWSER,
    ),
    Dataset(
        name="multi",
        filename="singlecell/op_train_multi_targets_0.h5ad",
        url=f"{_MENDELEY}/5f4b6e5b-f122-4f5a-8ede-0d188c5cf00c/file_downloaded",
        sha256="a16c28ef861503111bb2f4c6ab6b1d5ed3df07d49eb0baa7378515fc098af4d2",
        size=1_059_236_146,
        licence="as stated at doi:10.17632/hhny5ff7yj.1",
        citation=f"{_BURKHARDT}; {_TONG}",
        description=(
            "Multiome of blood stem cells, one donor, days 2, 3, 4, 7: obs['day'], obsm['X_pca']"
        ),
        headers=_BROWSER,
    ),
    Dataset(
        name="embryoid-body-subset",
        filename="singlecell/eb_subset_100pc.npz",
        sha256="2f1fda4f0ed953c811319640348c9adb3f6d6b32e293f0fdd93b1d5f3eecca2e",
        size=2_064_890,
        licence="MIT (NLSB repository) over Yale non-commercial (TrajectoryNet repository)",
        citation=f"{_MOON}; {_TRAJECTORYNET}; Koshizuka, Sato (2023), NLSB, ICLR",
        description=(
            "2,750 of the embryoid-body cells, 550 at each of 5 times: X (N, 100) principal "
            "components, not centred; t (N,) 0..4; velocity (N, 100); split; cell_index, the row "
            "in embryoid-body"
        ),
    ),
    Dataset(
        name="emt",
        filename="singlecell/deepruot/emt.csv",
        sha256="820eca0ca6a9b8c5aba970dda04052b2e2ea4489b712b948559fe5cd185a8294",
        size=337_854,
        licence="MIT (DeepRUOT repository)",
        citation=f"Cook, Vanderhyden (2020), Nature Communications 11, 2142; {_DEEPRUOT}",
        description=(
            "A549 cells in epithelial-mesenchymal transition: samples 0..3 "
            "(577, 885, 788, 883 cells), x1..x10"
        ),
    ),
    Dataset(
        name="simulation-gene",
        filename="singlecell/deepruot/simulation_gene_data.csv",
        sha256="d41e3bcd94ff55383264461f2eed048780dbea8faffb77011cff9b8dce231d10",
        size=124_310,
        licence="MIT (DeepRUOT repository)",
        citation=_DEEPRUOT,
        description=(
            "Simulated toggle switch of two genes with growth: samples 0..4 "
            "(400, 442, 530, 690, 969 cells), x1, x2"
        ),
    ),
    Dataset(
        name="gaussian-10d",
        filename="singlecell/deepruot/gaussian_10d.csv",
        sha256="85f20ad7d9227455dcb9981fd75c293946e28104bb94d77837c793c054f63f8b",
        size=399_427,
        licence="MIT (DeepRUOT repository)",
        citation=_DEEPRUOT,
        description=(
            "Simulated Gaussian mixture with one growing mode: samples 0, 1 (500, 1,400 cells), "
            "x1..x10"
        ),
    ),
    Dataset(
        name="mnist-train-images",
        filename="mnist/train-images-idx3-ubyte.gz",
        url=f"{_MNIST}/train-images-idx3-ubyte.gz",
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        size=9_912_422,
        licence="CC BY-SA 3.0",
        citation=_LECUN,
        description="60,000 images of digits, 28 x 28 bytes, idx format",
    ),
    Dataset(
        name="mnist-train-labels",
        filename="mnist/train-labels-idx1-ubyte.gz",
        url=f"{_MNIST}/train-labels-idx1-ubyte.gz",
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        size=28_881,
        licence="CC BY-SA 3.0",
        citation=_LECUN,
        description="60,000 digits 0..9, idx format",
    ),
    Dataset(
        name="mnist-test-images",
        filename="mnist/t10k-images-idx3-ubyte.gz",
        url=f"{_MNIST}/t10k-images-idx3-ubyte.gz",
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        size=1_648_877,
        licence="CC BY-SA 3.0",
        citation=_LECUN,
        description="10,000 images of digits, 28 x 28 bytes, idx format",
    ),
    Dataset(
        name="mnist-test-labels",
        filename="mnist/t10k-labels-idx1-ubyte.gz",
        url=f"{_MNIST}/t10k-labels-idx1-ubyte.gz",
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        size=4_542,
        licence="CC BY-SA 3.0",
        citation=_LECUN,
        description="10,000 digits 0..9, idx format",
    ),
    Dataset(
        name="alanine-dipeptide",
        filename="ala2/msmbuilder-tutorial/ala2_heavy_and_dihedrals.npz",
        sha256="0476b49e2ff9de149d1bce1055e5e9b0dcf038cc999cae93909ba2653245cfc2",
        size=2_218_214,
        licence="GPL v2 (MSMBuilder tutorial, from which it is derived)",
        citation="Beauchamp et al. (2011), MSMBuilder2, J. Chem. Theory Comput. 7, 3412",
        description=(
            "Alanine dipeptide in water, 100 runs of 501 frames 1 ps apart: xyz (100, 501, 10, 3) "
            "nm of the heavy atoms, phi and psi (100, 501) rad, box (100, 501, 3) nm"
        ),
    ),
    Dataset(
        name="alanine-dipeptide-pdb",
        filename="ala2/msmbuilder-tutorial/native.pdb",
        sha256="39148a94171703ab1e83bfbf41d75a0d19db0f52aaedeaec99ec976caa97b16f",
        size=1_749,
        licence="GPL v2 (MSMBuilder tutorial)",
        citation="Beauchamp et al. (2011), MSMBuilder2, J. Chem. Theory Comput. 7, 3412",
        description="The 22 atoms of alanine dipeptide: topology and one geometry",
    ),
    Dataset(
        name="taylor-green-1600",
        filename="turbulence/tgv/spectral_Re1600_512.gdiag",
        sha256="60bfeaee2dd32de1b9e7171c70cf3774b6053d82a785d526c055547a0757017a",
        size=102_169,
        licence="as stated by the HiOCFD workshop, case C3.5",
        citation="International Workshop on High-Order CFD Methods, case C3.5",
        description=(
            "Taylor-Green vortex at Re 1600, 512^3 spectral: time, kinetic energy, dissipation "
            "rate, enstrophy"
        ),
    ),
    Dataset(
        name="taylor-green-100",
        filename="turbulence/tgv/brachet1983_Re100_dissipation.csv",
        sha256="43e62a67ad690a0fb5cee6f8f300ee7b6046ac72592dbf5d343eb7924b5fc5c0",
        size=3_710,
        licence="BSD-3 (digitised in PsDNS)",
        citation="Brachet et al. (1983), J. Fluid Mech. 130, 411",
        description="Taylor-Green vortex at Re 100: time and dissipation rate, 71 points",
    ),
    Dataset(
        name="decaying-turbulence-2048",
        filename="turbulence/blastnet_hit2048/decay_k_eps.csv",
        sha256="a8b24c86e0ea5f18791bcdc50b234949ebf4b89098f31d9d5a92adc56c7f3411",
        size=603,
        licence="as stated by BLASTNet",
        citation="BLASTNet, decaying homogeneous isotropic turbulence, 2048^3",
        description="20 snapshots of time (s), kinetic energy (m^2/s^2), dissipation (m^2/s^3)",
    ),
    Dataset(
        name="comte-bellot-corrsin",
        filename="turbulence/cbc/fds_cbcdata.txt",
        sha256="551e25425f71b0869dc3472e43c75e717cb3654cb14280708b53ddb3bbd7b8bd",
        size=609,
        licence="public domain (NIST, FDS verification data)",
        citation="Comte-Bellot, Corrsin (1971), J. Fluid Mech. 48, 273",
        description=(
            "Grid turbulence: wave number (1/cm) and energy spectra (cm^3/s^2) at "
            "U0 t/M = 42, 98, 171"
        ),
    ),
    Dataset(
        name="molecule-energies",
        filename="qmc/reference_energies.csv",
        sha256="db87079afec6dd87b7be9aaedf8d810a4637534e6cef92d823208a30c519e7a8",
        size=1_290,
        licence="facts, compiled from the literature",
        citation="named row by row in its column 'source'",
        description="Ground-state energies of atoms and molecules (hartree), geometries (bohr)",
    ),
)

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in _TABLE}

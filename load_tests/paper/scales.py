"""How much of the paper's protocol is done."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporters.registry import Registry
from load_tests.paper.grids import MARGIN, Grid
from load_tests.paper.thieves import ADAPTIVE, FEW, HARDENED, Changes
from load_tests.runs.criterion import PILOT

_MAGNITUDES = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
_TEXTS = ("banking77.npz", "clinc150.npz")
_MARGINS = (0.0, MARGIN, 0.05, 0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One size of the whole plan; the defaults are those of the paper's protocol."""

    about: str  #: how it differs from the paper, for RESULTS.md
    data: tuple[str, ...]
    architecture: str  #: of M and S in the defence study
    victim_steps: int
    #: Of victims that learn their data set sooner.
    victim_steps_on: Mapping[str, int] = field(default_factory=dict)
    queries: int  #: the query budget of the defence study
    steps: int  #: of the substitutes in the defence study
    #: That chosen settings are told of. The pilot, by which they are chosen, comes before.
    seeds: int
    victim_seeds: int  #: victims among them; the pilot has another
    other_seeds: int = 1  #: of the seeds, those that all else is told of
    judged_on: int = 0  #: images of the test set, 0 for all
    grid: Grid
    #: Train thieves before a few settings of a grid alone: see ``plan.PaperPlan.grid``.
    halving: bool = False
    #: The attack study (Figure 2): its data set, the real images that a thief has, how many
    #: times as many queries Jacobian and Random have, and the steps of the substitutes.
    attacks_on: str
    attack_architecture: str = "simple"  #: of M and S
    attack_samples: tuple[int, ...]
    attack_times: int
    attack_steps: int
    #: Images shown to the thieves of Figure 6, the first of which sets the level.
    labels_queries: tuple[int, ...]
    labels_on: tuple[str, ...]  #: data sets of Figure 6
    #: Images of thieves who go through them again and again, for ``kept_steps``.
    labels_kept: tuple[int, ...]
    kept_steps: int  #: from which on more steps change little
    recovery_on: tuple[str, ...]  #: data sets of Table 4 and Figure 7
    magnitudes: tuple[float, ...] = _MAGNITUDES  #: beta of Figure 7
    #: Section 4.3: which network M and S have, on which data set.
    architectures: tuple[str, ...] = ()
    architectures_on: str = ""
    adaptive: Changes = ADAPTIVE  #: stronger thieves, of ``thieves.ADAPTIVE``
    hardened: tuple[str, ...] = tuple(HARDENED)  #: modes of ``thieves.HARDENED``
    margins: tuple[float, ...] = _MARGINS  #: of the top-1 gap
    modes_on: tuple[str, ...] = ()  #: data sets of the hardened modes and margins, () for all
    honest_on: tuple[str, ...] = ()  #: data sets of ``thieves.HONEST``
    #: Queries of ``thieves.FEW``, by data set.
    few_on: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    few_thieves: tuple[str, ...] = tuple(FEW)
    jobs: int = 1  #: runs at a time, unless asked otherwise

    def steps_of_victim(self, data: str) -> int:
        """Return how long the victims of a data set are trained."""
        return self.victim_steps_on.get(data, self.victim_steps)

    def with_modes(self, data: str) -> bool:
        """Return whether the hardened modes and margins are tried on a data set."""
        return not self.modes_on or data in self.modes_on

    def seed_of_victim(self, seed: int) -> int:
        """Return which victim a run of this seed steals."""
        return seed if seed == PILOT else PILOT + 1 + (seed - PILOT - 1) % self.victim_seeds

    @property
    def told(self) -> range:
        """The seeds that are told of."""
        return range(PILOT + 1, PILOT + 1 + self.seeds)


_ONE_EACH = Grid(
    reverse_sigmoid=((1.0, 0.4),),
    uniform=(1.0,),
    shaped=((0.5, 0.3),),
    sine=((0.5, 6.0),),
)
#: Of many classes: beta from twice to seven times what keeps the top class of any row, which is
#: .044 and .087 of 77 classes at gamma .2 and .4, and half of that of 150.
_COARSE = Grid(
    reverse_sigmoid=(
        *((beta, 0.2) for beta in (0.1, 0.15, 0.2, 0.25, 0.3)),
        *((beta, 0.4) for beta in (0.3, 0.5)),
    ),
    uniform=(0.03, 0.1, 0.3),
    shaped=((0.3, 0.1), (0.3, 0.3), (1.0, 0.5)),
    sine=((0.3, 6.0), (0.3, 30.0), (1.0, 30.0)),
)
_FINE = Grid(
    reverse_sigmoid=tuple(
        (beta, gamma)
        for gamma in (0.1, 0.2, 0.4, 0.7)
        for beta in (0.21, 0.5, 0.8, 0.9, 1.0, 1.2, 1.5)
    ),
    uniform=(0.1, 0.2, 0.5, 1.0, 2.0),
    shaped=tuple((beta, rho) for rho in (0.1, 0.3, 1.0) for beta in (0.2, 0.5, 1.0, 2.0)),
    sine=tuple((beta, f) for f in (3.0, 6.0, 30.0, 300.0) for beta in (0.2, 0.5, 1.0)),
)

_SMOKE = Scale(
    about="digits of 8 x 8 pixels instead of the paper's data sets, two dense layers of 256 "
    "instead of AllConv, 320 queries and 60 steps instead of 19,200 and 300, one setting of "
    "each defence, few thieves, one seed: a check that everything works, and no evidence",
    data=("digits",),
    architecture="mlp",
    victim_steps=200,
    queries=320,
    steps=60,
    seeds=1,
    victim_seeds=1,
    grid=_ONE_EACH,
    architectures=("simple",),
    architectures_on="digits",
    attacks_on="digits",
    attack_architecture="mlp",
    attack_samples=(80,),
    attack_times=4,
    labels_queries=(960, 3840),
    labels_on=("digits",),
    labels_kept=(80, 320),
    kept_steps=60,
    attack_steps=60,
    recovery_on=("digits",),
    magnitudes=(1.0,),
    honest_on=("digits",),
    few_on={"digits": (80,)},
    few_thieves=("labels alone", "all solutions, logits matched"),
    adaptive=({"recover": "tail"}, {"attack": "duplicates", "recover": "table"}),
    hardened=(),
    margins=(0.0,),
    jobs=2,
)
_CPU = Scale(
    about="the paper's networks and budget on the four data sets that need no more than two "
    "cores and patience: AllConv, 19,200 queries shown once in 300 steps of 64; victims of "
    "5,000 steps, of 2,000 on Fashion-MNIST and MNIST, one for three seeds of the thief; settings "
    "found by halving, with a training for some four of each defence's candidates; one seed for "
    "all else, 2,000 test images; the attack study with up to 4,800 queries and 1,500 steps "
    "instead of 50,000 and 16,000",
    data=("cifar10", "cifar100", "fashion_mnist", "mnist"),
    architecture="allconv",
    victim_steps=5_000,
    victim_steps_on={"fashion_mnist": 2_000, "mnist": 2_000},
    queries=19_200,
    steps=300,
    seeds=3,
    victim_seeds=1,
    judged_on=2000,
    grid=_FINE,
    halving=True,
    architectures=("simple", "allconv", "mobilenet", "xception"),
    architectures_on="cifar10",
    attacks_on="mnist",
    attack_samples=(75, 300),
    attack_times=16,
    attack_steps=1_500,
    labels_queries=(4_800, 9_600, 19_200),
    labels_on=("cifar10",),
    labels_kept=(4_800, 19_200),
    kept_steps=3_000,
    recovery_on=("cifar10",),
    hardened=("decoy",),
    modes_on=("cifar10",),
    honest_on=("cifar10", "cifar100"),
)
_TEXT = Scale(
    about="two sets of short texts by their features, with 77 and 150 classes, and MNIST for "
    "the attack study and thieves of few queries; M and S are two dense layers of 256; "
    "victims and thieves of 600 steps, who learn from 3,200 queries again and again; five "
    "seeds of everything, each with a victim of its own; a coarse grid; no other networks",
    data=_TEXTS,
    architecture="mlp",
    victim_steps=600,
    queries=3200,
    steps=600,
    seeds=5,
    victim_seeds=5,
    other_seeds=5,
    grid=_COARSE,
    attacks_on="mnist",
    attack_architecture="mlp",
    attack_samples=(75, 300),
    attack_times=4,
    attack_steps=2000,
    labels_queries=(2400, 4800, 9600, 19200),
    labels_on=_TEXTS,
    labels_kept=(400, 800, 1600, 3200),
    kept_steps=2000,
    recovery_on=_TEXTS,
    magnitudes=(0.1, 0.3, 1.0),
    adaptive=({"recover": "tail"}, {"recover": "table"}),
    hardened=("decimals 2",),
    margins=(),
    modes_on=_TEXTS[:1],
    honest_on=_TEXTS,
    few_on={"mnist": (50, 100), "banking77.npz": (385,)},
    jobs=2,
)
_FULL = Scale(
    about="the paper's protocol: AllConv, 19,200 queries presented in 300 steps of 64, "
    "victims of 8,000 steps, the attack study with up to 50,000 queries and 16,000 steps; "
    "five seeds for the chosen settings, each with a victim of its own, and three for all "
    "else (the paper names no repeats)",
    data=("cifar10", "cifar100", "fashion_mnist", "mnist", "stl10"),
    architecture="allconv",
    victim_steps=8_000,
    queries=19_200,
    steps=300,
    seeds=5,
    victim_seeds=5,
    other_seeds=3,
    grid=_FINE,
    architectures=("simple", "allconv", "mobilenet", "xception"),
    architectures_on="cifar10",
    attacks_on="mnist",
    attack_samples=(150, 500, 1_500, 3_125),
    attack_times=16,
    labels_queries=(4_800, 9_600, 19_200, 38_400),
    labels_on=("cifar10",),
    labels_kept=(4_800, 19_200),
    kept_steps=3_000,
    attack_steps=16_000,
    recovery_on=("cifar10", "cifar100"),
    honest_on=("cifar10", "cifar100"),
    few_on={"cifar10": (1_000,)},
)

SCALES: Registry[Scale] = Registry(
    "--scale", {"smoke": _SMOKE, "cpu": _CPU, "text": _TEXT, "full": _FULL}
)

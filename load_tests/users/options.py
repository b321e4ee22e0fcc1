"""What can be set on Locust's command line and on its web page, beside Locust's own."""

import math
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from locust.argument_parser import LocustArgumentParser

from load_tests.asking.endpoint import Access
from load_tests.data.drawn import Drawn, draw_from
from load_tests.data.query_sets import absolute
from load_tests.users.load_shapes import SHAPES
from postprocess.errors import InputError

THIEVES = ("sample", "random", "jacobian")


@dataclass(frozen=True, kw_only=True)
class LoadSettings:
    """The options of one test, checked."""

    model: str
    output: str  #: of the scores, where the model has several
    data: str
    data_dir: Path | None
    query_set: str  #: file of a query set, in the data set's place; else empty
    test_set: str  #: of another one, of the normal users
    split_seed: int  #: of the hold-off: what the adversary has, and the victim has not
    seed: int  #: of the users' draws
    access: Access
    normal_batch: int  #: images per request of a normal user, at most
    think_time_s: float  #: of a normal user between two requests, on average
    query_budget: int  #: images, of each thief
    thief_batch: int  #: images per request of a thief
    thief_pause_s: float  #: of a thief after each request
    transfer_sets: Path  #: folder of the thieves' folders
    #: Attack to number of thieves; None: as Locust's own options and the class picker say.
    thieves: dict[str, int] | None

    @property
    def drawn(self) -> Drawn:
        """The rows that the users ask about.

        Raises:
            InputError: there are none.
        """
        return draw_from(
            *(self.data, self.data_dir, self.split_seed, self.query_set, self.test_set)
        )

    @classmethod
    def of(cls, options: Namespace | None) -> "LoadSettings":
        """Return what an environment's options say; the web page changes them between tests.

        Raises:
            InputError: an option is out of range.
        """
        options = options or Namespace()
        counts = {attack: _given(options, f"{attack}_thieves") for attack in THIEVES}
        data_dir, tls_ca = _given(options, "data_dir"), _given(options, "tls_ca")
        settings = cls(
            model=options.model,
            data="" if options.query_set else options.data,
            data_dir=None if data_dir is None else Path(data_dir),
            output=options.output,
            **{name: absolute(getattr(options, name)) for name in ("query_set", "test_set")},
            split_seed=options.split_seed,
            seed=options.seed,
            access=Access(_given(options, "api_key"), None if tls_ca is None else Path(tls_ca)),
            normal_batch=options.normal_batch,
            think_time_s=options.think_time,
            query_budget=options.query_budget,
            thief_batch=options.thief_batch,
            thief_pause_s=options.thief_pause,
            transfer_sets=Path(options.transfer_sets),
            thieves={attack: int(count or 0) for attack, count in counts.items()}
            if any(count is not None for count in counts.values())
            else None,
        )
        for name in ("normal_batch", "query_budget", "thief_batch"):
            if getattr(settings, name) < 1:
                option = name.replace("_", "-")
                raise InputError(f"--{option}: expected at least 1, got {getattr(settings, name)}")
        for name in ("think_time", "thief_pause"):
            if not 0 <= getattr(settings, f"{name}_s") < math.inf:
                option = name.replace("_", "-")
                raise InputError(f"--{option}: expected seconds, got {getattr(options, name)}")
        return settings


def _given(options: Namespace, name: str) -> Any:
    """Return an option, None where it was not given; the web page then says ''."""
    value = getattr(options, name)
    return None if value == "" else value


def add_options(parser: LocustArgumentParser, **_: Any) -> None:
    """Add ours to Locust's; plain types only, because a master sends them to its workers."""
    group = parser.add_argument_group("Model stealing")

    def add(name: str, text: str, **more: Any) -> None:
        shown = more.pop("include_in_web_ui", True)
        action = group.add_argument(name, help=text, **more)
        # Arguments of a group pass by the method of Locust's parser that sets these.
        action.include_in_web_ui = shown
        action.is_secret = name == "--api-key"
        action.is_required = action.is_multiple = False

    add("--model", "Name of the model to ask. Default digits", default="digits")
    add("--data", "Data set that normal users and thieves draw from. Default digits",
        default="digits")  # fmt: skip
    add("--data-dir", "Folder of its files, as for reverse-sigmoid export", default=None)
    add(
        "--query-set",
        "An .npz file of rows of your own in place of --data: an array for each input "
        "of the model, by its name, and maybe features, what thieves learn from",
        default="",
    )
    add(
        "--test-set",
        "Such a file for the normal users. Default: one row in 5 of the query set",
        default="",
    )
    add("--output", "The output of the scores. Default: the only one of floats", default="")
    add("--split-seed", "Seed of the split that export made, its --seed. Default 0",
        type=int, default=0)  # fmt: skip
    add("--seed", "Seed of what the users draw. Default 0", type=int, default=0)
    add("--api-key", "Sent as x-api-key with every request", default=None,
        env_var="LOCUST_API_KEY")  # fmt: skip
    add("--tls-ca", "File of certificates to trust; with it, TLS is spoken", default=None)
    add("--normal-batch", "Rows per request of a normal user, at most. Default 4",
        type=int, default=4)  # fmt: skip
    add("--think-time", "Mean seconds between a normal user's requests. Default 1",
        type=float, default=1.0)  # fmt: skip
    add("--query-budget", "Rows that each thief asks about, then it stops. Default 300",
        type=int, default=300)  # fmt: skip
    add("--thief-batch", "Rows per request of a thief. Default 16", type=int, default=16)
    add("--thief-pause", "Seconds that a thief waits after each request. Default 0",
        type=float, default=0.0)  # fmt: skip
    add("--transfer-sets", "Folder of the thieves' transfer sets, one folder for each thief. "
        "Default transfer_sets", default="transfer_sets")  # fmt: skip
    for attack in THIEVES:
        add(f"--{attack}-thieves", f"How many of the users are {attack.title()}Thief; those of "
            "-u that are left are normal users. Default: by the classes' weights",
            type=int, default=None)  # fmt: skip
    add("--shape", "How the number of users changes over --run-time. Default: -u at rate -r. On "
        "the web page use --class-picker", choices=list(SHAPES), default=None,
        include_in_web_ui=False)  # fmt: skip

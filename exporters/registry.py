"""What people name, by its name."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from postprocess.errors import InputError

Named = TypeVar("Named")


class Registry(dict[str, Named]):
    """A dictionary that answers an unknown name with the names that it has."""

    def __init__(
        self, option: str, known: Mapping[str, Named], *, also: Sequence[str] = ()
    ) -> None:
        """Hold what is known.

        Args:
            option: with which people choose; it begins the message.
            known: what there is to choose from.
            also: what may be said besides and is nobody's name here.
        """
        super().__init__(known)
        self._option, self._also = option, also

    def __missing__(self, name: str) -> Named:
        known = ", ".join((*self, *self._also))
        raise InputError(f"{self._option}: expected {known}, got {name!r}")

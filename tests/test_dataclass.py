"""Our `dataclass` beside the standard library's: what it leaves out is compiling, and nothing that the program relies on."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kata_node_agent.dataclass import dataclass

MAKERS: list[Callable[..., Any]] = [dataclass, dataclasses.dataclass]


def made_by(maker: Callable[..., Any], **options: bool) -> Any:
    @maker(**options)
    class Size:
        """A value."""

        base: int
        plugged: int = 0
        names: tuple[str, ...] = dataclasses.field(default_factory=tuple)

    return Size


OURS, THEIRS = (made_by(maker, frozen=True, slots=True) for maker in MAKERS)
VALUES = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.lists(st.sampled_from("ab"), max_size=2).map(tuple)
)


@given(VALUES, VALUES)
def test_compares_and_hashes_as_the_library_does(one: Any, other: Any) -> None:
    assert (OURS(*one) == OURS(*other)) == (THEIRS(*one) == THEIRS(*other))
    assert (OURS(*one) != OURS(*other)) == (THEIRS(*one) != THEIRS(*other))
    assert len({OURS(*one), OURS(*other)}) == len({THEIRS(*one), THEIRS(*other)})


def test_shows_itself_as_the_library_does() -> None:
    assert repr(OURS(1, names=("a",))) == repr(THEIRS(1, names=("a",)))
    assert repr(OURS(1)).endswith("Size(base=1, plugged=0, names=())")


def test_is_equal_to_no_other_kind() -> None:
    assert OURS(1) != THEIRS(1)
    assert OURS(1) != (1, 0, ())


def test_is_a_dataclass_for_the_library() -> None:
    value: Any = OURS(1, 2)
    assert [field.name for field in dataclasses.fields(value)] == ["base", "plugged", "names"]
    assert dataclasses.replace(value, plugged=3) == OURS(1, 3)
    assert dataclasses.asdict(value) == {"base": 1, "plugged": 2, "names": ()}


def test_has_no_room_for_other_attributes() -> None:
    with pytest.raises(AttributeError):
        OURS(1).other = 2


@pytest.mark.parametrize("maker", MAKERS)
def test_what_may_change_cannot_be_hashed(maker: Callable[..., Any]) -> None:
    kind = made_by(maker, slots=True)
    value = kind(1)
    value.plugged = 5
    assert value == kind(1, 5)
    with pytest.raises(TypeError):
        hash(value)


@dataclass(frozen=True)
class Name:
    """With a field that does not tell one from another."""

    text: str
    origin: str = dataclasses.field(default="", compare=False, repr=False)


@dataclass(frozen=True)
class Loud(Name):
    """Says itself how it is shown and compared."""

    volume: int = 1

    def __repr__(self) -> str:
        return "loud"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loud)

    def __hash__(self) -> int:
        return 7


def test_a_field_may_be_left_out() -> None:
    assert Name("a", "here") == Name("a", "there")
    assert hash(Name("a", "here")) == hash(Name("a", "there"))
    assert repr(Name("a", "here")) == "Name(text='a')"


def test_what_a_class_says_itself_stays() -> None:
    assert repr(Loud("a")) == "loud"
    assert Loud("a") == Loud("b")
    assert hash(Loud("a")) == 7
    assert Loud("a") != Name("a")


@dataclass(frozen=True)
class One:
    """A value with a single field."""

    value: int


@dataclass
class Nothing:
    """A value with none."""


def test_one_field_and_none() -> None:
    assert One(1) == One(1)
    assert One(1) != One(2)
    assert len({One(1), One(1)}) == 1
    assert Nothing() == Nothing()
    assert repr(Nothing()) == "Nothing()"

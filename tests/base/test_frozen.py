"""Values whose methods are written at their first use: like those of the standard decorator in all that shows."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
import re
import sys
from dataclasses import KW_ONLY, FrozenInstanceError, field
from typing import ClassVar, get_type_hints

import pytest

from funcpipe_trio import Backoff, FairShare, RateLimit, Retry
from funcpipe_trio._base.frozen import dataclass


@dataclass(frozen=True, slots=True)
class Late:
    """Fields of all kinds."""

    first: int
    secret: str = field(default="s", repr=False, hash=False)
    tags: list[int] = field(default_factory=list, hash=False)
    ignored: int = field(default=0, compare=False)
    _: KW_ONLY
    last: float = 1.0

    def __post_init__(self) -> None:
        if self.first < 0:
            raise ValueError("first must be >= 0")


@dataclass(frozen=True, slots=True)
class Later(Late):
    """One field more."""

    more: int = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Standard:
    """The same fields, by the standard decorator."""

    first: int
    secret: str = field(default="s", repr=False, hash=False)
    tags: list[int] = field(default_factory=list, hash=False)
    ignored: int = field(default=0, compare=False)
    _: KW_ONLY
    last: float = 1.0


def test_signature_and_text_are_the_standard_ones():
    """Catches a stand-in that is shown instead of the method, and a field that lost one of its settings."""
    assert inspect.signature(Late) == inspect.signature(Standard)
    assert repr(Late(3, last=2.0)) == repr(Standard(3, last=2.0)).replace("Standard", "Late")


def anew(decorator):
    """Make a class whose fields are read, and its methods written, in the test that asks: nobody saw it before."""

    @decorator(frozen=True, slots=True)
    class Anew:
        """A type that only this file knows, and fields of both kinds behind the mark of keywords."""

        first: KnownHere
        second: int = 2
        _: KW_ONLY
        last: float = 1.0
        tags: list[int] = field(default_factory=list)

        def __post_init__(self) -> None:
            if not self.first:
                raise ValueError("first must be true")

    return Anew


class KnownHere(int):
    """A type of a field."""


def test_fields_are_the_standard_ones():
    """Catches a mark of keywords that is overlooked, and a field without a default that gets one."""

    def facts(cls):
        return [(each.name, each.default, each.kw_only) for each in dataclasses.fields(cls)]

    assert facts(anew(dataclass)) == facts(anew(dataclasses.dataclass))
    assert inspect.signature(anew(dataclass)) == inspect.signature(anew(dataclasses.dataclass))


def test_what_a_class_says_of_its_methods_is_the_standard():
    """Catches facts of the hidden class that wrote one method only: `pprint` asks whether there is a `__repr__`."""
    mine, standard = (anew(each).__dataclass_params__ for each in (dataclass, dataclasses.dataclass))

    for name in ("init", "repr", "eq", "order", "unsafe_hash", "frozen"):
        assert getattr(mine, name) is getattr(standard, name)


def test_annotations_of_methods_mean_what_they_do_in_the_class():
    """Catches a method of a hidden class in `frozen.py`, which knows none of their names."""
    mine, standard = anew(dataclass), anew(dataclasses.dataclass)

    assert get_type_hints(mine.__init__) == get_type_hints(standard.__init__)
    assert get_type_hints(mine.__init__)["first"] is KnownHere


def test_equality_and_hash_are_the_standard_ones():
    """Equal if of one class and equal in what is compared; what has no hash is left out of it."""
    assert Late(1, ignored=1) == Late(1, ignored=2)
    assert Late(1) != Late(2)
    assert Late(1) != Later(1)
    assert hash(Late(1, tags=[1])) == hash(Late(1, tags=[2])) == hash(Standard(1))


def test_first_use_of_a_subclass_may_come_before_that_of_its_base():
    """Catches a method that is written for the class that was asked, with the fields of the one that it is in."""

    @dataclass(frozen=True, slots=True)
    class Base:
        """One field."""

        one: int

    @dataclass(frozen=True, slots=True)
    class Derived(Base):
        """Two fields."""

        two: int = 2

    assert Derived(1) == Derived(1, 2)
    assert repr(Derived(1)).endswith("Derived(one=1, two=2)")
    assert repr(Base(1)).endswith("Base(one=1)")


def test_what_is_no_field_is_none_and_what_is_said_again_keeps_its_place():
    """Catches a ClassVar or the mark of keywords taken for a field, and fields in the order of the classes alone."""

    @dataclass(frozen=True, slots=True)
    class Again(Late):
        """Another default for a field of the base."""

        verb: ClassVar[str] = "again"
        tags: list[int] = field(default_factory=lambda: [7], hash=False)

    assert [each.name for each in dataclasses.fields(Again)] == ["first", "secret", "tags", "ignored", "last"]
    assert (Again(1).tags, Late(1).tags, Again.verb) == ([7], [], "again")
    assert Again.__match_args__ == ("first", "secret", "tags", "ignored")  # type: ignore[attr-defined]


def test_a_class_without_fields():
    """Its objects are all equal; it takes no arguments, and one without fields may stand above one with them."""

    @dataclass(frozen=True, slots=True)
    class Bare:
        """No fields."""

    @dataclass(frozen=True, slots=True)
    class Clad(Bare):
        """One field."""

        one: int

    assert Bare() == Bare() != Clad(1)
    assert hash(Bare()) == hash(Bare())
    assert (repr(Bare())[-6:], repr(Clad(1))[-11:]) == ("Bare()", "Clad(one=1)")
    with pytest.raises(TypeError, match=r"takes no arguments$"):
        Bare(1)  # type: ignore[call-arg]


def test_a_plain_subclass_has_the_methods():
    """A class that inherits without decoration asks for what its base has not written yet."""

    class Plain(Late):
        pass

    assert Plain(4).first == 4
    assert repr(Plain(4)).endswith("Plain(first=4, tags=[], ignored=0, last=1.0)")


def test_a_first_use_by_super_is_that_of_the_base():
    """Catches a method of a user's subclass that is called once more, by the stand-in which it asks by `super()`."""

    @dataclass(frozen=True, slots=True)
    class Base:
        """One field."""

        one: int

    class Own(Base):
        def __init__(self) -> None:
            super().__init__(7)

        def __repr__(self) -> str:
            return f"own {super().__repr__()}"

    assert Own().one == 7
    assert repr(Own()).count("own ") == 1


def test_a_first_signature_is_that_of_the_second():
    """Catches a stand-in that gives the function where its method is asked for, as `inspect` does since 3.13."""

    @dataclass(frozen=True, slots=True)
    class Fresh:
        """One field."""

        one: int

    assert list(inspect.signature(Fresh).parameters) == list(inspect.signature(Fresh).parameters) == ["one"]


def test_a_plain_subclass_may_keep_more_but_not_change_the_fields():
    """As with the standard decorator: frozen is what is decorated."""

    class Plain(Late):
        extra: str

    plain = Plain(1)
    plain.extra = "more"
    assert plain.extra == "more"
    del plain.extra
    with pytest.raises(FrozenInstanceError, match=r"^cannot assign to field 'first'$"):
        plain.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match=r"^cannot delete field 'first'$"):
        del plain.first  # type: ignore[misc]


def test_printed_prettily_as_ever():
    """Catches a class that says that it has no `__repr__` of its own, which `pprint` then does not break in lines."""
    pretty = pprint.pformat(Late(3), width=20)
    assert pretty.count("\n") == pprint.pformat(Standard(3), width=20).count("\n") > 0


def test_nothing_can_be_assigned_or_deleted():
    """A field or not: the standard decorator refuses by the same words what slots would."""
    value = Late(1)

    with pytest.raises(FrozenInstanceError, match=r"^cannot assign to field 'first'$"):
        value.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match=r"^cannot delete field 'first'$"):
        del value.first  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError, match=r"^cannot assign to field 'other'$"):
        value.other = 2  # type: ignore[attr-defined]


def test_post_init_is_called():
    with pytest.raises(ValueError, match=r"^first must be >= 0$"):
        Late(-1)
    with pytest.raises(ValueError, match=r"^first must be true$"):
        anew(dataclass)(0)


@pytest.mark.parametrize(
    "value",
    [Late(3, "x", [1], 2, last=4.0), Later(1), RateLimit(2), Retry(attempts=2, backoff=Backoff()), FairShare({"a": 2})],
    ids=lambda value: type(value).__name__,
)
def test_copied_pickled_and_replaced(value: object):
    """Catches state that is put back by assignment, which is refused."""
    assert copy.copy(value) == value
    assert copy.deepcopy(value) == value
    assert pickle.loads(pickle.dumps(value)) == value
    assert dataclasses.replace(value) == value  # type: ignore[type-var]
    if sys.version_info >= (3, 13):
        assert copy.replace(value) == value  # type: ignore[type-var]


def test_state_of_another_number_of_fields_is_refused():
    """A pickle of another version: catches a value that is there by half."""
    with pytest.raises(ValueError, match=r"shorter than"):
        Late(1).__setstate__([1])  # type: ignore[attr-defined]


def test_replaced_by_the_method_that_later_pythons_call():
    """As by `dataclasses.replace`, in each Python."""
    assert Late(1, "x").__replace__(first=2) == Late(2, "x")  # type: ignore[attr-defined]


def test_matches_by_position():
    match Late(7):
        case Late(first, secret):
            assert (first, secret) == (7, "s")


def test_wrong_arguments_read_as_ever():
    """The error of a call names the class as the standard one does."""
    with pytest.raises(TypeError, match=re.escape("missing 1 required positional argument: 'first'")):
        Late()  # type: ignore[call-arg]


def test_a_subclass_by_the_standard_decorator():
    """A user's own policy: the fields of both, checked as the base checks them, and frozen."""

    @dataclasses.dataclass(frozen=True)
    class Patient(Retry):
        """A Retry that knows more."""

        reason: str = ""

    patient = Patient(attempts=4, reason="slow start")
    assert (patient.attempts, patient.reason) == (4, "slow start")
    assert patient == Patient(attempts=4, reason="slow start") != Patient(attempts=4)
    assert dataclasses.replace(patient, attempts=5).attempts == 5
    with pytest.raises(dataclasses.FrozenInstanceError):
        patient.reason = "none"
    with pytest.raises(ValueError, match="attempts must be >= 1"):
        Patient(attempts=0)


class Outer:
    @dataclass(frozen=True, slots=True)
    class Inner:
        value: int


def test_a_class_within_another_can_be_pickled():
    """By its qualified name, as a standard one."""
    inner = Outer.Inner(3)

    assert pickle.loads(pickle.dumps(inner)) == inner
    assert Outer.Inner.__qualname__ == "Outer.Inner"


def test_methods_have_the_qualified_name_of_their_class():
    """As the standard ones: it stands in tracebacks."""

    @dataclass(frozen=True, slots=True)
    class Inner:
        value: int

    @dataclasses.dataclass(frozen=True, slots=True)
    class Standard:
        value: int

    assert Inner.__init__.__qualname__ == Standard.__init__.__qualname__.replace("Standard", "Inner")

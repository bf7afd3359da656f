"""Global variables: set before the load, read and written after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pytest_bpf.errors import MapError, UnknownNameError, ValueTypeError

if TYPE_CHECKING:
    from pytest_bpf.objects import Object
    from tests.conftest import Load

SOURCE = """
enum mode { OFF, ON };
struct settings { __u16 port; char name[8]; struct { __u8 low : 4, high : 4; }; };
const volatile int limit = 3;
const volatile struct settings fixed = { .port = 80 };
const volatile __u32 table[4] = { 1, 2, 3, 4 };
int counter = 5;
__u64 total;
bool ready;
enum mode mode = ON;
struct settings settings = { .port = 443, .name = "web" };
char text[16] = "hello";
static volatile int hidden = 7;
__u8 padding_before_the_next_page[5000];
__s64 far = -1;
int hot SEC(".data.hot") = 11;
int cold SEC(".bss.cold");
extern unsigned int LINUX_KERNEL_VERSION __kconfig;
SEC("raw_tp") int count(void *ctx) {
    counter += limit; total += table[2] + fixed.port; hidden++; hot++; cold--;
    settings.port++; far -= 1; ready = LINUX_KERNEL_VERSION > 0;
    return counter; }
"""


@pytest.fixture
def obj(load: Load) -> Object:
    return load(SOURCE)


def test_all_kinds_are_read(obj: Object) -> None:
    found = dict(obj.globals)
    assert found.pop("padding_before_the_next_page") == bytes(5000)
    assert found.pop("LINUX_KERNEL_VERSION") > 0
    assert found == {
        "limit": 3, "fixed": (80, "", 0, 0), "table": (1, 2, 3, 4), "counter": 5, "total": 0,
        "ready": False, "mode": 1, "settings": {"port": 443, "name": "web", "low": 0, "high": 0},
        "text": "hello", "hidden": 7, "far": -1, "hot": 11, "cold": 0,
    }  # fmt: skip
    assert found["mode"].name == "ON"
    assert len(obj.globals) == len(found) + 2
    assert "counter" in obj.globals
    assert "'counter': 5" in repr(obj.globals)


def test_the_program_and_the_test_share_them(obj: Object) -> None:
    values = obj.globals
    values.update(counter=100, total=2**63, text="bye", mode="OFF", far=-(2**63) + 1)
    values["settings"] = {"name": "exactly8", "high": 9}
    assert values["settings"] == (0, "exactly8", 0, 9)
    assert obj.programs["count"].test_run().retval == 103
    assert values["counter"] == 103
    assert values["total"] == 2**63 + 83
    assert values["settings"] == (1, "exactly8", 0, 9)
    assert (values["hidden"], values["hot"], values["cold"]) == (8, 12, -1)
    assert (values["ready"], values["text"], values["mode"]) == (True, "bye", 0)
    assert values["far"] == -(2**63)
    values["ready"] = False
    assert values["counter"] == 103


def test_values_for_the_load(load: Load) -> None:
    obj = load(
        SOURCE,
        globals={
            "limit": 10, "fixed": {"port": 8, "name": "set"}, "table": [9, 8, 7], "counter": -1,
            "far": 1, "mode": "OFF", "hot": 1, "cold": 2, "hidden": 3, "text": b"bytes",
        },
    )  # fmt: skip
    assert obj.programs["count"].test_run().retval == 9
    values = obj.globals
    assert values["table"] == (9, 8, 7, 0)
    assert (values["fixed"].port, values["fixed"].name, values["total"]) == (8, "set", 15)
    assert (values["hot"], values["cold"], values["hidden"], values["far"]) == (2, 1, 4, 0)
    assert load(SOURCE).globals["limit"] == 3


def test_refusals(load: Load, obj: Object) -> None:
    where = r"inline-[0-9a-f]+\.bpf\.c"
    with pytest.raises(UnknownNameError, match=f"^{where} has no global variable 'limti'; did you"):
        load(SOURCE, globals={"limti": 1})
    with pytest.raises(ValueTypeError, match="global 'limit': 2147483648 does not fit int"):
        load(SOURCE, globals={"limit": 2**31})
    with pytest.raises(
        ValueTypeError, match="global 'fixed': struct settings has no member 'prot'"
    ):
        load(SOURCE, globals={"fixed": {"prot": 1}})
    with pytest.raises(UnknownNameError, match="no global variable 'cuonter'; did you mean 'count"):
        obj.globals["cuonter"]
    with pytest.raises(UnknownNameError, match="no global variable 'none'"):
        obj.globals["none"] = 1
    with pytest.raises(ValueTypeError, match="global 'counter': int takes an int, not str 'x'"):
        obj.globals["counter"] = "x"
    with pytest.raises(ValueTypeError, match=r"17 bytes given, char\[16\] has 16"):
        obj.globals["text"] = "x" * 17
    for constant in ("limit", "LINUX_KERNEL_VERSION"):
        with pytest.raises(MapError, match=f"global '{constant}' is a constant once loaded"):
            obj.globals[constant] = 4
    with pytest.raises(MapError, match="global 'counter' cannot be deleted"):
        del obj.globals["counter"]


def test_sections_that_cannot_be_mapped(obj: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    """As before 5.5."""
    monkeypatch.setattr("pytest_bpf.objects.maps.globals.MapFlags", SimpleNamespace(MMAPABLE=0))
    obj.globals["hidden"] = 70
    obj.globals["text"] = "other"
    assert (obj.globals["hidden"], obj.globals["counter"], obj.globals["text"]) == (70, 5, "other")
    assert obj.programs["count"].test_run().retval == 8
    assert (obj.globals["hidden"], obj.globals["counter"]) == (71, 8)


def test_after_the_object_is_closed(obj: Object) -> None:
    assert obj.globals["counter"] == 5
    obj.close()
    for name in ("counter", "limit", "hot"):
        with pytest.raises(MapError, match="is gone: its object was closed"):
            obj.globals[name]
    with pytest.raises(MapError, match="is gone: its object was closed"):
        obj.globals["counter"] = 1


def test_objects_have_their_own(load: Load) -> None:
    one, other = load(SOURCE), load(SOURCE)
    one.globals["counter"] = 50
    assert other.globals["counter"] == 5
    assert set(one.maps) == set()

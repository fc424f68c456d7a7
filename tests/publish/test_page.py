"""The page as it is made of documents: its words, its bars, and what hostile ones do to it. No host, no browser."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kata_node_agent.pb import agent_pb2 as pb
from kata_node_agent.publish.page import HEADERS, Content, refresh_seconds, render
from tests.publish.page_content import (
    EMPTY,
    GIB,
    NOW,
    charge,
    check,
    content,
    decision,
    report,
    risk,
    sandbox,
    sandboxes,
    status,
    verdict,
)

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title></style></section><base href=//evil.example>",
    "<!--",
    "&lt;b&gt;&#x202e;&amp",
    "a\u202eb\u2066c\u200fd",
    "\x00\x1b[2J\r\nX-Header: 1\ud800",
    "Z" + "\u0308\u0302" * 400,
    "x" * 10_240,
    "`",
)
_EMPTY_ELEMENTS = {"meta", "link", "wbr"}


@dataclass
class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and the words of each section."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)
    sections: dict[str, str] = field(default_factory=dict)
    words: str = ""
    title: str = ""
    _section: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag not in _EMPTY_ELEMENTS:
            self.open.append(tag)
        if tag == "section":
            self._section = attributes["aria-labelledby"]
            self.sections[self._section] = ""
        if tag in {"p", "li", "h2", "h3", "tr", "div", "dd", "summary"}:
            self.handle_data("\n")
        elif tag in {"td", "dt"}:
            self.handle_data(" ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "section":
            self._section = ""

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words += data
        if "title" in self.open:
            self.title += data
        if self._section:
            self.sections[self._section] += data

    def lines(self, section: str) -> list[str]:
        """The words of a section, a line for each paragraph, cell row and entry."""
        lines = (re.sub(r"\s+", " ", line).strip() for line in self.sections[section].split("\n"))
        return [line for line in lines if line]

    def all(self, tag: str, class_: str | None = None) -> list[dict[str, str]]:
        return [a for name, a in self.elements if name == tag and class_ in {None, a.get("class")}]

    @property
    def shape(self) -> list[tuple[str, tuple[str, ...]]]:
        """Elements and names of attributes, without any value; where a word may be broken is none of it."""
        return [(name, tuple(attributes)) for name, attributes in self.elements if name != "wbr"]


def read(page: Content) -> Page:
    parsed = Page()
    parsed.feed(render(page))
    parsed.close()
    assert parsed.open == []
    return parsed


def drawn(page: Page, section: str) -> list[tuple[str, str, str]]:
    """Parts of the first bar of a section: class, from, wide."""
    at = next(i for i, (_, a) in enumerate(page.elements) if a.get("aria-labelledby") == section)
    bar = next(i for i in range(at, len(page.elements)) if page.elements[i][1].get("class") == "bar")
    found = []
    for name, attributes in page.elements[bar + 1 :]:
        if name not in {"rect", "line"}:
            break
        found.append(
            (attributes["class"], attributes.get("x", attributes.get("x1", "")), attributes.get("width", ""))
        )
    return found


def test_the_memory_of_a_node_is_one_bar_in_words_and_in_numbers() -> None:
    page = read(content())
    assert page.lines("memory") == [
        "Memory",
        "30Gi may be requested by pods (allocatable)",
        "4Gi promised to VMs 13 %",
        "6Gi claimed by other pods 20 %",
        "20Gi free 67 %",
        "Of what is free, VMs may have 18Gi: available_memory limits them.",
        "What may be promised to VMs, by each limit",
        "limitfor VMspromisedfree",
        "available_memory limits 22Gi 4Gi 18Gi",
        "allocatable_memory 24Gi 4Gi 20Gi",
        "How allocatable comes about",
        "Memory of the node",
        "partamount",
        "capacity 32Gi",
        "− system-reserved 1.9Gi",
        "− kube-reserved 0",
        "− eviction threshold 100Mi",
        "= allocatable 30Gi",
        "in use by the system 1Gi",
        "until kubelet evicts 25Gi",
    ]
    assert drawn(page, "memory") == [
        ("own", "0.00%", "13.33%"),
        ("other", "13.33%", "20.00%"),
        ("room", "33.33%", "66.67%"),
    ]


def account(committed: int, others: int, budget: int, **more: Any) -> pb.Status:
    term = pb.Term(
        name="allocatable_memory",
        budget_bytes=budget,
        committed_bytes=committed,
        free_bytes=budget - committed,
    )
    values = {"limited_by": "allocatable_memory", "other_pods_bytes": others, "share": 1.0, **more}
    return status(account=pb.Account(terms=[term], free_bytes=max(0, budget - committed), **values))


def test_more_promised_than_there_is_says_how_much_and_shows_where_it_ends() -> None:
    page = read(content(status=account(30 * GIB, 10 * GIB, 20 * GIB)))
    assert (
        "10Gi more is promised and claimed than there is; the line in the bar is where it ends."
        in page.lines("memory")
    )
    parts = drawn(page, "memory")
    assert [part[0] for part in parts] == ["own", "other", "edge", "mark"]
    assert parts[0][2] == parts[3][1] == "75.00%"
    assert "0 free 0 %" in page.lines("memory")


def test_what_others_left_a_moment_ago_is_not_free_yet() -> None:
    page = read(content(status=account(4 * GIB, 6 * GIB, 20 * GIB)))
    assert "4Gi held back: others left it a moment ago 13 %" in page.lines("memory")
    assert "16Gi free 53 %" in page.lines("memory")


def test_a_share_above_one_makes_the_bar_longer_and_says_so() -> None:
    page = read(content(status=account(4 * GIB, 6 * GIB, 39 * GIB, share=1.5)))
    assert "45Gi may be promised: 30Gi allocatable × 1.5" in page.lines("memory")
    assert drawn(page, "memory")[0] == ("own", "0.00%", "8.89%")


def test_a_sandbox_has_a_bar_of_what_is_resident_of_its_size_and_a_line_where_the_kernel_kills() -> None:
    big = sandbox(1, vm_memory_bytes=8 * GIB, resident_bytes=2 * GIB, hotplugged_bytes=6 * GIB, charge=charge(6 * GIB),
                  risks=[risk(), risk("EvictedFirst", "it uses more than it requests")])  # fmt: skip
    page = read(content(sandboxes=sandboxes(sandbox(2), big)))
    lines = page.lines("sandboxes")
    assert lines[1] == "2 VMs: 10Gi nominal, 2.7Gi resident, 1 at risk."
    assert "limit of its control group: there the kernel kills" in lines
    at = lines.index("default/web-1")
    assert (
        lines[at + 1]
        == "2Gi resident of 8Gi nominal (6Gi hotplugged), 8.1Gi promised, limit 6Gi · kata · qemu"
    )
    assert lines[at + 2] == "⚠ CgroupLimitBelowVm ⚠ EvictedFirst"
    bars = [i for i, (_, a) in enumerate(page.elements) if a.get("class") == "bar"]
    at = next(i for i in bars if page.elements[i + 1][1].get("width") == "25.00%")
    parts = [(a["class"], a.get("width", a.get("x1"))) for _, a in page.elements[at + 1 : at + 5]]
    assert parts == [("used", "25.00%"), ("vm", "75.00%"), ("edge", "75.00%"), ("mark", "75.00%")]


def test_a_risk_that_many_have_is_told_once_with_its_remedy() -> None:
    many = [sandbox(number, risks=[risk()]) for number in range(3)]
    lines = read(content(sandboxes=sandboxes(*many))).lines("sandboxes")
    at = lines.index("CgroupLimitBelowVm")
    assert (
        lines[at + 1] == "default/web-0, and 2 more: the kernel kills the VM 1.7Gi before the guest is full"
    )
    assert lines[at + 2] == "Remedy: raise overhead.podFixed by 1756Mi"
    assert lines.count("CgroupLimitBelowVm") == 1


def test_those_at_risk_come_first_then_the_largest_then_a_table() -> None:
    many = [sandbox(number, commitment_bytes=number * GIB, pod=f"ns/p{number}") for number in range(1, 41)]
    many[2]["risks"] = [risk()]
    page = read(content(sandboxes=sandboxes(*many)))
    lines = page.lines("sandboxes")
    names = [line for line in lines if line.startswith("ns/p")]
    assert names[:11] == [
        "ns/p3",
        *(f"ns/p{number}" for number in range(40, 31, -1)),
        "ns/p31 kata 2Gi 682.7Mi 31Gi –",
    ]
    assert "30 more" in lines


def test_a_page_of_two_thousand_sandboxes_with_long_names_is_bounded_and_says_what_is_left_out() -> None:
    many = [sandbox(number, pod="n/" + '"' * 10_240, risks=[risk()]) for number in range(2000)]
    text = render(content(sandboxes=sandboxes(*many)))
    assert len(text.encode()) < 1 << 20
    assert "1490 more are not shown; all of them: <code>kata-node-agent sandboxes</code>" in text


def test_problems_are_first_each_with_its_remedy() -> None:
    problem = pb.Problem(
        reason="PodFixedTooLow", message="it is 256Mi", remedy="see `kata-node-agent advise` for more"
    )
    page = read(content(status=status(problems=[problem])))
    assert page.lines("problems") == [
        "Problems",
        "PodFixedTooLow",
        "it is 256Mi",
        "Remedy: see kata-node-agent advise for more",
    ]
    assert ("code", {}) in page.elements
    assert list(page.sections)[:3] == ["verdict", "problems", "at-a-glance"]
    assert page.title == "✓ eligible, 1 problem – worker-3 – kata-node-agent"


def test_no_problem_is_said_too() -> None:
    assert read(content()).lines("problems") == ["Problems", "✓ No problems"]


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("eligible", "✓ Eligible: this node can run Kata VMs"),
        ("ineligible", "✗ Not eligible: this node can not run Kata VMs"),
        ("unknown", "? It could not be told whether this node can run Kata VMs"),
        ("nonsense", "? It could not be told whether this node can run Kata VMs"),
    ],
)
def test_the_verdict_is_a_sentence_and_a_sign(word: str, sentence: str) -> None:
    page = read(content(status=status(verdict=word)))
    assert page.lines("verdict")[:2] == [sentence, "by profile openshift, for 2h 5m"]


def test_what_the_agent_is_set_to_and_who_asks_it_stand_with_the_verdict() -> None:
    closed = pb.Account(closed_by="draining")
    page = read(
        content(
            status=status(mode="warn", account=closed, kubelet=pb.Kubelet(), nri=pb.Nri(state="no socket"))
        )
    )
    assert (
        page.lines("verdict")[2]
        == "mode warn closed to new VMs: draining kubelet: not registered runtime: no socket"
    )
    page = read(content(status=status(kubelet=pb.Kubelet(registered=True))))
    assert page.lines("verdict")[2] == "mode enforce kubelet: registered, no stream runtime: cri-o v1.33.4"


def test_checks_that_fail_come_first_with_their_remedy_and_the_others_on_demand() -> None:
    found = verdict(
        check("arch"),
        check("vhost.net", "warn", required=False, message="no /dev/vhost-net", remedy="modprobe vhost_net"),
        check("shm.ceiling", "unknown", required=False, message="not read"),
        check("kvm.open", "unknown", message="no permission", remedy="run as root"),
        check("kvm.device", "fail", message="no /dev/kvm", remedy="load kvm_intel"),
        check("cpu.sse4", "skip"),
        word="ineligible",
    )
    assert read(content(verdict=found)).lines("checks") == [
        "Checks",
        "1 of 6 hold",
        *("✗ kvm.device fails, required", "no /dev/kvm", "Remedy: load kvm_intel"),
        *("? kvm.open not known, required", "no permission", "Remedy: run as root"),
        *("⚠ vhost.net warning", "no /dev/vhost-net", "Remedy: modprobe vhost_net"),
        *("1 not required, and not known", "? shm.ceiling not known", "not read"),
        *(
            "2 that hold or are not asked",
            "✓ arch holds",
            "it is there",
            "– cpu.sse4 not asked",
            "it is there",
        ),
    ]


def test_slots_are_cells_while_they_are_few_and_a_share_when_they_are_many() -> None:
    page = read(content())
    kinds = [kind for kind, _, _ in drawn(page, "slots") if kind != "gap"]
    assert kinds == ["own"] * 2 + ["room"] * 9 + ["shut"] * 3
    assert page.lines("slots")[1:5] == [
        "katacontainers.io/sandbox",
        "2 in use",
        "9 free",
        "3 can not be used now",
    ]
    many = read(content(status=status(slots=pb.Slots(total=1000, healthy=600, in_use=200))))
    assert drawn(many, "slots") == [
        ("own", "0.00%", "20.00%"),
        ("room", "20.00%", "40.00%"),
        ("shut", "60.00%", "40.00%"),
    ]


def test_decisions_are_newest_first_with_reason_and_remedy() -> None:
    refused = decision(allowed=False, pod="ml/big", remedy="end other pods", message="it needs 9Gi")
    late = decision(would_refuse=True, pod="")
    late.unix_seconds -= 86400
    lines = read(content(decisions=[late, decision(), refused])).lines("last-decisions")
    assert lines == [
        "Last decisions",
        *("07:59:00 admit refused ml/big", "NotEnoughMemory: it needs 9Gi", "Remedy: end other pods"),
        *("07:59:00 admit yes default/web-1", "Fits: it needs 2.1Gi; 18Gi are free"),
        *("2027-01-14 07:59:00 admit would refuse 5a5a5a5a5a5a", "Fits: it needs 2.1Gi; 18Gi are free"),
    ]


def test_no_more_than_the_last_twenty_are_shown() -> None:
    changes = [pb.Change(unix_seconds=NOW, what="devices", message=f"change {n}") for n in range(100)]
    page = read(
        content(decisions=[decision(pod=f"ns/d{n}") for n in range(100)], status=status(history=changes))
    )
    assert [line for line in page.lines("last-changes") if line.startswith("change")] == [
        f"change {n}" for n in range(99, 79, -1)
    ]
    assert sum("ns/d" in line for line in page.lines("last-decisions")) == 20


def test_findings_of_the_report_that_are_problems_stand_with_the_memory() -> None:
    found = [
        {
            "reason": "SystemReservedExceeded",
            "message": "the system uses 2Gi",
            "remedy": "reserve 3Gi",
            "problem": True,
        },
        {"reason": "Oddity", "message": "worth knowing", "remedy": "", "problem": False},
    ]
    lines = read(content(report=report(findings=found))).lines("memory")
    assert lines[-3:] == ["SystemReservedExceeded", "the system uses 2Gi", "Remedy: reserve 3Gi"]
    assert not any("Oddity" in line for line in lines)


def test_an_agent_that_does_not_answer_itself_is_a_page_too() -> None:
    page = read(EMPTY)
    assert "its loop is stuck" in page.lines("verdict")[1]
    assert page.lines("memory") == ["Memory", "How much memory pods may have is not known yet."]
    assert page.lines("sandboxes") == ["Sandboxes", "Which VMs run could not be read."]
    assert page.lines("checks") == ["Checks", "No check has been made yet."]
    assert page.lines("last-decisions") == ["Last decisions", "The ledger could not be read."]


def test_an_agent_that_has_seen_nothing_yet_invents_no_number() -> None:
    page = read(
        Content(
            "worker-3",
            NOW,
            status=pb.Status(verdict="unknown", mode="enforce"),
            sandboxes=sandboxes(),
            decisions=[],
        )
    )
    assert page.lines("verdict")[1] == "The node has not been looked at yet."
    assert page.lines("at-a-glance")[1:] == [
        *("slots healthy", "0 of 0 0 in use"),
        *("free for VMs", "not known"),
        *("promised to VMs", "not known to 0 VMs and 0 devices"),
        *("Kata VMs run", "0"),
    ]  # fmt: skip
    assert page.lines("sandboxes") == ["Sandboxes", "No Kata VM runs here."]
    assert page.lines("last-decisions") == ["Last decisions", "Nothing was decided since the boot."]


def test_what_is_not_known_of_a_node_or_a_vm_is_said_to_be_unknown() -> None:
    nothing = report(
        capacity={"memory_bytes": None, "hugepages_bytes": None},
        usage={"system": None},
        available={"until_eviction_bytes": None},
        eviction_hard={"memory_available_bytes": None},
    )
    blank = sandbox(1, pod=None, handler=None, resident_bytes=None, id="ab" * 32)
    page = read(content(report=nothing, sandboxes=sandboxes(blank)))
    assert "capacity not known" in page.lines("memory")
    assert "not known resident of 2Gi nominal, 2.1Gi promised · handler not known · qemu" in page.lines(
        "sandboxes"
    )
    assert "abababababab" in page.lines("sandboxes")


def test_vms_that_are_not_followed_are_no_vms_that_could_not_be_read() -> None:
    assert (
        read(content(sandboxes=None, followed=False)).lines("sandboxes")[1]
        == "VMs are not followed: sandbox.follow is false."
    )


def test_what_could_not_be_read_is_said_and_the_rest_stands() -> None:
    page = read(content(report=None, unreadable=["HostUnreadable: /proc/meminfo: gone"]))
    assert page.lines("could-not-be-read") == ["Could not be read", "HostUnreadable: /proc/meminfo: gone"]
    assert "30Gi may be requested by pods (allocatable)" in page.lines("memory")


def test_a_process_that_only_claims_to_be_a_sandbox_is_named_as_such() -> None:
    claims = [
        {"pid": 7, "claim": "<b>sandbox-x", "why": "no evidence"},
        {"pid": 8, "claim": "y", "why": "no"},
    ]
    lines = read(content(sandboxes=sandboxes(unbelieved=claims, problems=["/proc/9: gone"]))).lines(
        "sandboxes"
    )
    assert lines[-2:] == [
        "Not believed: process 7 claims to be <b>sandbox-x (no evidence), and 1 more.",
        "Could not be read: /proc/9: gone",
    ]


def everywhere(text: str) -> Content:
    """A page of which every word that is not ours is this one."""
    problem = pb.Problem(reason=text, message=text, remedy=text)
    one = sandbox(
        1,
        pod=text,
        handler=text,
        vmm=text,
        id=text,
        risks=[{"reason": text, "message": text, "remedy": text}],
    )
    noted = decision(allowed=False, pod=text, reason=text, message=text, remedy=text)
    noted.what = noted.sandbox = text
    return Content(
        node=text,
        unix_seconds=NOW,
        status=status(
            problems=[problem],
            profile=text,
            mode=text,
            resource=text,
            version=text,
            verdict=text,
            slots=pb.Slots(total=2, healthy=1, in_use=1, limited_by=text, limited_by_message=text),
            nri=pb.Nri(state=text, runtime=text, connected=True),
            history=[pb.Change(unix_seconds=NOW, what=text, message=text)],
            account=pb.Account(
                limited_by=text, closed_by=text, terms=[pb.Term(name=text, budget_bytes=1, free_bytes=1)]
            ),
        ),
        verdict=verdict(check(text, "fail", message=text, remedy=text), check(text)),
        report=report(findings=[{"reason": text, "message": text, "remedy": text, "problem": True}]),
        sandboxes=sandboxes(
            one,
            *(sandbox(number, pod=text, handler=text) for number in range(2, 20)),
            unbelieved=[{"pid": 1, "claim": text, "why": text}],
            problems=[text],
        ),
        decisions=[noted],
        unreadable=[text],
    )  # fmt: skip


def encodable(text: str) -> str:
    """As protobuf takes it."""
    return text.encode("utf-8", "replace").decode()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_words_and_nothing_else(text: str) -> None:
    page = read(everywhere(encodable(text)))
    assert page.shape == read(everywhere("x")).shape
    for name, attributes in page.elements:
        assert name not in {"script", "img", "base", "iframe", "object", "embed", "form"}
        assert not any(key.startswith("on") or key == "style" for key in attributes)
        assert (
            attributes.get("href", "./") in {"./", "?refresh=10", "?refresh=60", "metrics"} or name == "link"
        )
    # Nothing that turns the direction of writing, or that a terminal or a browser would act upon.
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", page.words
    )
    assert len(render(everywhere(encodable(text)))) < 300_000


@settings(max_examples=60)
@given(st.text(min_size=1, max_size=60).filter(lambda text: "`" not in text))
def test_no_text_changes_what_the_page_is_made_of(text: str) -> None:
    assert read(everywhere(encodable(text))).shape == read(everywhere("x")).shape


def test_names_in_another_direction_of_writing_do_not_turn_what_stands_beside_them() -> None:
    text = render(content(sandboxes=sandboxes(sandbox(1, pod="ns/שלום"))))
    assert "<bdi>ns/שלום</bdi>" in text


def test_the_browser_is_told_to_fetch_and_to_run_nothing() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["Content-Security-Policy"].split("; "))
    text = render(content())
    (style,) = re.findall("<style>(.*?)</style>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert "unsafe" not in HEADERS["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("query", "seconds"),
    [
        ("", None),
        ("refresh=30", 30),
        ("refresh=0", 5),
        ("refresh=9999", 3600),
        ("refresh=99999", None),
        ("a=1&refresh=10&b=2", 10),
        ("norefresh=10", None),
        ("refresh=-1", None),
        ("refresh=10;url=//evil.example", None),
        ("refresh=١", None),
    ],
)
def test_the_page_renews_itself_only_as_its_address_asks_and_within_bounds(
    query: str, seconds: int | None
) -> None:
    assert refresh_seconds(query) == seconds
    page = read(content(refresh_seconds=seconds))
    asked = [a["content"] for a in page.all("meta") if a.get("http-equiv") == "refresh"]
    assert asked == ([] if seconds is None else [str(seconds)])
    current = [attributes["href"] for attributes in page.all("a") if "aria-current" in attributes]
    assert current == ["./" if seconds is None else f"?refresh={seconds}"]


def test_headings_go_down_one_step_at_a_time_and_every_part_has_one() -> None:
    page = read(
        content(
            status=status(problems=[pb.Problem(reason="A", message="b")]),
            sandboxes=sandboxes(sandbox(1, risks=[risk()])),
        )
    )
    levels = [int(name[1]) for name, _ in page.elements if re.fullmatch("h[1-6]", name)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["aria-labelledby"] for a in page.all("section")} <= set(ids)
    assert len(page.all("table")) == len(page.all("caption"))
    assert all(a.get("aria-hidden") == "true" for a in page.all("svg"))


def test_a_moment_that_no_calendar_has_is_unknown() -> None:
    odd = status(history=[pb.Change(unix_seconds=float("inf"), what="devices", message="m")])
    assert read(content(status=odd)).lines("last-changes")[1] == "not known devices"

"""Our writer beside the library's."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from kata_node_agent.publish.exposition import (
    OPENMETRICS,
    TEXT,
    accepts_gzip,
    chosen_format,
    compressed,
    write,
)
from kata_node_agent.publish.families import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

TEXTS = st.text(st.characters(blacklist_categories=["Cs"]), max_size=8)
NUMBERS = st.floats() | st.integers(0, 2**63).map(float)


class Registry:
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


@st.composite
def families(draw: st.DrawFn) -> list[Metric]:
    gauge = GaugeMetricFamily("a_bytes", draw(TEXTS), labels=["one", "two"])
    counter = CounterMetricFamily("b", draw(TEXTS), labels=["z", "a"])
    for family in (gauge, counter):
        for _ in range(draw(st.integers(0, 3))):
            family.add_metric([draw(TEXTS), draw(TEXTS)], draw(NUMBERS))
    histogram = HistogramMetricFamily(
        "c_seconds", draw(TEXTS), buckets=[("0.5", 1), ("+Inf", 2)], sum_value=draw(NUMBERS)
    )
    return [gauge, counter, histogram, InfoMetricFamily("d", draw(TEXTS), {"version": draw(TEXTS)})]


def zeros() -> list[Metric]:
    family = GaugeMetricFamily("a", "", labels=["b"])
    for name, value in (("c", 0), ("d", -0.0), ("e", 0.0), ("f", 1), ("g", 1.0)):
        family.add_metric([name], value)
    return [family]


@example(zeros())
@given(families())
def test_both_formats_are_what_the_library_writes(families: list[Metric]) -> None:
    registry = Registry(families)
    assert write(families, TEXT) == generate_latest(registry)
    theirs = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    assert write(families, OPENMETRICS) == theirs


def test_only_the_samples_that_were_asked_for_are_written() -> None:
    families = [GaugeMetricFamily("a", "A.", value=1), CounterMetricFamily("b", "B.", value=2)]
    assert (
        write(families, TEXT, frozenset({"b_total"}))
        == b"# HELP b_total B.\n# TYPE b_total counter\nb_total 2.0\n"
    )


def test_what_is_no_text_does_not_keep_the_rest_from_a_scrape() -> None:
    family = GaugeMetricFamily("a", "A.", labels=["pod"])
    family.add_metric(["\udcff"], 1)
    assert b'a{pod="?"} 1.0' in write([family], TEXT)


@pytest.mark.parametrize(
    ("accept", "format_"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        # Prometheus 2.42, 3.0 and a browser.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        ),
        (
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4",
            OPENMETRICS,
        ),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", TEXT),
        ("application/openmetrics-text", OPENMETRICS),
        ("application/openmetrics-text; version=9.0.0", TEXT),
        (";;,=,", TEXT),
    ],
)
def test_the_format_is_the_one_that_is_wanted(accept: str, format_: str) -> None:
    assert chosen_format(accept) == format_


def test_gzip_is_for_who_takes_it() -> None:
    assert [accepts_gzip(text) for text in ("gzip", "br, gzip;q=0.5", "", "deflate", "gzip; q=0")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert gzip.decompress(compressed(b"abc")) == b"abc"

"""A trace as a picture: spans over time, as every tracing tool shows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.support.otlp import Span
from tools.pictures.svg import COLOURS, FAINT, INK, box, cut, document, line, text

WIDTH, NAMES, ROW = 1180.0, 300.0, 24.0
SERVICES = {"session-policy-job": COLOURS[0], "session-policy-controller": COLOURS[1]}
STORE = COLOURS[2]
_TICKS = 6


def draw_trace(spans: Sequence[Span]) -> str:
    """The whole picture."""
    (root,) = [span for span in spans if not span.parent_id]
    start, end = min(s.start_ns for s in spans), max(s.end_ns for s in spans)
    room = WIDTH - NAMES - 190
    tree = list(_tree(spans, root, 0))
    height = 96 + ROW * len(tree)
    parts = [
        box(8, 8, WIDTH - 16, height - 16),
        text(
            24, 34, f"{root.name}: {(root.end_ns - root.start_ns) / 1e9:.2f} s, {len(spans)} spans", size=15, weight=600
        ),
        text(24, 54, f"trace {root.trace_id} · {_summary(root)}", fill=FAINT),
    ]
    for number, (name, colour) in enumerate([*SERVICES.items(), ("waits for a store", STORE)]):
        x = WIDTH - 210
        parts += [box(x, 18 + number * 17, 12, 11, fill=colour, stroke=colour), text(x + 18, 28 + number * 17, name)]
    for n in range(_TICKS + 1):
        x = NAMES + room * n / _TICKS
        parts += [
            line(x, 70, x, height - 16),
            text(x + 3, 80, f"{(end - start) / 1e6 * n / _TICKS:.0f} ms", fill=FAINT, size=10),
        ]
    for number, (span, depth) in enumerate(tree):
        y = 88 + number * ROW
        x = NAMES + room * (span.start_ns - start) / (end - start)
        width = room * (span.end_ns - span.start_ns) / (end - start)
        colour = STORE if span.kind == "CLIENT" else SERVICES[span.service]
        parts += [
            text(24 + depth * 16, y + 13, cut(span.name, NAMES - 40 - depth * 16), weight=600 if depth == 0 else 400),
            box(x, y + 3, width, 13, fill=colour, stroke=colour),
            text(max(x + width, x + 1) + 6, y + 13, f"{_length(span)}{_counts(span)}", size=11, fill=INK),
        ]
    return document(WIDTH, height, "A trace of one run", parts)


def _tree(spans: Sequence[Span], span: Span, depth: int) -> Iterator[tuple[Span, int]]:
    yield span, depth
    for child in sorted((s for s in spans if s.parent_id == span.span_id), key=lambda s: s.start_ns):
        yield from _tree(spans, child, depth + 1)


def _length(span: Span) -> str:
    return f"{(span.end_ns - span.start_ns) / 1e6:.0f} ms"


def _counts(span: Span) -> str:
    """What the span's attributes tell, in a few words."""
    calls = span.attributes.get("session_policy.store.calls")
    if calls is not None:
        return f" · {calls} calls"
    if not span.parent_id or span.service != "session-policy-job":
        return ""
    told = {
        name.removeprefix("session_policy.").replace("sessions.", ""): value
        for name, value in span.attributes.items()
        if name.startswith(("session_policy.sessions.", "session_policy.redis.")) and value
    }
    return "".join(f" · {name} {value:,}" for name, value in sorted(told.items())[:2])


def _summary(root: Span) -> str:
    kinds = ("expired", "deleted", "active")
    told = ", ".join(f"{root.attributes.get(f'session_policy.sessions.{kind}', 0):,} {kind}" for kind in kinds)
    return f"{root.attributes['session_policy.run.outcome']} · {told}"

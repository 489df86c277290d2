"""The zones as a picture (SVG). Every place on the canvas follows from the graph, so that any architecture has room.

A zone is a column of boxes. What comes from other zones enters a box from the left, over a trunk of its source in the
gutter before the zone's column; trunks of one source in several gutters are joined above all zones. What comes from
the same zone enters from the right, over a trunk there. A label stands on the last piece of its arrow, in a row of its own:
nothing else is drawn there.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from plan.contract.contract import Contract
from plan.contract.zones import Arrow, Graph, Place, Zone, graph

SIZE, TITLE = 11, 13
WIDE = 0.64
"""The widest that a digit or a letter is on average, in sizes of the font: DejaVu Sans and Verdana are wide ones."""
LINE, ROW, PAD, STEP, GAP = 14, 7, 12, 9, 26
"""Of a line of text, beside a row's text, in a box, between two trunks, between zones; below, of a box, a label with the
arrow's tip, the tip."""
BOX, LABEL, TIP = 236, 184, 14
TEXT, FAINT, BORDER, ZONE = "#1b2733", "#5a6b7b", "#b8c4cf", "#f2f6fa"
COLOURS: Mapping[str, str] = {
    "operator": "#8a3ffc", "anyone": "#b8301f", "given": "#9a5b00", "bastion": "#0f6b3a", "gitlab": "#a5480e",
    "haproxy": "#1d5fa8", "node": "#41535f", "master": "#7a2a6b", "worker": "#00697a", "pods": "#6a6a00", "nfs": "#444444",
}  # fmt: skip
SIDES = ("left", "right")


@dataclass(kw_only=True)
class _Row:
    """A line into a box or out of it, at `y`, with the words of an arrow that ends there."""

    source: Place
    words: list[str] = field(default_factory=list)
    y: float = 0

    @property
    def height(self) -> float:
        return ROW + LINE * len(self.words)


@dataclass(kw_only=True)
class _Box:
    """A place's rectangle with its rows on both sides."""

    place: Place
    rows: dict[str, list[_Row]]
    x: float = 0
    y: float = 0

    @property
    def lines(self) -> list[str]:
        return [part for line in self.place.lines for part in _wrapped(line, BOX - 2 * PAD)]

    @property
    def height(self) -> float:
        text = TITLE + LINE * len(self.lines) + 2 * PAD
        return max(text, *(sum(row.height for row in rows) + PAD for rows in self.rows.values()))

    def put(self, x: float, y: float) -> None:
        self.x, self.y = x, y
        for rows in self.rows.values():
            for row in rows:
                y += row.height
                row.y = y
            y = self.y


@dataclass(kw_only=True)
class _Frame:
    """A zone's rectangle: the room for labels, boxes, labels and trunks, from left to right."""

    zone: Zone
    boxes: list[_Box]
    x: float = 0
    y: float = 0

    @property
    def trunks(self) -> list[Place]:
        """The sources of its own arrows, in the order of the trunks at the right."""
        return list(dict.fromkeys(row.source for box in self.boxes for row in box.rows["right"]))

    @property
    def before(self) -> float:
        return PAD + (LABEL if any(row.words for box in self.boxes for row in box.rows["left"]) else PAD)

    @property
    def width(self) -> float:
        behind = LABEL + STEP * len(self.trunks) if self.trunks else 0
        return max(self.before + BOX + behind + PAD, len(self.zone.title) * TITLE * WIDE + 2 * PAD)

    @property
    def height(self) -> float:
        return 2 * PAD + TITLE + sum(box.height + PAD for box in self.boxes)

    def put(self, x: float, y: float, before: float) -> None:
        self.x, self.y = x, y
        y += 2 * PAD + TITLE
        for box in self.boxes:
            box.put(x + before, y)
            y += box.height + PAD


def svg(contract: Contract) -> str:
    """The picture of a stack's contract. Raises ValueError for a flow that has no place in it."""
    return drawn(graph(contract))


def drawn(found: Graph) -> str:
    """The picture of a graph."""
    frames = [_Frame(zone=zone, boxes=[_box(place, found.arrows) for place in zone.places]) for zone in found.zones]
    columns = _columns(frames)
    outer = [_sources(column, "left") for column in columns]
    shared = [place for place in dict.fromkeys(p for gutter in outer for p in gutter) if sum(place in g for g in outer) > 1]
    top = GAP + STEP * len(shared)
    trunks, x, bottom = [], float(GAP), 0.0
    for number, column in enumerate(columns):
        trunks.append({place: x + STEP * index for index, place in enumerate(outer[number])})
        x += STEP * len(outer[number]) + PAD
        before = max(frame.before for frame in column)
        y = float(top)
        for row, frame in enumerate(column):
            frame.put(x, y, before)
            y += GAP + (frame.height if len(columns[-1]) == 1 else _height(columns, row))
        bottom = max(bottom, y)
        x += max(frame.width - frame.before for frame in column) + before + GAP
    parts = [_frame(frame, columns) for frame in frames]
    parts += _joints(shared, trunks, {place: GAP / 2 + STEP * index for index, place in enumerate(shared)}, columns)
    for frame in frames:
        right = frame.boxes[0].x + BOX + LABEL if frame.boxes else 0
        within = {place: right + STEP * index for index, place in enumerate(frame.trunks)}
        parts += _trunks(within, [(box, row) for box in frame.boxes for row in box.rows["right"]], "right")
    parts += [_drawn_box(box) for frame in frames for box in frame.boxes]
    parts += [
        _text(GAP, bottom + LINE * index, line, FAINT)
        for index, line in enumerate(
            (
                "An arrow leads to where a connection may be opened, and says by whom and on which ports: TCP, unless it says otherwise.",
                "Every machine answers echo requests of anyone. What no arrow shows is dropped.",
            )
        )
    ]
    return _document(x, bottom + 2 * LINE + PAD, parts)


def _box(place: Place, arrows: Sequence[Arrow]) -> _Box:
    rows: dict[str, list[_Row]] = {side: [] for side in SIDES}
    for arrow in arrows:
        if arrow.target == place:
            who = "among themselves" if arrow.source == place else arrow.source.name(place.zone)
            words = _wrapped(f"{who}: {arrow.label}", LABEL - 2 * TIP)
            rows[_side(arrow)].append(_Row(source=arrow.source, words=words))
    for side in SIDES:
        if any(arrow.source == place and _side(arrow) == side for arrow in arrows):
            rows[side].append(_Row(source=place))
    return _Box(place=place, rows=rows)


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int(width / (SIZE * WIDE)), break_on_hyphens=False)


def _side(arrow: Arrow) -> str:
    return "right" if arrow.source.zone == arrow.target.zone else "left"


def _columns(frames: Sequence[_Frame]) -> list[list[_Frame]]:
    """Outside and what is shared first; one cluster stands beside both, several in rows of two or three."""
    if len(frames) == 3:
        return [list(frames[:2]), list(frames[2:])]
    count = 2 if len(frames) <= 8 else 3
    return [list(frames[number::count]) for number in range(count)]


def _height(columns: Sequence[Sequence[_Frame]], row: int) -> float:
    return max(column[row].height for column in columns if row < len(column))


def _sources(column: Iterable[_Frame], side: str) -> list[Place]:
    return list(dict.fromkeys(row.source for frame in column for box in frame.boxes for row in box.rows[side]))


def _joints(
    shared: Sequence[Place], trunks: Sequence[Mapping[Place, float]], heights: Mapping[Place, float],
    columns: Sequence[Sequence[_Frame]],
) -> list[str]:  # fmt: skip
    """The trunks before each column, and what joins those of one source above all."""
    parts = []
    for gutter, column in zip(trunks, columns, strict=True):
        rows = [(box, row) for frame in column for box in frame.boxes for row in box.rows["left"]]
        parts += _trunks(gutter, rows, "left", heights)
    for place in shared:
        xs = [gutter[place] for gutter in trunks if place in gutter]
        parts.append(_line([(min(xs), heights[place]), (max(xs), heights[place])], place))
        # A dot where a third line meets.
        parts += [_dot(x, heights[place], place) for x in sorted(xs)[1:-1]]
    return parts


def _trunks(
    places: Mapping[Place, float], rows: Sequence[tuple[_Box, _Row]], side: str, heights: Mapping[Place, float] | None = None
) -> list[str]:
    """Each source's trunk at its place, with a branch to each of its rows."""
    parts = []
    for place, x in places.items():
        own = [(box, row) for box, row in rows if row.source == place]
        ys = [row.y for _, row in own] + ([heights[place]] if heights and place in heights else [])
        parts.append(_line([(x, min(ys)), (x, max(ys))], place))
        for box, row in own:
            edge = box.x if side == "left" else box.x + BOX
            parts.append(_line([(x, row.y), (edge, row.y)], place, tip=bool(row.words)))
            parts += [_dot(x, row.y, place)] if min(ys) < row.y < max(ys) else []
            start = box.x - LABEL + TIP if side == "left" else box.x + BOX + TIP
            first = row.y - LINE * len(row.words) + LINE - 4
            parts += [_text(start, first + LINE * index, words, COLOURS[place.role]) for index, words in enumerate(row.words)]
    return parts


def _frame(frame: _Frame, columns: Sequence[Sequence[_Frame]]) -> str:
    """All of a column as wide as its widest."""
    column = next(c for c in columns if frame in c)
    before = max(f.before for f in column)
    width = max(f.width - f.before for f in column) + before
    return _rectangle(frame.x, frame.y, width, frame.height, ZONE, BORDER) + _text(
        frame.x + PAD, frame.y + PAD + TITLE / 2 + 2, frame.zone.title, TEXT, size=TITLE, bold=True
    )


def _drawn_box(box: _Box) -> str:
    parts = [_rectangle(box.x, box.y, BOX, box.height, "white", COLOURS[box.place.role])]
    parts.append(_text(box.x + PAD, box.y + PAD + SIZE, box.place.title, TEXT, size=TITLE, bold=True))
    parts += [
        _text(box.x + PAD, box.y + PAD + SIZE + LINE * number, line, FAINT) for number, line in enumerate(box.lines, 1)
    ]
    return "\n".join(parts)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _rectangle(x: float, y: float, width: float, height: float, fill: str, stroke: str) -> str:
    place = " ".join(f'{name}="{_number(value)}"' for name, value in zip(("x", "y", "width", "height"), (x, y, width, height), strict=True))
    return f'<rect {place} rx="5" fill="{fill}" stroke="{stroke}"/>'


def _text(x: float, y: float, text: str, colour: str, *, size: int = SIZE, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{_number(x)}" y="{_number(y)}" font-size="{size}"{weight} fill="{colour}">{escape(text)}</text>'


def _line(points: Sequence[tuple[float, float]], place: Place, *, tip: bool = False) -> str:
    path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    end = f' marker-end="url(#{place.role})"' if tip else ""
    return f'<polyline points="{path}" fill="none" stroke-width="1.4" stroke="{COLOURS[place.role]}"{end}/>'


def _dot(x: float, y: float, place: Place) -> str:
    return f'<circle cx="{_number(x)}" cy="{_number(y)}" r="2.5" fill="{COLOURS[place.role]}"/>'


def _document(width: float, height: float, parts: Sequence[str]) -> str:
    size = f'width="{_number(width)}" height="{_number(height)}"'
    tips = "".join(
        f'<marker id="{role}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" fill="{colour}"/></marker>'
        for role, colour in COLOURS.items()
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_number(width)} {_number(height)}" {size} '
        'font-family="DejaVu Sans, Verdana, sans-serif">\n'
        "<title>The network contract: zones, and who may open connections to whom on which port</title>\n"
        f'<defs>{tips}</defs>\n<rect {size} fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )

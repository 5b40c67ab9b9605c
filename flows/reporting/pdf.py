"""A document as a PDF (reportlab), A4, numbered pages. In DejaVu, which matplotlib brings: names
may be foreign."""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

import matplotlib as mpl
from reportlab.lib.colors import HexColor
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import (
    Flowable,
    Image,
    KeepTogether,
    ListFlowable,
    Paragraph,
    SimpleDocTemplate,
    Spacer,
)
from reportlab.platypus import Table as PaperTable

from flows.reporting.blocks import Block, Document, Heading, Picture, Points, Table, Text, Tone

if TYPE_CHECKING:
    from reportlab.pdfgen.canvas import Canvas

_COLOURS: dict[Tone, str] = {
    "plain": "#222222",
    "good": "#00694d",
    "bad": "#b03a00",
    "quiet": "#666666",
}
_MARGIN = 18 * mm
_WIDTH = A4[0] - 2 * _MARGIN - 12  # a frame pads 6 points on each side


def write_pdf(document: Document) -> bytes:
    """The PDF."""
    _register_fonts()
    buffer = io.BytesIO()
    template = SimpleDocTemplate(
        buffer,
        pagesize=A4,
        title=document.title,
        author="s3t",
        leftMargin=_MARGIN,
        rightMargin=_MARGIN,
        topMargin=_MARGIN,
        bottomMargin=_MARGIN,
    )
    flow: list[Flowable] = [
        Paragraph(escape(document.title), _style("title")),
        Paragraph(escape(document.subtitle), _style("text", "quiet")),
        Spacer(1, 4 * mm),
    ]
    waiting: list[Flowable] = []  # a heading stays with what follows it
    for block in document.blocks:
        drawn = _drawn(block)
        if isinstance(block, Heading):
            waiting += drawn
        else:
            flow += (
                [KeepTogether([*waiting, *drawn])]
                if waiting and not isinstance(block, Table)
                else [*waiting, *drawn]
            )
            waiting = []

    def foot(canvas: "Canvas", _: object) -> None:
        canvas.setFont("DejaVu", 7.5)
        canvas.setFillColor(HexColor(_COLOURS["quiet"]))
        canvas.drawString(
            _MARGIN,
            10 * mm,
            f"{document.title}, {document.subtitle}",
        )
        canvas.drawRightString(
            A4[0] - _MARGIN,
            10 * mm,
            f"page {canvas.getPageNumber()}",
        )

    template.build(
        [*flow, *waiting],
        onFirstPage=foot,
        onLaterPages=foot,
    )
    return buffer.getvalue()


def _drawn(block: Block) -> list[Flowable]:
    if isinstance(block, Heading):
        return [Paragraph(escape(block.text), _style("heading"))]
    if isinstance(block, Text):
        return [Paragraph(escape(block.text), _style("text", block.tone))]
    if isinstance(block, Points):
        return [
            ListFlowable(
                [Paragraph(escape(p), _style("text")) for p in block.points],
                bulletType="bullet",
                bulletFontSize=6,
                leftIndent=10,
            )
        ]
    if isinstance(block, Picture):
        height = _WIDTH * block.inches[1] / block.inches[0]
        return [
            KeepTogether(
                [
                    Image(io.BytesIO(block.png), _WIDTH, height),
                    Paragraph(escape(block.caption), _style("cell", "quiet")),
                    Spacer(1, 3 * mm),
                ]
            )
        ]
    return _table(block)


def _table(block: Table) -> list[Flowable]:
    head = (
        [[Paragraph(f"<b>{escape(h)}</b>", _style("cell", "quiet")) for h in block.head]]
        if any(block.head)
        else []
    )
    rows = [[Paragraph(escape(c.text), _style("cell", c.tone)) for c in row] for row in block.rows]
    total = sum(block.widths)
    table = PaperTable(
        [*head, *rows],
        colWidths=[_WIDTH * w / total for w in block.widths],
        repeatRows=len(head),
        style=[
            ("VALIGN", (0, 0), (-1, -1), "TOP"),
            ("LEFTPADDING", (0, 0), (-1, -1), 0),
            ("TOPPADDING", (0, 0), (-1, -1), 2),
            ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
            ("LINEBELOW", (0, 0), (-1, -1), 0.25, HexColor("#dddddd")),
        ],
    )
    return [table, Spacer(1, 3 * mm)]


@cache
def _style(kind: str, tone: Tone = "plain") -> ParagraphStyle:
    size, lead, before, font = {
        "title": (17, 21, 0, "DejaVu-Bold"),
        "heading": (12.5, 16, 10, "DejaVu-Bold"),
        "text": (9, 12.5, 0, "DejaVu"),
        "cell": (7.3, 9.3, 0, "DejaVu"),
    }[kind]
    return ParagraphStyle(
        f"{kind} {tone}",
        fontName="DejaVu-Bold" if tone == "bad" and kind == "text" else font,
        fontSize=size,
        leading=lead,
        spaceBefore=before,
        spaceAfter=4 if kind != "cell" else 0,
        textColor=HexColor(_COLOURS[tone]),
        splitLongWords=1,
    )


def _register_fonts() -> None:
    folder = Path(mpl.get_data_path()) / "fonts" / "ttf"
    for name, file in (("DejaVu", "DejaVuSans.ttf"), ("DejaVu-Bold", "DejaVuSans-Bold.ttf")):
        if name not in pdfmetrics.getRegisteredFontNames():
            pdfmetrics.registerFont(TTFont(name, folder / file))
    pdfmetrics.registerFontFamily(
        "DejaVu", normal="DejaVu", bold="DejaVu-Bold", italic="DejaVu", boldItalic="DejaVu-Bold"
    )

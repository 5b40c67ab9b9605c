"""A document as one HTML file: nothing is loaded from elsewhere, and it prints well."""

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from flows.reporting.blocks import Document, Picture

_TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ document.title }}</title>
<style>
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #222;
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
.subtitle, .quiet { color: #666; } .good { color: #00694d; } .bad { color: #b03a00; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; margin: .6rem 0 1rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid #eee;
  overflow-wrap: anywhere; }
th { color: #555; font-weight: 600; overflow-wrap: normal; } tr { break-inside: avoid; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .87rem; }
@media print { body { font-size: 10.5pt; max-width: none; margin: 0; } h2 { break-after: avoid; }
  .scroll { overflow: visible; } }
</style></head><body>
<h1>{{ document.title }}</h1><p class="subtitle">{{ document.subtitle }}</p>
{% for block in document.blocks %}{% set kind = block.__class__.__name__ %}
{% if kind == "Heading" %}<h2>{{ block.text }}</h2>
{% elif kind == "Text" %}<p class="{{ block.tone }}">{{ block.text }}</p>
{% elif kind == "Points" %}<ul>{% for point in block.points %}<li>{{ point }}</li>{% endfor %}</ul>
{% elif kind == "Table" %}<div class="scroll"><table>{% if block.head | select | list %}<thead><tr>
{%- for name in block.head %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>{% endif %}<tbody>
{%- for row in block.rows %}<tr>{% for cell in row %}<td class="{{ cell.tone }}">{{ cell.text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% elif kind == "Picture" %}<figure role="img" aria-label="{{ block.caption }}">{{ drawn(block) }}
<figcaption>{{ block.caption }}</figcaption></figure>
{% endif %}{% endfor %}
</body></html>
"""  # noqa: E501


def write_html(document: Document) -> bytes:
    """The page, UTF-8. Every text is escaped; only the figures, which are ours, are not."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return (
        environment.from_string(_TEMPLATE)
        .render(
            document=document,
            drawn=_drawn,
        )
        .encode()
    )


def _drawn(picture: Picture) -> Markup:
    return Markup(picture.svg)  # noqa: S704  # matplotlib drew it

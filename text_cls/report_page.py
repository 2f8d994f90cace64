"""``report.html``: all that a run of a text classifier found, on one page that needs no network and no script.

A pure function of the files of the run's folder.
"""

from pathlib import Path

from files.writing import write_text
from text_cls import page_parts as parts
from text_cls.page_style import STYLE
from text_cls.report_sections import PARTS, SPLITS, Finished

PAGE = "report.html"
# Nothing is loaded from anywhere, and without plotly no script runs, whatever a text holds.
_POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'"
_SCRIPTS = "; script-src 'unsafe-inline' 'unsafe-eval'; worker-src blob:"


def write_page(folder: Path, path: Path, interactive: bool = False) -> None:
    """Writes the page of a finished run.

    Args:
        folder: the run's.
        path: of the page.
        interactive: whether the points of t-SNE are drawn in three dimensions by plotly too; 5 MB.

    Raises:
        UserError: a file of the folder is damaged.
    """
    write_text(path, page(Finished.read(folder, interactive)))


def page(run: Finished) -> str:
    """The whole page as HTML."""
    title = f"{run.folder.resolve().name}: report of a text classifier"
    policy = _POLICY + (_SCRIPTS if run.interactive else "")
    made = [(one, inside) for one in PARTS if (inside := one.made(run))]
    menu = "".join(f'<a href="#{one.key}">{one.title}</a>' for one, _ in made)
    body = "\n".join(parts.section(one.key, one.title, *inside) for one, inside in made)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{parts.escaped(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<header><h1>{parts.name(run.folder.resolve().name, 80)}</h1><p class="lead">{_lead(run)}</p></header>
<nav><div>{menu}</div></nav>
<main>
{body}
</main>
<footer><p>Made by Triptych from the files beside this page; it needs no network.</p></footer>
</body>
</html>
"""


def _lead(run: Finished) -> str:
    sizes = ", ".join(f"{run.data[split]['rows']:,} {split}" for split in SPLITS if split in run.data)
    return f"A text classifier of {len(run.classes):,} classes; texts: {sizes}."

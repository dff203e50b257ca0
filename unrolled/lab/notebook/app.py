"""The notebook itself: a list of chapters, and the one that is open."""

import marimo

app = marimo.App(width="medium", app_title="Unrolled: the lab")


@app.cell
def _():
    import marimo as mo

    from unrolled.lab.notebook.chapters import CHAPTERS, chapter

    return CHAPTERS, chapter, mo


@app.cell
def _(CHAPTERS, mo):
    titles = {f"{number}. {title}": title for number, title in enumerate(CHAPTERS, 1)}
    asked = mo.query_params().get("chapter", "1")
    first, *_ = [shown for shown in titles if shown.startswith(f"{asked}.")] or titles
    chosen = mo.ui.radio(options=titles, value=first)
    mo.sidebar(
        [
            mo.md("# Unrolled\n\nHow a recurrent network works, number by number."),
            chosen.style({"padding-left": "1rem"}),
        ],
        footer=mo.md("Everything here is computed on this machine."),
    )
    return (chosen,)


@app.cell
def _(chapter, chosen):
    # A chapter's controls are made anew when it is opened; only the open chapter computes.
    page = chapter(chosen.value)
    controls = page.controls()
    return controls, page


@app.cell
def _(controls, page):
    page.view(controls)
    return


if __name__ == "__main__":
    app.run()

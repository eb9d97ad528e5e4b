"""How Sphinx builds the book: nothing is fetched, and every warning is an error."""

from orbiquant import __version__

project = "OrbiQuant"
version = release = __version__
copyright = "The OrbiQuant developers, Apache-2.0"
language = "en"
smartquotes = False

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence"]
myst_disable_syntax = ["myst_line_comment", "myst_block_break", "myst_target", "myst_role"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header", "misc.highlighting_failure"]
add_module_names = False
python_use_unqualified_type_names = True
python_display_short_literal_types = True
toc_object_entries_show_parents = "hide"
maximum_signature_line_length = 88

html_theme = "pydata_sphinx_theme"
html_title = "OrbiQuant"
html_static_path = ["static"]
html_css_files = ["book.css"]
html_js_files = [("book.js", {"defer": "defer"})]
html_copy_source = html_show_sourcelink = html_show_sphinx = False
html_use_index = html_domain_indices = False
html_context = {"default_mode": "auto"}
html_sidebars = {"index": []}
html_theme_options = {
    "logo": {"text": "OrbiQuant"},
    "collapse_navigation": True,
    "navigation_depth": 3,
    "show_nav_level": 1,
    "show_toc_level": 2,
    "header_links_before_dropdown": 5,
    "navbar_end": ["theme-switcher"],
    "secondary_sidebar_items": ["page-toc"],
    "search_as_you_type": True,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "footer_start": ["copyright"],
    "footer_end": [],
}

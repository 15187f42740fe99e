"""Tables and curves for notebooks, reports and papers: HTML, SVG, LaTeX."""

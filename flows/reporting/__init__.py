"""The compliance report as a person reads it: the same blocks as a page and as a PDF."""

"""Reports: what runs have shown, as pages a reader can judge."""

from latent_lab.report.page import Report, ReportError, write_page

__all__ = ["Report", "ReportError", "write_page"]

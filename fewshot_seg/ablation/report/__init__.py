"""What a study found, to look at and to print: tables, figures and one page."""

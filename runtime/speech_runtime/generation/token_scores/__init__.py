"""Scores of the next token: processors, warpers, constraints and sampling."""

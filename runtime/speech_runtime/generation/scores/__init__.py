"""Everything that changes the scores of the next token: processors, warpers, constraints and sampling."""

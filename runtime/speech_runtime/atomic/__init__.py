"""Files and directories that appear all at once or not at all, and replace nothing that they should not."""

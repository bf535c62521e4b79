"""The alternatives that a user could run instead, one small file each; `registry` lists them."""

"""What a user would run instead, one small file each; `registry` names them."""

"""Messages, their bytes and the signed envelope around them."""

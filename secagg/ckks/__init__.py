"""One-shot, key-homomorphic CKKS: nobody holds the key that would open a single input."""

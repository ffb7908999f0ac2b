"""How much signal responses have: reliability, noise ceilings and identification."""

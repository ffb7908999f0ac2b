"""How good is a reconstruction: metrics, floors, intervals and tests."""

"""Image networks that metrics use, and how pictures are prepared for them."""

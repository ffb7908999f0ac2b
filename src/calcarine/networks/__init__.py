"""Deep networks between brain and pictures, and how they are trained."""

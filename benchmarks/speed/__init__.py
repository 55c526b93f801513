"""Programs that time one part of the package against an anchor in the same process."""

"""From the archives that people download to the folders that the rest of the library opens."""

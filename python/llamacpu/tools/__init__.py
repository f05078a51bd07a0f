"""Tools that make model files and judge them; one file or package for each."""

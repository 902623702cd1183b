"""The command line: one dataclass per command, found through `fvgen.cli.registry`. Nothing is computed here."""

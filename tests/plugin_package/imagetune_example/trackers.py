"""A tracker."""


class CsvLog:
    """Writes a line an epoch to ``log.csv`` in the run folder, and how the run ended."""

    def __init__(self, run_dir):
        self.path = run_dir / "log.csv"
        self.path.write_text("epoch,val_loss\n", encoding="utf-8")

    def epoch(self, record):
        self._add(f"{record['epoch']},{record['val']['loss']:.4f}")

    def end(self, state):
        self._add(f"# {state}")

    def _add(self, line):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

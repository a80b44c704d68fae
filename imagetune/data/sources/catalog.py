"""Catalog: the records of all images of a data source, and the findings about the source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imagetune.data.findings import Finding
from imagetune.data.sources.labels import SINGLE_LABEL, LabelRule
from imagetune.data.sources.records import Record


@dataclass(frozen=True)
class Catalog:
    """Records of all images of a data source, with findings about the source itself.

    Attributes:
        root: The folder that displayed paths are relative to.
        records: The images in a stable order: that of the table's rows, or by class and name.
        findings: Files, rows and classes that were left out, and suspicious labels.
        rule: How labels are parsed.
    """

    root: Path
    records: tuple[Record, ...]
    findings: tuple[Finding, ...] = ()
    rule: LabelRule = SINGLE_LABEL

    @property
    def notes(self) -> tuple[str, ...]:
        """The titles of the findings."""
        return tuple(finding.title for finding in self.findings)

    @property
    def split_given(self) -> bool:
        """Whether the source assigns images to training, validation and test."""
        return any(record.split for record in self.records)

    @property
    def labels(self) -> tuple[str, ...]:
        """The class names, sorted; for regression the name of the target."""
        return tuple(sorted(self.rule.counts(record.label for record in self.records)))

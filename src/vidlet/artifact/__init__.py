"""Export: torch networks as the one-file artifact, with a mandatory parity check."""

from .classifier import (
    ArtifactNetwork,
    artifact_graph,
    artifact_metadata,
    check_parity,
    extractor_graph,
    input_widths,
    taps_graph,
    torch_reference,
    write_artifact,
)

__all__ = [
    "ArtifactNetwork",
    "artifact_graph",
    "artifact_metadata",
    "check_parity",
    "extractor_graph",
    "input_widths",
    "taps_graph",
    "torch_reference",
    "write_artifact",
]

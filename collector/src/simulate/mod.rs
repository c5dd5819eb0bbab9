//! Exporters that encode real datagrams: for demonstrations, tests and measurements.

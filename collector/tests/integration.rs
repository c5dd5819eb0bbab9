//! What the collector makes of real captures and of what it encodes itself; one binary, so that oracles are compiled once.

#[path = "support/beside.rs"]
mod beside;
#[path = "support/golden.rs"]
mod golden;
mod golden_netflow;
mod golden_sflow;
mod oracle;
mod simulate_encoders;
mod simulate_netflow;
mod telemetry_cases;

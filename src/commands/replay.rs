//! `ezscale replay`: captured exports, stored as if they had been received when they were captured.

use std::path::PathBuf;

use collector::import::{Importer, replay_pcap};

use crate::options::{Data, load_assignments};
use crate::output::{Listing, Progress};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// Capture file (pcap or pcapng) of flow exports over UDP
    file: PathBuf,
    #[command(flatten)]
    data: Data,
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let assignments = load_assignments(&database).await?;
    let metering = config.metering();
    let data_dir = config.data_dir.clone();
    let size_bytes = std::fs::metadata(&args.file).map(|metadata| metadata.len()).unwrap_or(0);
    let summary = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
        let progress = Progress::bytes("reading the capture", size_bytes);
        let importer = Importer::open(&data_dir, metering, assignments, &format!("replay {}", args.file.display()))?;
        let summary = replay_pcap(&args.file, importer, |bytes| progress.set(bytes))?;
        progress.finish();
        Ok(summary)
    })
    .await??;
    let mut listing = Listing::new(&["counter", "value"]).right(1);
    for (counter, value) in summary.totals() {
        listing.row([counter.name().to_owned(), value.to_string()]);
    }
    listing.print("the capture holds no flow exports");
    Ok(())
}

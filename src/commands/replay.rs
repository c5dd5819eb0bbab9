//! `ezscale replay`: captured exports, stored as if they had been received when they were captured.

use std::path::PathBuf;

use activity::act::Note;
use collector::counts::Counter;
use collector::import::{Importer, PortFilter, import_name, replay_pcap};

use super::audit;
use crate::options::{Data, load_assignments, load_metering, now_ms, open_current};
use crate::output::{Format, Listing, Progress, count, number, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// Capture file (pcap or pcapng) of flow exports over UDP
    file: PathBuf,
    /// Take only datagrams to this UDP port; repeatable [default: all that look like flow exports]
    #[arg(long)]
    port: Vec<u16>,
    #[command(flatten)]
    data: Data,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_database().await?;
    let assignments = load_assignments(&database).await?;
    let metering = load_metering(&config, &database).await?;
    let storage = config.open_storage()?;
    let size_bytes = std::fs::metadata(&args.file)
        .map(|metadata| metadata.len())
        .unwrap_or(0);
    let begins = Note::new("flows.replay", args.file.display());
    let read = move || -> anyhow::Result<_> {
        let progress = Progress::bytes("reading the capture", size_bytes);
        let name = format!("replay {}", import_name(&args.file)?);
        let mut importer = Importer::open(&storage, metering, assignments, &name)?;
        let filter = if args.port.is_empty() {
            PortFilter::FlowLike
        } else {
            PortFilter::Ports(args.port)
        };
        let packets = replay_pcap(&args.file, &mut importer, &filter, |now| progress.set(now.bytes_read))?;
        let summary = importer.finish()?;
        progress.clear();
        Ok((packets, summary))
    };
    let (packets, summary) = audit::in_steps(&database, now_ms(&database).await?, begins, async {
        let (packets, summary) = tokio::task::spawn_blocking(read).await??;
        open_current(&config).await?;
        let result = serde_json::json!({"packets": packets.packets, "datagrams": packets.datagrams,
            "files": summary.files - summary.files_known});
        Ok(((packets, summary), result))
    })
    .await?;
    say!(
        "{}: {}, {}",
        count(packets.packets, "packet"),
        count(packets.datagrams, "flow datagram"),
        count(packets.others, "other")
    );
    let left_out = [
        ("fragments", packets.fragments),
        ("cut short", packets.truncated),
        ("of an unknown link type", packets.link_unknown),
        ("of a time after the year 9999", packets.time_unknown),
    ];
    for (what, number) in left_out.into_iter().filter(|(_, number)| *number > 0) {
        say!("{} left out: {what}", count(number, "packet"));
    }
    if summary.files > 0 && summary.files_known == summary.files {
        say!("this capture was stored before: nothing changed");
    }
    let mut listing = Listing::new([text("counter"), number("value")]);
    for counter in Counter::ALL {
        let total = summary.counts.total(*counter);
        if total > 0 {
            listing.row([counter.name().into(), total.into()]);
        }
    }
    listing.print(Format::Table, "the capture holds no flow exports")
}

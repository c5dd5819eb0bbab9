//! `ezscale init`: a data folder, ready for everything else.

use crate::options::Data;

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
}

/// Makes the data folder and the database where they are missing; doing it again changes nothing.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, _) = args.data.open_or_create().await?;
    say!("{}", config.data_dir.display());
    Ok(())
}

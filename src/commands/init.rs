//! `ezscale init`: a data folder, ready for everything else.

use activity::act::Note;
use billing::payment::trial;

use super::audit;
use crate::options::{Data, now_ms};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    data: Data,
    /// Mark the new books as test books, for ever: [payments.test] may be used on them, and no live gateway
    #[arg(long)]
    test_books: bool,
}

/// Makes the data folder and the database where they are missing; doing it again changes nothing.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (config, database) = args.data.open_or_create().await?;
    if args.test_books {
        let mut act = audit::begin(&database, now_ms(&database).await?).await?;
        if trial::mark_test_books(act.connection()).await? {
            act.commit(Note::new("books.mark_test", "books")).await?;
        }
    }
    say!("{}", config.data_dir.display());
    Ok(())
}

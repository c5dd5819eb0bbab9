//! `ezscale init`: a data folder, ready for everything else.

use billing::payment::trial;

use crate::options::Data;

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
        let mut transaction = database.begin_write().await?;
        trial::mark_test_books(&mut transaction).await?;
        transaction.commit().await?;
    }
    say!("{}", config.data_dir.display());
    Ok(())
}

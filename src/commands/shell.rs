//! `ezscale completions` and `ezscale man`: what shells and `man` know of the command line, from its own definition.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Command;
use clap_complete::Shell;

use crate::output::{count, print};

#[derive(clap::Args, Debug)]
pub(crate) struct Completions {
    /// Shell to write the script for
    shell: Shell,
}

#[derive(clap::Args, Debug)]
pub(crate) struct Man {
    /// Folder to write to; it is made where it is missing
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

/// Prints a shell's completion script.
pub(crate) fn completions(args: &Completions, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "ezscale", &mut script);
    print::stream(|out| Ok(out.write_all(&script)?))
}

/// Writes a page for the program and one for each of its commands: `ezscale.1`, `ezscale-plan.1`, `ezscale-plan-add.1`.
pub(crate) fn man(args: &Man, mut command: Command) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.to).with_context(|| format!("make the folder {}", args.to.display()))?;
    // Names the commands as they are called and lets each know what all of them take.
    command.build();
    let written = write_pages(&command, &args.to)?;
    say!("{} in {}", count(written, "page"), args.to.display());
    Ok(())
}

fn write_pages(command: &Command, folder: &Path) -> anyhow::Result<usize> {
    let name = command
        .get_display_name()
        .unwrap_or_else(|| command.get_name())
        .to_owned();
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().display_name(name.clone())).render(&mut page)?;
    std::fs::write(&path, page).with_context(|| format!("write {}", path.display()))?;
    let mut written = 1;
    for subcommand in command
        .get_subcommands()
        .filter(|one| !one.is_hide_set() && one.get_name() != "help")
    {
        written += write_pages(subcommand, folder)?;
    }
    Ok(written)
}

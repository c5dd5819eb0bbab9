//! `ezscale completions` and `ezscale man`: what shells and `man` know of the command line, from its own definition.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Arg, Command};
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
    let with_usage = command
        .clone()
        .display_name(name.clone())
        .override_usage(synopsis(command));
    clap_mangen::Man::new(with_usage)
        .source(concat!("ezscale ", env!("CARGO_PKG_VERSION")))
        .manual("EZSCALE")
        .render(&mut page)?;
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

/// How a command is called, with the values that its options take; clap's own synopsis leaves them out. The command is
/// built.
fn synopsis(command: &Command) -> String {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let mut words = vec![name.to_owned()];
    let mut options: Vec<&Arg> = command
        .get_arguments()
        .filter(|option| !option.is_positional() && !option.is_hide_set())
        .collect();
    options.sort_by_key(|option| (option.is_required_set(), option.get_display_order()));
    for option in options {
        let flag = match (option.get_long(), option.get_short()) {
            (Some(long), _) => format!("--{long}"),
            (None, Some(short)) => format!("-{short}"),
            (None, None) => continue,
        };
        let takes_values = option.get_num_args().is_some_and(|range| range.takes_values());
        let call = match takes_values {
            true => format!("{flag} {}", values(option)),
            false => flag,
        };
        words.push(if option.is_required_set() {
            call
        } else {
            format!("[{call}]")
        });
    }
    for argument in command.get_positionals().filter(|argument| !argument.is_hide_set()) {
        let value = values(argument);
        words.push(if argument.is_required_set() {
            value
        } else {
            format!("[{value}]")
        });
    }
    if command.has_subcommands() {
        let is_required = command.is_subcommand_required_set();
        words.push(if is_required { "<COMMAND>" } else { "[COMMAND]" }.to_owned());
    }
    words.join(" ")
}

/// `<FROM>`, `<ADDR>...` where there may be several.
fn values(argument: &Arg) -> String {
    let names = match argument.get_value_names() {
        Some(names) => names.join("> <"),
        None => argument.get_id().to_string().to_uppercase(),
    };
    let several = argument.get_num_args().is_some_and(|range| range.max_values() > 1);
    format!("<{names}>{}", if several { "..." } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_synopsis_has_the_values_of_options() {
        let mut command = Command::new("ezscale").subcommand(
            Command::new("assign")
                .arg(Arg::new("service").value_name("SERVICE"))
                .arg(Arg::new("prefix").long("prefix").value_name("NET").required(true))
                .arg(Arg::new("to").long("to").value_name("TIME"))
                .arg(Arg::new("old").long("old").value_name("TIME").hide(true))
                .arg(Arg::new("all").long("all").action(clap::ArgAction::SetTrue)),
        );
        command.build();
        let assign = command.find_subcommand("assign").unwrap();
        assert_eq!(
            synopsis(assign),
            "ezscale assign [--to <TIME>] [--all] [--help] --prefix <NET> [<SERVICE>]"
        );
        assert_eq!(synopsis(&command), "ezscale [--help] [COMMAND]");
    }
}

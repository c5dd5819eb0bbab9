//! The command line: parses, sets up logging and dispatches. Each command is one file under `commands/`.

// Everything is printed through one writer: a reader who goes away must not end a command halfway.
#![deny(clippy::print_stdout, clippy::print_stderr)]

#[macro_use]
mod output;
mod attachments;
mod backup;
mod commands;
mod config;
mod database_note;
mod descriptors;
mod jobs;
mod log_limit;
mod operator;
mod options;
mod outbox;
mod private;
mod storage;
mod upgrade;

use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, Parser, Subcommand};

/// Flow collector, usage metering and billing for hosting companies.
///
/// Routers and switches report flows (NetFlow v5, v7, v9, IPFIX, sFlow v5); EZSCALE keeps every one, meters what each
/// service sends and receives, computes what it costs, and shows it.
///
/// Start with `ezscale demo`, then `ezscale serve`.
#[derive(Parser, Debug)]
#[command(name = "ezscale", version, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    logging: options::Logging,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run everything in one process: collector, usage jobs, billing and portal
    Serve(commands::serve::Args),
    /// Make a data folder with an empty database
    Init(commands::init::Args),
    /// Run the collector and the usage job, without the portal
    Collect(commands::collect::Args),
    /// Try it: a fleet with 36 days of history, live exporters and the portal, in one command
    Demo(commands::demo::Args),
    /// Send real flow datagrams of known sums to a collector
    Simulate(commands::simulate::Args),
    /// Store the flow exports of a capture file as if they were received when they were captured
    Replay(commands::replay::Args),
    /// Ask the stored tables in SQL
    Query(commands::query::Args),
    /// Show what services used
    Usage(commands::usage::Args),
    /// Check what was measured: flows against the counters of the interfaces they crossed
    Check(commands::check::Args),
    /// Preview, close and show invoices
    Invoice(commands::invoice::Args),
    /// Print an example, check or show the configuration
    Config(commands::config::Args),
    /// Back up database and tables beside a running server, to a folder or S3; list, verify and prune backups
    Backup(commands::backup::Args),
    /// Restore a backup into a new data folder
    Restore(commands::restore::Args),
    /// Show and upgrade the schema of the database, show the formats of stored files
    Db(commands::db::Args),
    /// Show and rotate the key under which secrets are stored
    Secrets(commands::secrets::Args),
    /// Manage people who sign in
    User(commands::user::Args),
    /// Manage customers
    Customer(commands::customer::Args),
    /// Manage services and the addresses, interfaces and VLANs they hold
    Service(commands::service::Args),
    /// List exporters, show what was heard of them, correct what they said in the past
    Exporter(commands::exporter::Args),
    /// List the interfaces of exporters
    Interface(commands::interface::Args),
    /// Show what the stored tables hold; merge, vacuum and limit them
    Storage(commands::storage::Args),
    /// Flag attack traffic, which is shown on invoices but not charged
    Attack(commands::attack::Args),
    /// Manage the catalog of plans and prices
    Plan(commands::plan::Args),
    /// List prices
    Price(commands::price::Args),
    /// Manage the companies that issue invoices
    Entity(commands::entity::Args),
    /// Manage tax rates
    Tax(commands::tax::Args),
    /// Show customers' credit, grant it, top it up automatically
    Credit(commands::credit::Args),
    /// Limit what customers spend in a month
    Budget(commands::budget::Args),
    /// Show invoices that are not paid, and how far their collection has come
    Dunning(commands::dunning::Args),
    /// Show events, send them again, name the owner who is alerted
    Event(commands::event::Args),
    /// List mails
    Mail(commands::mail::Args),
    /// Manage the endpoints that receive events
    Webhook(commands::webhook::Args),
    /// Manage coupons
    Coupon(commands::coupon::Args),
    /// Manage subscriptions
    Subscription(commands::subscription::Args),
    /// Show the books and check them
    Ledger(commands::ledger::Args),
    /// Show or set the time that billing goes by
    Clock(commands::clock::Args),
    /// List background jobs, run one now, show what they did
    Job(commands::job::Args),
    /// List what waits for a second admin
    Approval(commands::approval::Args),
    /// Show who did what
    Audit(commands::audit::Args),
    /// Charge, record, refund and reconcile payments
    Payment(commands::payment::Args),
    /// Print a shell's completion script: bash, zsh, fish, …
    Completions(commands::shell::Completions),
    /// Write the man pages to a folder
    Man(commands::shell::Man),
}

/// The command line; ends the process with what is wrong with it, or with the help that it asks for.
fn parsed() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    // clap's usage line lists what the environment gave as if it had to be typed. Parsed without the environment the same
    // error does not, unless the environment is what is wrong.
    if error.use_stderr()
        && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        && let Err(typed) = without_environment(Cli::command()).try_get_matches()
        && typed.kind() == error.kind()
        && typed.get(ContextKind::InvalidArg) == error.get(ContextKind::InvalidArg)
    {
        typed.exit();
    }
    error.exit()
}

/// A command whose options, and those of the commands below it, are typed and nothing else.
fn without_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|option| option.env(None::<&'static str>))
        .mut_subcommands(without_environment)
}

fn main() -> ExitCode {
    options::note_beginning();
    private::restrict_new_files();
    let cli = parsed();
    // The demo tells what it does in words and bars, and lets cards be declined on purpose; everything else logs.
    let log = if matches!(cli.command, Command::Demo(_)) {
        "warn,billing=error"
    } else {
        "info"
    };
    options::init_logging(&cli.logging, log);
    descriptors::raise_limit();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("error: start the async runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Serve(args) => commands::serve::run(args).await,
            Command::Init(args) => commands::init::run(args).await,
            Command::Completions(args) => commands::shell::completions(&args, Cli::command()),
            Command::Man(args) => commands::shell::man(&args, Cli::command()),
            Command::Interface(args) => commands::interface::run(args),
            Command::Price(args) => commands::price::run(args).await,
            Command::Mail(args) => commands::mail::run(args).await,
            Command::Approval(args) => commands::approval::run(args).await,
            Command::Collect(args) => commands::collect::run(args).await,
            Command::Demo(args) => commands::demo::run(args).await,
            Command::Simulate(args) => commands::simulate::run(&args),
            Command::Replay(args) => commands::replay::run(args).await,
            Command::Query(args) => commands::query::run(args).await,
            Command::Usage(args) => commands::usage::run(args).await,
            Command::Check(args) => commands::check::run(args).await,
            Command::Invoice(args) => commands::invoice::run(args).await,
            Command::Config(args) => commands::config::run(args).await,
            Command::Backup(args) => commands::backup::run(args).await,
            Command::Restore(args) => commands::restore::run(args).await,
            Command::Db(args) => commands::db::run(args).await,
            Command::Secrets(args) => commands::secrets::run(args).await,
            Command::User(args) => commands::user::run(args).await,
            Command::Customer(args) => commands::customer::run(args).await,
            Command::Service(args) => commands::service::run(args).await,
            Command::Exporter(args) => commands::exporter::run(args).await,
            Command::Storage(args) => commands::storage::run(args).await,
            Command::Attack(args) => commands::attack::run(args).await,
            Command::Plan(args) => commands::plan::run(args).await,
            Command::Entity(args) => commands::entity::run(args).await,
            Command::Tax(args) => commands::tax::run(args).await,
            Command::Credit(args) => commands::credit::run(args).await,
            Command::Budget(args) => commands::budget::run(args).await,
            Command::Dunning(args) => commands::dunning::run(args).await,
            Command::Event(args) => commands::event::run(args).await,
            Command::Webhook(args) => commands::webhook::run(args).await,
            Command::Coupon(args) => commands::coupon::run(args).await,
            Command::Subscription(args) => commands::subscription::run(args).await,
            Command::Ledger(args) => commands::ledger::run(args).await,
            Command::Clock(args) => commands::clock::run(args).await,
            Command::Job(args) => commands::job::run(args).await,
            Command::Audit(args) => commands::audit::run(args).await,
            Command::Payment(args) => commands::payment::run(args).await,
        }
    });
    let unwritten = output::print::failed().map(|error| anyhow::Error::new(error).context("write standard output"));
    match result.and(unwritten.map_or(Ok(()), Err)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell!("error: {}", output::causes(&error));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Of a command that failed, by the class of what it failed of (`docs/errors.md`); 1 where that has none.
fn exit_code(error: &anyhow::Error) -> u8 {
    let error: &(dyn std::error::Error + 'static) = error.as_ref();
    portal::error_table::outcome(portal::error_table::classify(error).class).exit_code
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_what_kind_of_thing_went_wrong() {
        use anyhow::Context as _;

        let gone = Err::<(), _>(billing::BillingError::NoPlan(schemas::ids::PlanId(7)));
        let gone = gone.context("show a plan").unwrap_err();
        assert_eq!(exit_code(&gone), 4);
        let archived = anyhow::Error::new(billing::BillingError::PlanArchived(schemas::ids::PlanId(7)));
        assert_eq!(exit_code(&archived), 3);
        assert_eq!(exit_code(&anyhow::anyhow!("a file is missing")), 1);
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// The names of what has no help text, of a command and of those below it.
    fn unexplained(command: &clap::Command, name: &str, found: &mut Vec<String>) {
        if command.get_about().is_none() {
            found.push(name.to_owned());
        }
        for argument in command.get_arguments() {
            if argument.get_help().is_none() && argument.get_long_help().is_none() {
                found.push(format!("{name} {}", argument.get_id()));
            }
        }
        for below in command.get_subcommands() {
            unexplained(below, &format!("{name} {}", below.get_name()), found);
        }
    }

    #[test]
    fn every_command_and_argument_is_explained() {
        let mut found = Vec::new();
        unexplained(&Cli::command(), "ezscale", &mut found);
        assert!(found.is_empty(), "without help text: {found:#?}");
    }

    #[test]
    fn options_of_logging_stand_under_their_own_heading() {
        let mut command = Cli::command();
        command.build();
        let plan = command.find_subcommand_mut("plan").expect("there are plans");
        let add = plan.find_subcommand_mut("add").expect("plans are added");
        let help = add.render_help().to_string();
        let (own, logging) = help.split_once("Logging:").expect("a heading");
        assert!(own.contains("--data-dir") && !own.contains("--log"), "{help}");
        assert!(
            logging.contains("--log-format") && !logging.contains("--price"),
            "{help}"
        );
    }

    #[test]
    fn the_help_of_ledger_check_names_all_that_it_proves() {
        let mut command = Cli::command();
        command.build();
        let ledger = command.find_subcommand_mut("ledger").expect("there is a ledger");
        let list = ledger.render_help().to_string();
        let check = ledger.find_subcommand_mut("check").expect("it is checked");
        for help in [list, check.render_help().to_string()] {
            for invariant in ["B1", "B2", "B6"] {
                assert!(help.contains(invariant), "{invariant} is not in {help}");
            }
        }
    }

    #[test]
    fn times_are_asked_for_in_one_way() {
        let usage = ["ezscale", "usage", "--from", "2026-11-29", "--to", "2026-11-30"];
        assert!(Cli::try_parse_from(usage).is_ok());
        let refused = Cli::try_parse_from(["ezscale", "usage", "--from", "yesterday"]).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("write a time like 2026-11-29T00:00:00Z, or a day like 2026-11-29"),
            "{refused}"
        );
        let refused = Cli::try_parse_from(["ezscale", "service", "assign", "svc_1", "--prefix", "192.0.2.0/33"]);
        assert!(refused.unwrap_err().to_string().contains("0 to 32"));
        let refused = Cli::try_parse_from(["ezscale", "coupon", "add", "X", "--amount", "1", "--currency", "XXQ"]);
        assert!(refused.unwrap_err().to_string().contains("XXQ"));
        let text = [
            "ezscale",
            "simulate",
            "--to",
            "127.0.0.1:9",
            "--protocol",
            "v9",
            "--format",
            "text",
        ];
        assert!(Cli::try_parse_from(text).is_ok());
    }

    #[test]
    fn a_configuration_is_named_in_two_ways() {
        for arguments in [
            &["ezscale", "config", "check", "a.toml"][..],
            &["ezscale", "config", "check", "--config", "a.toml"],
            &["ezscale", "config", "show", "a.toml"],
            &["ezscale", "config", "show", "--config", "a.toml"],
        ] {
            assert!(Cli::try_parse_from(arguments).is_ok(), "{arguments:?}");
        }
    }
}

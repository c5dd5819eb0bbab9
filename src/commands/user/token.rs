//! `ezscale user token`: what proves to the API and on the command line who somebody is.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use portal::auth::{self, Proof, TokenTerms};
use schemas::identity::TOKEN_DAYS_MAX;
use schemas::ids::TokenId;

use super::{audit, read_password};
use crate::operator;
use crate::options::{Data, now_ms};
use crate::output::{Format, Listing, at, shown, text};

#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make an API token of a user and print it, once; their password is asked for, or read from standard input
    Add {
        /// Email address or id (usr_N)
        user: String,
        /// What it is for, such as laptop
        #[arg(long, default_value = "command line")]
        name: String,
        /// Days that it is valid
        #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=TOKEN_DAYS_MAX))]
        days: i64,
        /// Of the authenticator app, or a recovery code, where a second factor is on
        #[arg(long)]
        code: Option<String>,
        #[command(flatten)]
        data: Data,
    },
    /// List a user's tokens
    List {
        /// Email address or id (usr_N)
        user: String,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        #[command(flatten)]
        data: Data,
    },
    /// Revoke a token
    Revoke {
        /// The token (tok_N), as `user token list` shows it
        token: TokenId,
        #[command(flatten)]
        data: Data,
    },
}

pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    match args.command {
        Command::Add {
            user,
            name,
            days,
            code,
            data,
        } => {
            let (_, database) = data.open_database().await?;
            let id = auth::user_named(database.pool(), &user).await?;
            let password = read_password()?;
            let proof = Proof {
                password: &password,
                code: code.as_deref().unwrap_or_default(),
            };
            let now_ms = now_ms(&database).await?;
            let terms = TokenTerms { name: &name, days };
            let made = auth::issue_token(&database, id, proof, terms, operator::by(), now_ms).await?;
            say!("{}", made.1);
        }
        Command::List { user, format, data } => {
            let (_, database) = data.open_database().await?;
            let id = auth::user_named(database.pool(), &user).await?;
            let mut listing = Listing::new(["id", "name", "created_at", "expires_at", "last_used_at"].map(text));
            for token in auth::tokens_of(database.pool(), id).await? {
                listing.row([
                    shown(token.id),
                    token.name.into(),
                    at(token.created_at_ms),
                    at(token.expires_at_ms),
                    token.last_used_at_ms.map(at).into(),
                ]);
            }
            listing.print(format, "no tokens")?;
        }
        Command::Revoke { token, data } => {
            let (_, database) = data.open_database().await?;
            let mut act = audit::begin(&database, now_ms(&database).await?).await?;
            let note = auth::revoke_token(act.connection(), token, None).await?;
            act.commit(note).await?;
            say!("{token}: revoked");
        }
    }
    Ok(())
}

/// Where a command finds the token of who runs it. The token itself is no argument: everybody on the machine would see it.
#[derive(clap::Args, Debug)]
pub(crate) struct Credential {
    /// File with your token (`ezscale user token add`); without it, the token is in EZSCALE_TOKEN
    #[arg(long, env = "EZSCALE_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
}

impl Credential {
    /// The token.
    ///
    /// # Errors
    /// When there is none, or its file cannot be read.
    pub(crate) fn read(&self) -> anyhow::Result<String> {
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path);
            return Ok(text
                .with_context(|| format!("read the token in {}", path.display()))?
                .trim()
                .to_owned());
        }
        match std::env::var("EZSCALE_TOKEN") {
            Ok(token) if !token.trim().is_empty() => Ok(token.trim().to_owned()),
            _ => bail!(
                "who decides proves who they are: make a token with `ezscale user token add`, and name its file with --token-file, \
                 or put it into EZSCALE_TOKEN"
            ),
        }
    }
}

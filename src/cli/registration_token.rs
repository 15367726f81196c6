//! `causerie admin registration-token …`: tokens that are good for so many accounts or so long.

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};

use crate::{server::Server, storage::rows::users::RegistrationTokenRow, users::TokenChange};

/// What to do with registration tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a token and prints it.
    Create {
        /// The token: letters, digits, `.`, `_`, `~` and `-`; without it one is made up.
        #[arg(long)]
        token: Option<String>,
        /// How often and how long it is good.
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Lists the tokens that were made.
    List,
    /// Changes how often or how long a token is good. What is not named becomes unlimited.
    Update {
        /// The token.
        token: String,
        /// How often and how long it is good.
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Removes a token. Accounts that were made with it stay.
    Delete {
        /// The token.
        token: String,
    },
}

/// How often and how long a token is good.
#[derive(Args, Clone, Copy, Debug)]
pub struct LimitArgs {
    /// How many accounts it may make, with those it has made.
    #[arg(long)]
    uses: Option<u64>,
    /// For how many hours from now it is good.
    #[arg(long)]
    hours: Option<u64>,
}

impl LimitArgs {
    fn expires_ts(self, server: &Server) -> Option<u64> {
        let now = u64::from(server.rooms.clock().now().get());
        let hours = self.hours?;
        let lifetime = Duration::from_secs(hours.saturating_mul(60 * 60));
        Some(now.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// Does the work.
pub async fn run(server: &Server, command: TokenCommand) -> anyhow::Result<()> {
    let tokens = server.users.registration_tokens();
    match command {
        TokenCommand::Create { token, limits } => {
            let made = tokens.create(token, limits.uses, limits.expires_ts(server)).await?;
            say(&made)
        }
        TokenCommand::List => {
            for (token, row) in tokens.list().await? {
                say(&line(&token, &row))?;
            }
            Ok(())
        }
        TokenCommand::Update { token, limits } => {
            let change = TokenChange {
                uses_allowed: Some(limits.uses),
                expires_ts: Some(limits.expires_ts(server)),
            };
            let row = tokens.update(&token, change).await?;
            say(&line(&token, &row))
        }
        TokenCommand::Delete { token } => {
            if !tokens.delete(&token).await? {
                bail!("there is no token {token}");
            }
            say("The token is good no more.")
        }
    }
}

fn line(token: &str, row: &RegistrationTokenRow) -> String {
    let allowed = row.uses_allowed.map_or("any number".to_owned(), |uses| uses.to_string());
    let ends = row.expires_ts.map_or("never".to_owned(), |ts| format!("{ts} ms after 1970"));
    format!("{token}: used {} of {allowed}, ends {ends}", row.uses)
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("the answer cannot be written")
}

//! `causerie admin …`: an administrator's work from a shell, above all the first account.

use anyhow::bail;
use clap::{Args, Subcommand};

use crate::config::Config;

/// What `admin` understands beside the settings.
#[derive(Args, Debug)]
pub struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Makes an account.
    CreateUser {
        /// The user's name: `alice`, or `@alice:example.org`.
        name: String,
        /// Makes the user an administrator of the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Gives an account a new password and ends its sessions.
    ResetPassword {
        /// The user's name: `alice`, or `@alice:example.org`.
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
}

/// Where the password comes from. Never from an argument, which every user of the machine can see.
#[derive(Args, Debug)]
struct PasswordArgs {
    /// Reads the password from the first line of the standard input; without it one is made up and
    /// printed.
    #[arg(long)]
    password_stdin: bool,
}

/// Does the work.
#[expect(clippy::unused_async, reason = "the accounts are joined to it when the parts are merged")]
pub async fn run(_config: Config, args: AdminArgs) -> anyhow::Result<()> {
    let (name, password) = match args.command {
        AdminCommand::CreateUser { name, password, .. }
        | AdminCommand::ResetPassword { name, password } => (name, password),
    };
    bail!(
        "the accounts are not joined to the command line yet: nothing was done for {name} ({})",
        if password.password_stdin { "password from the standard input" } else { "new password" }
    )
}

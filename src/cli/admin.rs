//! `causerie admin …`: an administrator's work from a shell, above all the first account.

use std::{
    io::{self, BufRead, Write},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use ruma::OwnedUserId;

use super::registration_token::{self, TokenCommand};
use crate::{
    appservices::describe,
    config::Config,
    federation::server_keys,
    server::{self, Server},
    time::Clock,
    users::{Selection, secret},
};

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
    /// Takes over the signing key of a homeserver that had this name before.
    ImportSigningKey {
        /// The key file: a line `ed25519 VERSION SEED`.
        file: PathBuf,
    },
    /// Makes, lists, changes and removes registration tokens.
    #[command(subcommand)]
    RegistrationToken(TokenCommand),
    /// Looks at the files of users, withholds and removes them.
    Media(super::media::MediaArgs),
    /// Compacts the database.
    Compact,
    /// Registers application services (bridges, bots) in the database.
    Appservice {
        #[command(subcommand)]
        command: AppserviceCommand,
    },
}

#[derive(Debug, Subcommand)]
enum AppserviceCommand {
    /// Registers the one that a file describes; the file is not needed afterwards.
    Add {
        /// The registration file (YAML).
        file: PathBuf,
    },
    /// Removes one that was registered in the database, and what waits for it.
    Remove {
        /// Its id.
        id: String,
    },
    /// Lists all, also those of the configuration.
    List,
}

/// Where the password comes from. Never from an argument, which every user of the machine can see.
#[derive(Args, Debug)]
struct PasswordArgs {
    /// Reads the password from the first line of the standard input; without it one is made up and
    /// printed.
    #[arg(long)]
    password_stdin: bool,
}

/// Does the work, on the database of a server that is stopped.
pub async fn run(config: Config, args: AdminArgs) -> anyhow::Result<()> {
    let config = Arc::new(config);
    let store = server::open_store(&config).context("is the server still running?")?;
    let server = Server::build(config, store, Clock::system()).await?;
    let done = execute(&server, args.command).await;
    server.sync.stop();
    server.store.close()?;
    done
}

async fn execute(server: &Server, command: AdminCommand) -> anyhow::Result<()> {
    let accounts = server.users.accounts();
    match command {
        AdminCommand::CreateUser { name, admin, password } => {
            let user_id = local_user(server, &name)?;
            let (text, made_up) = password.get()?;
            accounts.create_by_admin(user_id.localpart(), Some(&text), admin).await?;
            let kind = if admin { "administrator" } else { "user" };
            say(&format!("{user_id} is there, as {kind}."))?;
            tell_password(made_up.then_some(&text))
        }
        AdminCommand::ResetPassword { name, password } => {
            let user_id = local_user(server, &name)?;
            if accounts.get(&user_id).await?.is_none() {
                bail!("there is no user {user_id}");
            }
            let (text, made_up) = password.get()?;
            server.users.set_password(&user_id, &text, Some(Selection::All)).await?;
            say(&format!("{user_id} has a new password; all sessions are ended."))?;
            tell_password(made_up.then_some(&text))
        }
        AdminCommand::ImportSigningKey { file } => {
            let line = std::fs::read_to_string(&file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            server_keys::import(&server.store, line.trim(), server.rooms.clock()).await?;
            say("The key signs from now on; the old one stays published.")
        }
        AdminCommand::RegistrationToken(command) => registration_token::run(server, command).await,
        AdminCommand::Appservice { command } => change_appservices(server, command).await,
        AdminCommand::Media(args) => super::media::run(server, args).await,
        AdminCommand::Compact => {
            server.store.compact()?;
            say(&format!("The database takes {} bytes.", server.store.disk_bytes()?))
        }
    }
}

async fn change_appservices(server: &Server, command: AppserviceCommand) -> anyhow::Result<()> {
    match command {
        AppserviceCommand::Add { file } => {
            let yaml = std::fs::read_to_string(&file)
                .with_context(|| format!("{} cannot be read", file.display()))?;
            let id = server.appservices.register(&yaml).await?;
            say(&format!("{id} is registered."))
        }
        AppserviceCommand::Remove { id } => {
            server.appservices.unregister(&id).await?;
            say(&format!("{id} is removed."))
        }
        AppserviceCommand::List => {
            let registry = server.appservices.registry();
            registry.all().iter().try_for_each(|one| say(&describe(one)))
        }
    }
}

pub(super) fn local_user(server: &Server, name: &str) -> anyhow::Result<OwnedUserId> {
    let localpart = match name.strip_prefix('@') {
        None => name,
        Some(rest) => match rest.split_once(':') {
            Some((localpart, host)) if host == server.rooms.server_name() => localpart,
            _ => bail!("{name} is not a user of {}", server.rooms.server_name()),
        },
    };
    Ok(server.users.accounts().new_user_id(localpart)?)
}

impl PasswordArgs {
    /// The password, and whether it was made up.
    fn get(&self) -> anyhow::Result<(String, bool)> {
        if !self.password_stdin {
            return Ok((secret::random_name(20), true));
        }
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).context("the password cannot be read")?;
        let text = line.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            bail!("the standard input has no password");
        }
        Ok((text.to_owned(), false))
    }
}

fn tell_password(made_up: Option<&String>) -> anyhow::Result<()> {
    made_up.map_or(Ok(()), |text| say(&format!("The password is {text}")))
}

fn say(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}").context("the answer cannot be written")
}

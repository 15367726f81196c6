//! The command line: `causerie serve`, `check-config`, `admin …`, `fsck`, `backup` and `restore`,
//! one file each.
//!
//! Every command reads the same settings the same way; a mistake in them, or a failure, is one
//! sentence on the standard error stream and the exit code 1.

pub mod admin;
pub mod backup;
pub mod check_config;
pub mod fsck;
pub mod registration_token;
pub mod media;
pub mod restore;
pub mod serve;
pub mod thumbnail;

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, ConfigError};

/// Names the configuration file when `--config` does not.
const CONFIG_VARIABLE: &str = "CAUSERIE_CONFIG";

/// The threads for work that blocks, such as reads from disk; their memory is only address space
/// until they run.
const BLOCKING_THREADS_MAX: usize = 32;

/// A Matrix homeserver for team chat.
#[derive(Debug, Parser)]
#[command(name = "causerie", version, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    settings: SettingsArgs,
    #[command(subcommand)]
    command: Command,
}

/// Where settings come from, for every command.
#[derive(Args, Debug)]
struct SettingsArgs {
    /// The configuration file [default: the one that the variable `CAUSERIE_CONFIG` names, if any].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Overrules one setting; may be given several times.
    #[arg(long, global = true, value_name = "SECTION.KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// The name of the server, as `--set server.name=NAME`.
    #[arg(long, global = true, value_name = "NAME")]
    server_name: Option<String>,
    /// The folder of the database, as `--set database.path=FOLDER`.
    #[arg(long, global = true, value_name = "FOLDER")]
    database: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server until it is told to stop.
    Serve(serve::ServeArgs),
    /// Says whether the configuration is fine, and if not, what is wrong.
    CheckConfig,
    /// Does an administrator's work on the database, while the server is stopped.
    Admin(admin::AdminArgs),
    /// Makes a thumbnail of the picture on the standard input; the server calls it.
    #[command(hide = true)]
    Thumbnail(thumbnail::ThumbnailArgs),
    /// Checks the database for damage; finds it with exit code 1.
    Fsck(fsck::FsckArgs),
    /// Adds a backup of the database to a folder, while the server is stopped.
    Backup(backup::BackupArgs),
    /// Restores the newest backup of a folder to where the database was.
    Restore(restore::RestoreArgs),
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let Cli { settings, command } = Cli::parse();
    match run(&settings, command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done about a closed stream; the exit code tells it all the same.
            let _ = writeln!(io::stderr().lock(), "causerie: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(settings: &SettingsArgs, command: Command) -> anyhow::Result<()> {
    if let Command::Thumbnail(args) = &command {
        // No settings, no threads: nothing before its limits are set.
        return thumbnail::run(args);
    }
    let listen = match &command {
        Command::Serve(args) => args.listen_override(),
        _ => None,
    };
    let config = settings.load(listen)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .context("the threads of the server could not be started")?;
    match command {
        Command::Serve(args) => runtime.block_on(serve::run(config, args)),
        Command::CheckConfig => check_config::run(&config),
        Command::Thumbnail(args) => thumbnail::run(&args),
        Command::Admin(args) => runtime.block_on(admin::run(config, args)),
        Command::Fsck(args) => runtime.block_on(fsck::run(config, args)),
        Command::Backup(args) => backup::run(&config, &args),
        Command::Restore(args) => runtime.block_on(restore::run(config, args)),
    }
}

impl SettingsArgs {
    fn load(&self, listen: Option<(String, String)>) -> Result<Config, ConfigError> {
        let variable = env::var_os(CONFIG_VARIABLE).filter(|path| !path.is_empty());
        let path = self.path(variable);
        Config::load(path.as_deref(), &self.overrides(listen))
    }

    fn path(&self, variable: Option<OsString>) -> Option<PathBuf> {
        self.config.clone().or_else(|| variable.map(PathBuf::from))
    }

    /// What the command line sets; `--set` comes last because it is the most exact.
    fn overrides(&self, listen: Option<(String, String)>) -> Vec<(String, String)> {
        let flag = |key: &str, value: &Option<String>| {
            value.as_ref().map(|value| (key.to_owned(), quoted(value)))
        };
        let flags = flag("server.name", &self.server_name)
            .into_iter()
            .chain(flag("database.path", &self.database))
            .chain(listen);
        flags.chain(self.set.iter().cloned()).collect()
    }
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) =
        text.split_once('=').ok_or("write it as SECTION.KEY=VALUE, with an equals sign")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// The text as a TOML string, so that it stays text whatever it looks like.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Writes a line for the person at the terminal.
fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{line}")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(words: &str) -> Cli {
        Cli::try_parse_from(words.split(' ')).unwrap()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_and_settings_overrule() {
        let cli = parse(
            "causerie serve --server-name example.org --set rooms.default_version=11 \
             --database /srv/x --listen 127.0.0.1:1 --listen [::1]:1 --set a.b=c=d",
        );
        let Command::Serve(args) = &cli.command else { panic!("not serve") };
        let overrides = cli.settings.overrides(args.listen_override());
        let expected = [
            ("server.name", "\"example.org\""),
            ("database.path", "\"/srv/x\""),
            ("server.listeners", "[{ address = \"127.0.0.1:1\" }, { address = \"[::1]:1\" }]"),
            ("rooms.default_version", "11"),
            ("a.b", "c=d"),
        ];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(overrides, expected);
    }

    #[test]
    fn the_file_on_the_command_line_comes_before_the_variable() {
        let variable = || Some(OsString::from("/variable"));
        let given = parse("causerie check-config --config /line");
        assert_eq!(given.settings.path(variable()), Some("/line".into()));
        let not_given = parse("causerie check-config");
        assert_eq!(not_given.settings.path(variable()), Some("/variable".into()));
        assert_eq!(not_given.settings.path(None), None);
    }

    #[test]
    fn a_setting_needs_an_equals_sign() {
        let words = ["causerie", "check-config", "--set", "server.name"];
        assert!(Cli::try_parse_from(words).is_err());
    }
}

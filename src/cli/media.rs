//! `causerie admin media …`: the files of users, for an administrator, while the server is stopped.

use anyhow::bail;
use clap::{Args, Subcommand};

use super::{admin::local_user, say};
use crate::{
    media::{self, Media},
    server::Server,
};

/// How many files are read at once.
const PAGE_FILES: usize = 500;

/// What `admin media` understands.
#[derive(Args, Debug)]
pub struct MediaArgs {
    #[command(subcommand)]
    command: MediaCommand,
}

#[derive(Debug, Subcommand)]
enum MediaCommand {
    /// Lists the files of a user, a line each: address, bytes, when uploaded, type.
    List {
        /// The user's name: `alice`, or `@alice:example.org`.
        user: String,
    },
    /// Withholds files from everybody.
    Quarantine {
        /// Their addresses, as in `mxc://example.org/abc`.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Gives withheld files again.
    Release {
        /// Their addresses, as in `mxc://example.org/abc`.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Removes files for good.
    Delete {
        /// Their addresses, as in `mxc://example.org/abc`.
        #[arg(required = true)]
        addresses: Vec<String>,
    },
    /// Removes all files of a user for good.
    DeleteOf {
        /// The user's name: `alice`, or `@alice:example.org`.
        user: String,
    },
}

/// Does the work.
pub async fn run(server: &Server, args: MediaArgs) -> anyhow::Result<()> {
    let files = &server.media;
    match args.command {
        MediaCommand::List { user } => list(server, &user).await,
        MediaCommand::Quarantine { addresses } => {
            for address in addresses {
                let key = Media::key_of_uri(&address)?;
                tell(&address, "withheld", files.quarantine(&key, true).await?)?;
            }
            Ok(())
        }
        MediaCommand::Release { addresses } => {
            for address in addresses {
                let key = Media::key_of_uri(&address)?;
                tell(&address, "given again", files.quarantine(&key, false).await?)?;
            }
            Ok(())
        }
        MediaCommand::Delete { addresses } => {
            for address in addresses {
                let key = Media::key_of_uri(&address)?;
                tell(&address, "removed", files.delete(&key).await?)?;
            }
            Ok(())
        }
        MediaCommand::DeleteOf { user } => {
            let user_id = local_user(server, &user)?;
            let count = files.delete_of_user(&user_id).await?;
            Ok(say(&format!("{count} files of {user_id} are removed."))?)
        }
    }
}

async fn list(server: &Server, user: &str) -> anyhow::Result<()> {
    let user_id = local_user(server, user)?;
    let mut last = None;
    loop {
        let page = server.media.list_of_user(&user_id, last.as_ref(), PAGE_FILES).await?;
        for listed in &page {
            let row = &listed.row;
            let content_type = row.content_type.as_deref().unwrap_or("-");
            let withheld = if row.quarantined_ts.is_some() { " withheld" } else { "" };
            let (address, bytes) = (media::uri(&listed.key), row.size_bytes);
            say(&format!("{address} {bytes} {} {content_type}{withheld}", row.created_ts))?;
        }
        match page.into_iter().next_back() {
            Some(listed) => last = Some(listed),
            None => break,
        }
    }
    let usage = server.media.usage(&user_id).await?;
    Ok(say(&format!("{} files of {} bytes", usage.files, usage.bytes))?)
}

fn tell(address: &str, what: &str, was_there: bool) -> anyhow::Result<()> {
    if !was_there {
        bail!("there is no file {address}");
    }
    Ok(say(&format!("{address} is {what}."))?)
}

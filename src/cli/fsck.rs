//! `causerie fsck`: checks the database for damage.

use anyhow::bail;
use clap::Args;

use crate::config::Config;

/// What `fsck` understands beside the settings.
#[derive(Args, Debug)]
pub struct FsckArgs {}

/// Checks the database.
#[expect(clippy::unused_async, reason = "the store is joined to it when the parts are merged")]
pub async fn run(_config: Config, _args: FsckArgs) -> anyhow::Result<()> {
    bail!("the store is not joined to the command line yet")
}

//! Keeps what was asked and answered, for the check against the specification's OpenAPI files:
//! `tests/openapi`. Only where `CAUSERIE_EXCHANGES` names a folder.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::PathBuf,
    process,
    sync::{Mutex, OnceLock},
};

use http::{Method, StatusCode};
use serde_json::{Value, json};

static FILE: OnceLock<Option<Mutex<File>>> = OnceLock::new();

/// The folder for exchanges, if they are wanted.
pub(crate) fn folder() -> Option<PathBuf> {
    env::var_os("CAUSERIE_EXCHANGES").map(PathBuf::from)
}

/// Writes down one exchange, as a line of JSON.
pub(crate) fn exchange(method: &Method, path: &str, status: StatusCode, body: &Value) {
    let file = FILE.get_or_init(|| {
        let folder = folder()?;
        fs::create_dir_all(&folder).unwrap();
        let name = folder.join(format!("exchanges-{}.jsonl", process::id()));
        Some(Mutex::new(File::create(name).unwrap()))
    });
    let Some(file) = file else { return };
    let line = json!({
        "method": method.as_str(), "path": path, "status": status.as_u16(), "body": body,
    });
    writeln!(file.lock().unwrap(), "{line}").unwrap();
}
